"""A whole request, verified offline: every claim, and every touch of its bundle with its reason."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from receipts import bundle as bundles
from receipts import proof
from receipts.bundle import Bundle
from receipts.log import Draft, Keep
from receipts.tests.conftest import claim_of, code_of, verdict
from receipts.tests.touching import predicate, resigned, without
from receipts.tests.world import NOW, Federation, placement
from receipts.verify import CLAIMS
from schemas import envelope
from schemas.keys import SigningKey

FORGER = SigningKey.generate()
REQUIRED = {"signature", "schema", "issuer-key", "logged", "execution-link", "attested"}


def test_a_good_request_holds(federation: Federation, good: bytes) -> None:
    report = federation.verify(good)
    assert (report.exit_code, report.missing) == (0, ())
    assert [receipt.kind for receipt in report.receipts] == ["placement", "execution"]
    for receipt in report.receipts:
        assert tuple(claim.name for claim in receipt.claims) == CLAIMS
        shown = {claim.name for claim in receipt.claims if claim.verdict == "proved"}
        assert shown >= REQUIRED
    assert verdict(report, "execution", "capability") == ("asserted-by(node)", None)
    assert verdict(report, "execution", "usage") == ("asserted-by(cloud.fr)", None)
    assert verdict(report, "placement", "plan-choice") == ("asserted-by(clinic.de)", None)
    assert report.status == "anchor: none, witnesses: 0/0"


def test_simulated_hardware_is_named_in_every_form(federation: Federation, good: bytes) -> None:
    report = federation.verify(good)
    for receipt in report.receipts:
        claim = claim_of(report, receipt.kind, "attested")
        assert "SIMULATED" in claim.text
        assert "simulated-snp-milan" in claim.text
        assert "no devices" in claim.text


def test_both_forms_say_the_same(federation: Federation, good: bytes) -> None:
    data = good
    as_json = bundles.write_json_form(bundles.read(data))
    assert federation.verify(as_json).as_json() == federation.verify(data).as_json()


def test_without_expectations_nothing_is_attested(federation: Federation, good: bytes) -> None:
    report = federation.verify(good, expectations='"any"')
    assert (report.exit_code, report.missing) == (3, ("execution-link",))
    assert report.waived == ("expectations",)
    assert verdict(report, "execution", "attested") == ("not-checked", "verify.no_expectations")
    assert verdict(report, "execution", "execution-link")[0] == "asserted-by(cloud.fr)"


def test_strict_asks_for_more_than_words(federation: Federation, good: bytes) -> None:
    report = federation.verify(good, profile='"strict"')
    assert report.exit_code == 3
    assert set(report.missing) == {"policy", "plan-choice", "capability", "usage", "time"}


# Touching the bundle: nothing in it is trusted, so each change shows, with its reason.


def swap_proofs(bundle: Bundle) -> Bundle:
    first, second = bundle.proofs
    return replace(bundle, proofs={first: bundle.proofs[second], second: bundle.proofs[first]})


def alter(bundle: Bundle, kind: str) -> Bundle:
    """One digit of what was signed."""
    altered = {}
    for data in bundle.envelopes.values():
        value = json.loads(data)
        if kind in predicate(data):
            value["payload"] = _altered(envelope.read(data).payload)
        changed = json.dumps(value).encode()
        altered[envelope.read(changed).digest] = changed
    return replace(bundle, envelopes=altered)


def _altered(payload: bytes) -> str:
    return base64.b64encode(payload.replace(b'"count":3', b'"count":2').replace(b":34,", b":33,")).decode()


def resalt(bundle: Bundle) -> Bundle:
    proofs = {}
    for name, text in bundle.proofs.items():
        parsed = proof.read(text)
        proofs[name] = proof.write(replace(parsed, extra=bytes(32)))
    return replace(bundle, proofs=proofs)


def spoil_evidence(bundle: Bundle) -> Bundle:
    """Other evidence under the same name: it is found by its digest or not at all."""
    return replace(
        bundle, blobs={name: data.replace(b"llama", b"alpac") for name, data in bundle.blobs.items()}
    )


TOUCHED: list[tuple[str, Callable[[Bundle], Bundle], str, str, tuple[str, str | None], int]] = [
    ("placement-gone", partial(without, kind="placement-receipt"), "execution", "placement-link",
     ("not-checked", "verify.link_absent"), 3),
    ("execution-gone", partial(without, kind="execution-receipt"), "placement", "execution-link",
     ("not-checked", "verify.execution_absent"), 3),
    ("node-statement-gone", partial(without, kind="node-statement"), "execution", "execution-link",
     ("not-checked", "verify.node_statement_absent"), 3),
    ("proofs-gone", lambda bundle: replace(bundle, proofs={}), "placement", "logged",
     ("not-checked", "verify.proof_missing"), 3),
    ("proofs-swapped", swap_proofs, "placement", "logged", ("failed", "checkpoint.origin"), 1),
    ("salt-wrong", resalt, "placement", "logged", ("failed", "merkle.inclusion"), 1),
    ("placement-forged", partial(resigned, kind="placement", key=FORGER), "placement", "signature",
     ("failed", "envelope.signature_invalid"), 1),
    ("execution-forged", partial(resigned, kind="execution", key=FORGER), "execution", "signature",
     ("failed", "envelope.signature_invalid"), 1),
    ("node-forged", partial(resigned, kind="node-statement", key=FORGER), "execution", "execution-link",
     ("failed", "envelope.signature_invalid"), 1),
    ("placement-altered", partial(alter, kind="placement"), "placement", "signature",
     ("failed", "envelope.signature_invalid"), 1),
    ("execution-altered", partial(alter, kind="execution"), "execution", "signature",
     ("failed", "envelope.signature_invalid"), 1),
    ("evidence-gone", lambda bundle: replace(bundle, blobs={}), "execution", "attested",
     ("not-checked", "verify.evidence_missing"), 3),
    ("evidence-other", spoil_evidence, "execution", "attested",
     ("not-checked", "verify.evidence_missing"), 3),
    ("disclosures-gone", lambda bundle: replace(bundle, disclosures={}), "execution", "attested",
     ("not-checked", "node.challenge_missing"), 3),
    ("charter-gone", lambda bundle: replace(bundle, charter=None), "placement", "issuer-key",
     ("not-checked", "verify.charter_missing"), 3),
    ("manifests-gone", lambda bundle: replace(bundle, manifests=()), "placement", "signature",
     ("failed", "envelope.key_unknown"), 1),
]  # fmt: skip


@pytest.mark.parametrize("case", TOUCHED, ids=[case[0] for case in TOUCHED])
def test_a_touched_bundle_shows_it(
    federation: Federation, good: bytes, case: tuple[str, Callable[[Bundle], Bundle], str, str, Any, int]
) -> None:
    _, touch, kind, claim, wanted, code = case
    touched = touch(bundles.read(good))
    report = federation.verify(bundles.write(touched))
    assert verdict(report, kind, claim) == wanted
    assert report.exit_code == code


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b'"seq":0', b'"seq":0,"seq":0', "json.duplicate_key"),
        (b'"seq":0', b'"seq":0.0', "json.float"),
        (b'"seq":0', b'"seq":0,"surprise":1', "schema.PlacementReceipt"),
        (b'"crit":[]', b'"crit":["surprise"]', "receipt.crit_unknown"),
    ],
)
def test_a_signed_statement_must_be_strict_all_the_same(
    federation: Federation, good: bytes, old: bytes, new: bytes, code: str
) -> None:
    """Signed by the right key, but not what the format allows: the claim `schema` fails, nothing else."""
    bundle, kept = bundles.read(good), {}
    for data in bundle.envelopes.values():
        payload = envelope.read(data).payload
        if "placement-receipt" in predicate(data):
            assert old in payload
            loose = payload.replace(old, new, 1)
            data = envelope.sign(envelope.STATEMENT, loose, federation.clinic.keys.receipt)
        kept[envelope.read(data).digest] = data
    report = federation.verify(bundles.write(replace(bundle, envelopes=kept)))
    assert verdict(report, "placement", "signature") == ("proved", None)
    assert verdict(report, "placement", "schema") == ("failed", code)
    assert report.exit_code == 1


async def test_only_a_promise_is_only_a_word(federation: Federation, tmp_path: Path) -> None:
    clinic = await federation.clinic.open(tmp_path)
    (issued,) = await clinic.issue([Draft(placement())])
    data = await clinic.bundle(issued.receipt_id)
    await clinic.close()
    report = federation.verify(data)
    assert verdict(report, "placement", "logged") == ("asserted-by(clinic.de/log)", None)
    assert report.exit_code == 3
    late = federation.verify(data, at=NOW + timedelta(minutes=1))
    assert "overdue" in next(claim.text for claim in late.claims if claim.name == "logged")


async def test_a_promise_is_the_log_s_own_word(federation: Federation, tmp_path: Path) -> None:
    """Signed by another domain's promise key, in the name of the log's: nobody promised."""
    clinic = await federation.clinic.open(tmp_path)
    (issued,) = await clinic.issue([Draft(placement())])
    bundle = bundles.read(await clinic.bundle(issued.receipt_id))
    await clinic.close()
    promised = envelope.read(issued.promise)
    forged = envelope.sign(envelope.STATEMENT, promised.payload, federation.cloud.keys.promise)
    report = federation.verify(
        bundles.write(replace(bundle, envelopes={**bundle.envelopes, promised.digest: forged}))
    )
    assert verdict(report, "placement", "logged") == ("not-checked", "verify.proof_missing")


def test_a_failed_receipt_supports_no_other(federation: Federation, good: bytes) -> None:
    """A forged Placement must not make the Execution's link good."""
    bundle = bundles.read(good)
    report = federation.verify(bundles.write(resigned(bundle, "placement", FORGER)))
    assert verdict(report, "execution", "placement-link") == ("not-checked", "verify.link_absent")


