"""Claim `attested`: what a receipt says of a node is what its evidence shows, field by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from attestation.appraise import NodeAppraisal, appraise_node
from receipts import bundle as bundles
from receipts.bundle import Disclosures
from receipts.statements.fields import NodeRecord
from receipts.tests.conftest import verdict
from receipts.tests.world import CLOUD, ENGINE, NOW, Federation, Node, Run, chip, expected_toml, vendor
from schemas.canonical import sha256
from schemas.keys import SigningKey
from schemas.proof.evidence import NodeEvidence

ATTESTED = import_module("receipts.verify.attested")  # its name in the package is the function
STRANGER = SigningKey.generate().thumbprint


class Told(Node):
    """A good node of which both receipts say something else."""

    said: dict[str, Any]
    name: str | None = None

    def record(self, **changes: Any) -> NodeRecord:
        true = super().record(**self.said | changes)
        return true.model_copy(update={"id": self.name}) if self.name else true


class Bare(Node):
    """A node that leaves the vendor's CRL to whoever judges it."""

    @cached_property
    def stated(self) -> NodeEvidence:
        whole = super().stated
        pieces = [each for each in whole.cpu.endorsements if each != vendor().crl]
        assert len(pieces) == len(whole.cpu.endorsements) - 1
        return whole.model_copy(update={"cpu": whole.cpu.model_copy(update={"endorsements": pieces})})


class Elsewhere(Node):
    """The same hardware, started for another federation."""

    @cached_property
    def stated(self) -> NodeEvidence:
        other = super().stated.model_copy(update={"federation": "other"})
        return other.model_copy(update={"cpu": chip().quote(other.expected_report_data())})


def told(name: str | None = None, **said: Any) -> Node:
    node = Told()
    node.said, node.name = said, name
    return node


LIES: dict[str, tuple[Callable[[], Node], str]] = {
    "another-key": (lambda: told(STRANGER, bound_key=STRANGER), "verify.node_key"),
    "bound-to-another-key": (lambda: told(bound_key=STRANGER), "verify.node_key"),
    "another-root": (lambda: told(challenge_root="0" * 64), "verify.challenge_root"),
    "no-simulation": (lambda: told(simulated=False), "verify.simulated"),
    "another-binding": (lambda: told(binding_mode="derived-nonce"), "verify.binding_mode"),
    "another-federation": (Elsewhere, "verify.node_domain"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_is_said_of_a_node_is_what_its_evidence_shows(
    federation: Federation, tmp_path: Path, lie: str
) -> None:
    make, code = LIES[lie]
    report = federation.verify(await federation.play(tmp_path, Run(make())))
    for kind in ("placement", "execution"):
        assert verdict(report, kind, "attested") == ("failed", code)
    assert report.exit_code == 1


async def test_a_node_that_the_auditor_would_not_take_is_not_attested(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evidence holds; the auditor's own expectations name another engine."""
    other = expected_toml().replace(ENGINE, "0" * 64)
    assert other != expected_toml()
    monkeypatch.setitem(federation.files, "other.toml", other.encode())
    report = federation.verify(await federation.play(tmp_path), expectations='"other.toml"')
    for kind in ("placement", "execution"):
        assert verdict(report, kind, "attested")[0] == "failed"
    assert report.exit_code == 1


async def test_a_challenge_of_another_s_dates_nothing(federation: Federation, tmp_path: Path) -> None:
    """The provider's own challenge stands in the same tree; only the consumer's shows when it asked."""
    run = Run()
    asked = run.node.disclosures().challenges[0]
    own = asked.model_copy(update={"domain": CLOUD, "value": bytes(32).hex()})
    run.disclosures = Disclosures(challenges=[own])
    report = federation.verify(await federation.play(tmp_path, run))
    assert verdict(report, "execution", "attested") == ("not-checked", "node.challenge_missing")


@pytest.mark.parametrize("named", [True, False])
async def test_collateral_counts_where_the_issuer_names_it(
    federation: Federation, tmp_path: Path, named: bool
) -> None:
    """What the broker judged with lies in the bundle; it is looked at under the name that is disclosed."""
    run, crl = Run(Bare()), vendor().crl
    run.disclosures = run.node.disclosures().model_copy(
        update={"collateral": [sha256(crl).hex()] if named else []}
    )
    bundle = bundles.read(await federation.play(tmp_path, run))
    brought = replace(bundle, blobs={**bundle.blobs, sha256(crl): crl})
    report = federation.verify(bundles.write(brought))
    wanted = ("proved", None) if named else ("not-checked", "snp.crl.missing")
    for kind in ("placement", "execution"):
        assert verdict(report, kind, "attested") == wanted
    assert report.exit_code == (0 if named else 3)


async def test_devices_that_nobody_demanded_anything_of_are_not_attested(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence of a GPU, and expectations without a table for it: it was not judged."""

    def appraised(*arguments: Any, **named: Any) -> NodeAppraisal:
        true = appraise_node(*arguments, **named)
        return replace(true, evidence=true.evidence.model_copy(update={"devices": ["gpu"]}))

    data = await federation.play(tmp_path)
    monkeypatch.setattr(ATTESTED, "appraise_node", appraised)
    report = federation.verify(data)
    assert verdict(report, "execution", "attested") == ("not-checked", "verify.devices_unset")
    assert report.exit_code == 3


async def test_a_young_looking_challenge_does_not_help(federation: Federation, tmp_path: Path) -> None:
    """The disclosed issue time is not signed; the Placement's is."""
    run = Run()
    run.disclosures = run.node.disclosures(issued_at=NOW - timedelta(seconds=1))
    report = federation.verify(await federation.play(tmp_path, run))
    assert verdict(report, "placement", "attested") == ("not-checked", "node.challenge_missing")


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
