"""A whole request, verified offline: every claim, and every lie with its reason."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from receipts import bundle as bundles
from receipts import proof
from receipts.bundle import Bundle
from receipts.commands import render
from receipts.log import Draft, Keep
from receipts.statements.fields import Commitment, Layer, Link, ManifestRef, Times
from receipts.statements.receipt import Considered, Dispute, Executor
from receipts.tests.conftest import claim_of, code_of, verdict
from receipts.tests.world import (
    CLINIC,
    CLOUD,
    END,
    NOW,
    START,
    Domain,
    Federation,
    Node,
    Run,
    acknowledgement,
    digest,
    placement,
    policy,
    usage,
)
from receipts.verify import CLAIMS, Report
from schemas import envelope
from schemas.keys import SigningKey
from schemas.papers.manifest import RevokedKey, sign_manifest
from schemas.primitives import format_time

REQUIRED = {"signature", "schema", "issuer-key", "logged", "execution-link", "attested"}


@pytest.fixture(scope="session")
def good(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bundle of one good request, played once."""
    return asyncio.run(federation.play(tmp_path_factory.mktemp("good")))


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


def without(bundle: Bundle, kind: str) -> Bundle:
    kept = {name: data for name, data in bundle.envelopes.items() if kind not in predicate(data)}
    assert len(kept) < len(bundle.envelopes)
    return replace(bundle, envelopes=kept)


def predicate(data: bytes) -> str:
    value: str = json.loads(envelope.read(data).payload)["predicateType"]
    return value


def swap_proofs(bundle: Bundle) -> Bundle:
    first, second = bundle.proofs
    return replace(bundle, proofs={first: bundle.proofs[second], second: bundle.proofs[first]})