def test_a_bundle_without_receipts_is_no_bundle(federation: Federation) -> None:
    empty = bundles.write(Bundle({}))
    assert code_of(lambda: federation.verify(empty)) == "bundle.empty"
    stranger = envelope.sign(
        envelope.STATEMENT, b'{"predicateType":"https://other/v1"}', SigningKey.generate()
    )
    odd = bundles.write(Bundle({envelope.read(stranger).digest: stranger}))
    assert code_of(lambda: federation.verify(odd)) == "bundle.statement"


def test_a_foreign_domain_cannot_speak_for_another(federation: Federation, good: bytes) -> None:
    """cloud.fr signs, with its own registered key, what pretends to be clinic.de's receipt."""
    forged = resigned(bundles.read(good), "placement", federation.cloud.keys.receipt)
    report = federation.verify(bundles.write(forged))
    assert verdict(report, "placement", "issuer-key") == ("failed", "receipt.issuer")


def test_a_message_key_signs_no_receipt(federation: Federation, good: bytes) -> None:
    """The promise key is registered too, but not for receipts."""
    forged = resigned(bundles.read(good), "placement", federation.clinic.keys.promise)
    report = federation.verify(bundles.write(forged))
    assert verdict(report, "placement", "signature") == ("failed", "envelope.signature_invalid")


async def test_foreign_proofs_are_kept_with_their_receipts(federation: Federation, tmp_path: Path) -> None:
    clinic = await federation.clinic.open(tmp_path)
    await clinic.keep(Keep("r1", proofs={bytes(32): b"nothing to belong to"}))
    await clinic.close()
