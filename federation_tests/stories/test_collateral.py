"""One signed bundle of a domain: its agent hands it to nodes and to peers, always by hash."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestation.collateral.bundle import write_bundle
from federation.found import Founded
from federation_tests.conftest import MakeWorld
from federation_tests.hostile.lying import ONE_NODE_EACH
from federation_tests.plan import CLINIC, CLOUD
from federation_tests.receipts import verify
from federation_tests.stories.test_composite import CONFIDENTIAL, placed
from federation_tests.world import World, until
from receipts import bundle as bundles
from schemas.canonical import sha256
from schemas.errors import Undecided
from schemas.keys import SigningKey
from schemas.proof.collateral import ROLE, verify_index, verify_pieces


def gpu_of(founded: Founded) -> Path:
    return founded.folder.parent / "machines" / CLOUD / "paris-1" / "gpus" / "0"


def without_collateral(founded: Founded) -> list[bytes]:
    """The node's GPU comes without manifests and answers; returns what it lacks."""
    files = [*gpu_of(founded).glob("*.xml"), *gpu_of(founded).glob("*.ocsp")]
    documents = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    return documents


def with_bundle(key: SigningKey | None = None) -> Callable[[Founded], None]:
    """What the GPU lacks lies in the domain's bundle instead."""

    def change(founded: Founded) -> None:
        own, documents = founded.domain(CLOUD), without_collateral(founded)
        signing = key or SigningKey.load(own / "keys" / "attestation-verifier.pem")
        write_bundle(own / "collateral", documents, issuer=CLOUD, key=signing, at=datetime.now(UTC))
        agent = (own / "agent.toml").read_text("utf-8")
        (own / "agent.toml").write_text(f'{agent}\n[collateral]\nbundle = "collateral"\n', "utf-8")

    return change


def reason(world: World) -> str | None:
    record = world[CLOUD].agent.book.get("paris-1")
    return record.reason if record else None


async def test_a_node_proves_itself_with_what_its_agent_gave_it(make_world: MakeWorld) -> None:
    world = await make_world(ONE_NODE_EACH, before=with_bundle())
    domain, bundle = await placed(world, CONFIDENTIAL)
    assert domain == CLOUD
    found = verify(world, bundle)  # the pieces went along with the evidence: an auditor needs nothing else
    assert found.exit_code == 0, found.report


async def test_a_peer_fetches_the_bundle_by_hash_and_holds_it_to_the_charter(make_world: MakeWorld) -> None:
    world = await make_world(ONE_NODE_EACH, before=with_bundle())
    parts = world[CLINIC].broker.parts
    listing = parts.service.directory.get(CLOUD, datetime.now(UTC))
    assert listing is not None
    name = listing.summary.collateral
    assert name is not None
    assert name == world[CLOUD].agent.collateral.digest
    fetch = parts.border.appraisals.fetch
    trust, now = parts.border.peers.trust, datetime.now(UTC)
    index = verify_index(await fetch(CLOUD, name), lambda domain, at: trust.keys(domain, ROLE, at), now)
    pieces = {piece.sha256: await fetch(CLOUD, piece.sha256) for piece in index.pieces}
    assert verify_pieces(index, pieces) == world[CLOUD].agent.collateral.pieces
    with pytest.raises(Undecided):
        await fetch(CLOUD, "0" * 64)


async def test_what_did_not_fit_into_evidence_is_fetched_by_who_needs_it(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle travels with no quote; both brokers get it by the name that the advert states, once."""
    monkeypatch.setattr("domain_agent.node.proving.collateral.MAX_ATTACHED", 0)
    world = await make_world(ONE_NODE_EACH, before=with_bundle())
    domain, bundle = await placed(world, CONFIDENTIAL)
    assert domain == CLOUD
    own = world[CLOUD].agent.collateral
    for each in (CLINIC, CLOUD):
        held = world[each].broker.parts.border.appraisals.collateral
        assert held is not None
        assert (await held.of(CLOUD)).name == own.digest
        assert sorted((await held.of(CLOUD)).pieces.values()) == sorted(own.pieces)
    found = verify(world, bundle)  # the pieces are in the bundle, and the auditor appraises with them
    assert found.exit_code == 0, found.report
    assert found.verdicts("placement", "attested") == ["proved"]
    shown = bundles.read(bundle)
    assert {sha256(piece) for piece in own.pieces} <= shown.blobs.keys()


async def test_a_bundle_under_another_key_serves_nobody(make_world: MakeWorld) -> None:
    world = await make_world(ONE_NODE_EACH, before=with_bundle(SigningKey.generate()), wait=False)
    await until(lambda: reason(world) == "gpu.revocation_unavailable")
    assert world[CLOUD].agent.collateral.digest is None