def spoil_signatures(bundle: Bundle, kind: str) -> Bundle:
    """A forger signs the same words with a key of his own."""
    forger = SigningKey.generate()
    spoiled = {
        name: envelope.sign(envelope.STATEMENT, envelope.read(data).payload, forger)
        if kind in predicate(data)
        else data
        for name, data in bundle.envelopes.items()
    }
    return replace(bundle, envelopes=spoiled)


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
    ("placement-forged", partial(spoil_signatures, kind="placement"), "placement", "signature",
     ("failed", "envelope.signature_invalid"), 1),
    ("execution-forged", partial(spoil_signatures, kind="execution"), "execution", "signature",
     ("failed", "envelope.signature_invalid"), 1),
    ("node-forged", partial(spoil_signatures, kind="node-statement"), "execution", "execution-link",
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


def test_of_two_manifests_the_newer_counts(federation: Federation, good: bytes) -> None:
    """Under pinned roots an older manifest never replaces a newer one."""
    bundle, clinic = bundles.read(good), federation.clinic
    stranger = SigningKey.generate()
    keys = [
        key.model_copy(update={"jwk": stranger.public.jwk, "thumbprint": stranger.thumbprint})
        if key.role == "receipt"
        else key
        for key in clinic.manifest.keys
    ]
    newer = sign_manifest(clinic.manifest.model_copy(update={"version": 2, "keys": keys}), clinic.root)
    roots = roots_toml(federation.clinic, federation.cloud)
    for manifests in ((*bundle.manifests, newer), (newer, *bundle.manifests)):
        both = bundles.write(replace(bundle, manifests=manifests))
        report = federation.verify(both, charter=None, roots=roots)
        assert versions(report)["clinic.de"] == 2
        assert verdict(report, "placement", "signature") == ("failed", "envelope.signature_invalid")


@pytest.mark.parametrize("first", [True, False])
def test_who_registers_another_s_key_takes_nothing_from_its_owner(
    federation: Federation, good: bytes, first: bool
) -> None:
    bundle, cloud = bundles.read(good), federation.cloud
    stolen = next(key for key in federation.clinic.manifest.keys if key.role == "receipt")
    greedy = cloud.manifest.model_copy(update={"version": 2, "keys": [*cloud.manifest.keys, stolen]})
    signed = sign_manifest(greedy, cloud.root)
    manifests = (signed, *bundle.manifests) if first else (*bundle.manifests, signed)
    roots = roots_toml(*((cloud, federation.clinic) if first else (federation.clinic, cloud)))
    report = federation.verify(bundles.write(replace(bundle, manifests=manifests)), charter=None, roots=roots)
    assert verdict(report, "placement", "issuer-key") == ("proved", None)
    assert report.exit_code == 0


async def test_a_manifest_older_than_a_receipt_names_proves_no_key(tmp_path: Path) -> None:
    """As where the one that revoked the key is withheld: what was in force is not here."""
    federation = Federation.found()
    clinic, older = federation.clinic, federation.clinic.signed_manifest
    federation.clinic = replace(clinic, version=2)
    federation.__dict__.pop("charter", None)
    federation.publish()
    bundle = bundles.read(await federation.play(tmp_path))
    manifests = (older, federation.cloud.signed_manifest)
    roots = roots_toml(federation.clinic, federation.cloud)
    withheld = bundles.write(replace(bundle, manifests=manifests))
    report = federation.verify(withheld, charter=None, roots=roots)
    assert verdict(report, "placement", "issuer-key") == ("not-checked", "verify.manifest_old")
    assert report.exit_code == 3
    assert federation.verify(bundles.write(bundle), charter=None, roots=roots).exit_code == 0


async def test_a_young_looking_challenge_does_not_help(federation: Federation, tmp_path: Path) -> None:
    """The disclosed issue time is not signed; the Placement's is."""
    run = Run()
    run.disclosures = run.node.disclosures(issued_at=NOW - timedelta(seconds=1))
    report = federation.verify(await federation.play(tmp_path, run))
    assert verdict(report, "placement", "attested") == ("not-checked", "node.challenge_missing")


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


# What the signers themselves may get wrong, or lie about.

RUNS: list[tuple[str, Run, str, str, tuple[str, str | None]]] = [
    ("another-executor", Run(placement={"executor": Executor(domain="hyper.us", key="A" * 43)}),
     "execution", "placement-link", ("failed", "verify.link_executor")),
    ("unlinked", Run(links=[]), "execution", "placement-link", ("failed", "verify.link_missing")),
    ("linked-elsewhere", Run(links=[Link(rel="placement", digest="9" * 64)]), "execution", "placement-link",
     ("not-checked", "verify.link_absent")),
    ("ok-without-node", Run(links=[]), "execution", "execution-link", ("failed", "verify.node_link")),
    ("better-usage", Run(execution={"usage": usage(output_tokens=340)}), "execution", "execution-link",
     ("failed", "verify.usage")),
    ("other-output", Run(execution={"response": Commitment(commitment="3" * 64)}), "execution",
     "execution-link", ("failed", "verify.response")),
    ("prettier-outcome", Run(statement={"outcome": "partial"}), "execution", "execution-link",
     ("failed", "verify.outcome")),
    ("other-domain-s-node", Run(node=Node(domain="clinic.de")), "execution", "attested",
     ("failed", "verify.node_domain")),
    ("denied-but-ran", Run(execution={"policy": policy(verdict="deny")}), "execution", "policy",
     ("failed", "verify.policy")),
    ("allowed-against-a-layer",
     Run(placement={"policy": policy(layers=[
         Layer(layer="national", digest=digest(), verdict="deny", rules=["DEU-001-x"])])}),
     "placement", "policy", ("failed", "verify.policy")),
    ("index-outside-the-set",
     Run(placement={"considered": Considered(root="0" * 64, count=1, selected_index=1)}),
     "placement", "plan-choice", ("failed", "verify.considered")),
]  # fmt: skip


@pytest.mark.parametrize("case", RUNS, ids=[case[0] for case in RUNS])
async def test_a_signer_s_lie_shows(
    federation: Federation, tmp_path: Path, case: tuple[str, Run, str, str, tuple[str, str | None]]
) -> None:
    _, run, kind, claim, wanted = case
    report = federation.verify(await federation.play(tmp_path, replace(run, request=Run().request)))
    assert (verdict(report, kind, claim), report.exit_code) == (wanted, 1)


async def test_a_receipt_that_misstates_simulated_hardware(federation: Federation, tmp_path: Path) -> None:
    node = Node()
    run = Run(node, execution={"nodes": [node.record(simulated=False)]})
    report = federation.verify(await federation.play(tmp_path, run))
    assert verdict(report, "execution", "attested") == ("failed", "verify.simulated")


async def test_a_receipt_that_misstates_how_devices_are_bound(federation: Federation, tmp_path: Path) -> None:
    node = Node()
    run = Run(node, execution={"nodes": [node.record(binding_mode="derived-nonce+evidence-hash")]})
    report = federation.verify(await federation.play(tmp_path, run))
    assert verdict(report, "execution", "attested") == ("failed", "verify.binding_mode")


async def test_another_node_s_evidence_proves_nothing(federation: Federation, tmp_path: Path) -> None:
    """A good quote of a good node, under the name of a key that it does not vouch for."""
    node, other = Node(), Node()
    record = other.record(evidence_digest=node.record().attestation.evidence_digest)  # type: ignore[union-attr]
    run = Run(node, execution={"nodes": [record]}, statement={})
    report = federation.verify(await federation.play(tmp_path, run))
    assert verdict(report, "execution", "attested")[0] in ("failed", "not-checked")
    assert report.exit_code == 1


async def test_an_acknowledgement_agrees_or_not(federation: Federation, tmp_path: Path) -> None:
    report = federation.verify(await federation.play(tmp_path, more=partial(acknowledge)))
    assert verdict(report, "acknowledgement", "ack-link") == ("proved", None)
    assert verdict(report, "execution", "usage") == ("proved", None)
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("changes", "claim", "code"),
    [
        ({"response": Commitment(commitment="3" * 64)}, "ack-link", "verify.response"),
        ({"usage_agreed": usage(output_tokens=1)}, "usage", "verify.usage"),
    ],
)
async def test_a_disagreement_shows(
    federation: Federation, tmp_path: Path, changes: dict[str, Any], claim: str, code: str
) -> None:
    report = federation.verify(await federation.play(tmp_path, more=partial(acknowledge, **changes)))
    kind = "acknowledgement" if claim == "ack-link" else "execution"
    assert verdict(report, kind, claim) == ("failed", code)


async def acknowledge(run: Run, clinic: Any, cloud: Any, **changes: Any) -> None:
    await clinic.issue([Draft(acknowledgement(request=run.request, links=run.both, **changes))])


async def test_a_dispute_proves_nothing_and_is_told(federation: Federation, tmp_path: Path) -> None:
    said: dict[str, Any] = {"status": "disputed", "dispute": Dispute(code="ack.price"), "usage_agreed": None}
    report = federation.verify(await federation.play(tmp_path, more=partial(acknowledge, **said)))
    assert verdict(report, "acknowledgement", "ack-link") == ("asserted-by(clinic.de)", None)
    (usage,) = [each for each in report.claims if each.name == "usage" and "disputed" in each.text]
    assert verdict(report, "execution", "usage") == ("asserted-by(cloud.fr)", None)
    assert usage.text.endswith("disputed by clinic.de: ack.price")
    assert report.exit_code == 3


async def test_an_answer_that_never_arrived_whole_is_linked_and_not_agreed(
    federation: Federation, tmp_path: Path
) -> None:
    said: dict[str, Any] = {"status": "timeout", "response": None, "usage_agreed": None}
    report = federation.verify(await federation.play(tmp_path, more=partial(acknowledge, **said)))
    assert verdict(report, "acknowledgement", "ack-link") == ("proved", None)
    assert verdict(report, "execution", "usage") == ("asserted-by(cloud.fr)", None)
    assert report.exit_code == 0


async def applaud_oneself(run: Run, clinic: Any, cloud: Any) -> None:
    """The executing domain acknowledges its own Execution, and hands that over."""
    (issued,) = await cloud.issue([Draft(acknowledgement(CLINIC, request=run.request, links=run.both))])
    await cloud.checkpoint()
    proofs = {issued.digest: await cloud.proof(issued.receipt_id)}
    await clinic.keep(Keep(run.request.id, envelopes=[issued.envelope], proofs=proofs))


async def test_nobody_acknowledges_its_own_run(federation: Federation, tmp_path: Path) -> None:
    report = federation.verify(await federation.play(tmp_path, more=applaud_oneself))
    assert verdict(report, "execution", "usage") == ("asserted-by(cloud.fr)", None)
    for kind in ("placement", "execution"):
        assert verdict(report, kind, "ack-link") == ("not-checked", None)
    for claim in ("placement-link", "execution-link", "ack-link"):
        assert verdict(report, "acknowledgement", claim) == ("failed", "verify.link_requester")
    assert report.exit_code == 1


@pytest.mark.parametrize("outputs", [(34, 1), (1, 34)])
async def test_counters_are_agreed_when_no_acknowledgement_says_others(
    federation: Federation, tmp_path: Path, outputs: tuple[int, int]
) -> None:
    async def twice(run: Run, clinic: Any, cloud: Any) -> None:
        for number in outputs:
            await acknowledge(run, clinic, cloud, usage_agreed=usage(output_tokens=number))

    report = federation.verify(await federation.play(tmp_path, more=twice))
    assert verdict(report, "execution", "usage") == ("failed", "verify.usage")


async def test_two_receipts_with_one_number_convict(federation: Federation, tmp_path: Path) -> None:
    """An issuer that keeps two logs: both receipts are valid, and together they show it."""
    run = Run()
    first = bundles.read(await federation.play(tmp_path, run))
    (tmp_path / "other").mkdir()
    second = bundles.read(await federation.play(tmp_path / "other", replace(run, placed=None)))
    report = federation.verify(bundles.write(joined(first, second)))
    assert report.exit_code == 1
    assert "verify.equivocation" in {code for _, code in failures(report)}


def joined(first: Bundle, second: Bundle) -> Bundle:
    """Receipts and proofs of both; everything else is the first one's."""
    return replace(
        first, envelopes={**first.envelopes, **second.envelopes}, proofs={**first.proofs, **second.proofs}
    )


def failures(report: Report) -> set[tuple[str, str | None]]:
    """(claim, reason code) of everything that was checked and is wrong, of any receipt."""
    claims = [claim for receipt in report.receipts for claim in receipt.claims]
    return {(claim.name, claim.code) for claim in claims if claim.verdict == "failed"}


# Trust: what the auditor pins decides, whatever the bundle brings.


def test_another_charter_is_refused(federation: Federation, good: bytes) -> None:
    other = Federation.found()
    data = bundles.read(good)
    swapped = replace(data, charter=other.charter, manifests=(other.clinic.signed_manifest,))
    report = federation.verify(bundles.write(swapped))
    assert verdict(report, "placement", "issuer-key") == ("failed", "charter.pin")
    assert {claim.verdict for claim in report.claims} == {"failed", "not-checked"}


def test_pinned_roots_serve_as_well(federation: Federation, good: bytes) -> None:
    data = good
    report = federation.verify(data, charter=None, roots=roots_toml(federation.clinic, federation.cloud))
    assert report.exit_code == 0
    assert versions(report) == {"clinic.de": 1, CLOUD: 1}
    assert report.as_json()["charter"] is None
    partly = federation.verify(data, charter=None, roots=roots_toml(federation.clinic))
    assert verdict(partly, "execution", "signature") == ("failed", "envelope.signature_invalid")
    stranger = federation.verify(data, charter=None, roots=roots_toml(Domain.make("clinic.de")))
    assert verdict(stranger, "placement", "issuer-key") == ("not-checked", "verify.manifest_missing")


def roots_toml(*domains: Domain) -> str:
    entries = []
    for domain in domains:
        jwk = domain.root.public.jwk
        entries.append(
            f'"{domain.name}" = {{threshold = 1, keys = [{{kty = "EC", crv = "P-256", '
            f'x = "{jwk.x}", y = "{jwk.y}"}}]}}'
        )
    return "{" + ", ".join(entries) + "}"


async def test_a_revoked_key_needs_more_than_its_owner_s_clock(tmp_path: Path) -> None:
    federation = Federation.found()
    revoked = RevokedKey(
        thumbprint=federation.clinic.keys.receipt.thumbprint, reason="stolen",
        compromised_since=int(NOW.timestamp()) + 60,
    )  # fmt: skip
    clinic = federation.clinic
    federation.clinic = Domain(clinic.name, clinic.root, clinic.keys, revoked=(revoked,))
    federation.__dict__.pop("charter")
    federation.publish()
    report = federation.verify(await federation.play(tmp_path))
    assert verdict(report, "placement", "issuer-key") == ("failed", "verify.key_revoked")


def versions(report: Report) -> dict[str, int | None]:
    return {each.name: each.version for each in report.papers}


def test_a_report_says_how_old_its_trust_is(federation: Federation, good: bytes) -> None:
    report = federation.verify(good, at=NOW + timedelta(days=30))
    said = report.as_json()
    assert said["charter"] == {
        "issued": "2026-05-31T12:00:00.000Z", "ageDays": 31, "expires": "2027-06-01T12:00:00.000Z",
    }  # fmt: skip
    until = "2027-06-01T12:00:00.000Z"
    assert said["manifests"] == [{"domain": name, "version": 1, "expires": until} for name in (CLINIC, CLOUD)]
    out = io.StringIO()
    render.report(report, out)
    for text in ("charter of 2026-05-31, 31 days old until 2027-06-01", "clinic.de v1 until 2027-06-01"):
        assert text in out.getvalue()
        assert text in render.page(report)


@pytest.mark.parametrize(
    ("at", "code"), [(NOW + timedelta(days=400), "verify.stale"), (NOW + timedelta(days=1), None)]
)
def test_stale_trust_decides_nothing(
    federation: Federation, good: bytes, at: datetime, code: str | None
) -> None:
    report = federation.verify(good, at=at)
    assert verdict(report, "placement", "issuer-key")[1] == code
    assert report.exit_code == (3 if code else 0)


async def test_a_sequence_follows_what_its_receipt_names(federation: Federation, tmp_path: Path) -> None:
    """Numbers 0 and 1 of two different logs: the second names another predecessor."""
    bundles_of = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        clinic = await federation.clinic.open(tmp_path / name)
        issued = await clinic.issue([Draft(placement(request=Run().request)) for _ in range(2)])
        await clinic.checkpoint()
        bundles_of.append([bundles.read(await clinic.bundle(each.receipt_id)) for each in issued])
        await clinic.close()
    first, second = bundles_of[0][0], bundles_of[1][1]
    report = federation.verify(bundles.write(joined(first, second)))
    assert ("sequence", "verify.sequence") in failures(report)


@pytest.mark.parametrize("part", ["id", "commitment"])
async def test_a_link_leads_to_the_same_request(federation: Federation, tmp_path: Path, part: str) -> None:
    run = Run()
    other = run.request.model_copy(update={part: digest()})
    async with federation.opened(tmp_path) as (clinic, cloud):
        await run.play(clinic, cloud)
        await clinic.issue([Draft(acknowledgement(request=other, links=run.both))])
        await clinic.checkpoint()
        whole = bundles.read(await clinic.bundle(run.request.id))
        if part == "id":
            whole = joined(whole, bundles.read(await clinic.bundle(other.id)))
    report = federation.verify(bundles.write(whole))
    assert verdict(report, "acknowledgement", "execution-link") == ("failed", "verify.link_request")


@pytest.mark.parametrize(
    ("issued", "code"),
    [(START - 1, "verify.key_time"), (START, None), (END - 1, None), (END, "verify.key_time")],
)
async def test_a_receipt_is_issued_in_its_key_s_time(
    federation: Federation, tmp_path: Path, issued: int, code: str | None
) -> None:
    times = Times(issued=format_time(datetime.fromtimestamp(issued, UTC)))
    report = federation.verify(await federation.play(tmp_path, Run(placement={"times": times})))
    assert verdict(report, "placement", "issuer-key") == ("failed" if code else "proved", code)


async def test_two_manifests_of_one_version_are_a_fork(federation: Federation, tmp_path: Path) -> None:
    async with federation.opened(tmp_path) as (clinic, cloud):
        clinic.update_manifest(ManifestRef(version=1, digest="0" * 64), federation.clinic.documents)
        report = federation.verify(await Run().play(clinic, cloud))
    assert verdict(report, "placement", "issuer-key") == ("failed", "verify.manifest_fork")


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


@pytest.mark.parametrize("change", [{"domain": CLOUD}, {"federation": "other"}])
def test_roots_speak_for_their_own_domain_in_their_federation(
    federation: Federation, good: bytes, change: dict[str, str]
) -> None:
    bundle, clinic = bundles.read(good), federation.clinic
    other = sign_manifest(clinic.manifest.model_copy(update={"version": 9, **change}), clinic.root)
    roots = roots_toml(federation.clinic, federation.cloud)
    for manifests in ((*bundle.manifests, other), (other, *bundle.manifests)):
        both = bundles.write(replace(bundle, manifests=manifests))
        report = federation.verify(both, charter=None, roots=roots)
        assert versions(report) == {"clinic.de": 1, CLOUD: 1}
        assert report.exit_code == 0


def test_a_receipt_is_for_its_audience(federation: Federation, good: bytes) -> None:
    data = good
    assert federation.verify(data, audience='"cloud.fr"').exit_code == 0
    report = federation.verify(data, audience='"hyper.us"')
    assert verdict(report, "placement", "issuer-key") == ("failed", "receipt.audience")


def test_another_federation_s_receipts(federation: Federation, good: bytes) -> None:
    data = good
    report = federation.verify(data, federation='"other"')
    assert verdict(report, "placement", "issuer-key") == ("failed", "verify.federation")


def test_a_failed_receipt_supports_no_other(federation: Federation, good: bytes) -> None:
    """A forged Placement must not make the Execution's link good."""
    bundle = bundles.read(good)
    report = federation.verify(bundles.write(spoil_signatures(bundle, "placement")))
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
    bundle = bundles.read(good)
    forged = {}
    for data in bundle.envelopes.values():
        if "placement-receipt" in predicate(data):
            data = envelope.sign(
                envelope.STATEMENT, envelope.read(data).payload, federation.cloud.keys.receipt
            )
        forged[envelope.read(data).digest] = data
    report = federation.verify(bundles.write(replace(bundle, envelopes=forged)))
    assert verdict(report, "placement", "issuer-key") == ("failed", "receipt.issuer")


def test_a_message_key_signs_no_receipt(federation: Federation, good: bytes) -> None:
    """The promise key is registered too, but not for receipts."""
    bundle = bundles.read(good)
    forged = {}
    for name, data in bundle.envelopes.items():
        again = envelope.sign(envelope.STATEMENT, envelope.read(data).payload, federation.clinic.keys.promise)
        forged[name] = again if "placement" in predicate(data) else data
    report = federation.verify(bundles.write(replace(bundle, envelopes=forged)))
    assert verdict(report, "placement", "signature") == ("failed", "envelope.signature_invalid")


async def test_foreign_proofs_are_kept_with_their_receipts(federation: Federation, tmp_path: Path) -> None:
    clinic = await federation.clinic.open(tmp_path)
    await clinic.keep(Keep("r1", proofs={bytes(32): b"nothing to belong to"}))
    await clinic.close()
