"""A domain's bundle: read by the agent as its operator renews it, copied by nodes, believed when signed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestation.collateral.bundle import INDEX, write_bundle
from domain_agent.admit.collateral import Collateral
from domain_agent.membership import Membership
from domain_agent.node.proving.collateral import MAX_ATTACHED, CollateralCopy
from domain_agent.tests.founding import OURS, PEER, Founded
from federation.connection import BusSettings
from schemas.canonical import sha256
from schemas.errors import Undecided
from schemas.keys import SigningKey

NOW = datetime.now(UTC)
PIECES = [b"one", b"two", b"three"]


def membership(founded: Founded) -> Membership:
    return Membership(
        OURS, BusSettings("nats://127.0.0.1:1", founded.folder, None, "x", "_INBOX"), founded.trust
    )


@pytest.fixture
def folder(founded: Founded, tmp_path: Path) -> Path:
    return sealed(founded, tmp_path / "bundle")


def sealed(
    founded: Founded,
    folder: Path,
    pieces: list[bytes] = PIECES,
    *,
    issuer: str = OURS,
    key: SigningKey | None = None,
) -> Path:
    write_bundle(folder, pieces, issuer=issuer, key=key or founded.verifier, at=NOW)
    return folder


def test_what_lies_there_is_served_by_hash(founded: Founded, folder: Path) -> None:
    held = Collateral(membership(founded), folder)
    assert held.digest is None
    assert held.renew(NOW)
    assert held.digest == sha256((folder / INDEX).read_bytes()).hex()
    assert held.document(str(held.digest)) == (folder / INDEX).read_bytes()
    assert [held.document(sha256(piece).hex()) for piece in PIECES] == PIECES
    assert sorted(held.pieces) == sorted(PIECES)
    assert not held.renew(NOW)  # nothing is new
    with pytest.raises(Undecided, match=r"evidence\.unknown"):
        held.document("0" * 64)


def test_a_renewed_bundle_counts_and_the_one_before_is_still_to_be_had(
    founded: Founded, folder: Path
) -> None:
    held = Collateral(membership(founded), folder)
    held.renew(NOW)
    before = held.digest
    sealed(founded, folder, [b"one", b"a longer newer piece"])
    assert held.renew(NOW)
    assert held.digest != before
    assert held.document(str(before))
    assert held.document(sha256(b"two").hex()) == b"two"
    sealed(founded, folder, [b"the third bundle, and the longest"])
    held.renew(NOW)
    with pytest.raises(Undecided):
        held.document(str(before))


@pytest.mark.parametrize("fault", ["altered", "missing", "surplus", "another key", "another domain", "gone"])
def test_a_bundle_that_does_not_hold_leaves_the_old_one_in_force(
    founded: Founded, folder: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = Collateral(membership(founded), folder)
    held.renew(NOW)
    before = held.digest
    sealed(founded, folder, [*PIECES, b"a fourth"])
    match fault:
        case "altered":
            (folder / sha256(b"one").hex()).write_bytes(b"eno")
        case "missing":
            (folder / sha256(b"one").hex()).unlink()
        case "surplus":
            (folder / "more").write_bytes(b"more")
        case "another key":
            sealed(founded, folder, [*PIECES, b"a fourth"], key=SigningKey.generate())
        case "another domain":
            sealed(founded, folder, [*PIECES, b"a fourth"], issuer=PEER)
        case "gone":
            (folder / INDEX).unlink()
    with caplog.at_level(logging.WARNING, "comity.agent"):
        assert not held.renew(NOW)
    assert held.digest == before
    assert len(caplog.records) == 1


def test_a_domain_without_a_bundle_has_none(founded: Founded) -> None:
    held = Collateral(membership(founded), None)
    assert not held.renew(NOW)
    assert (held.digest, held.pieces) == (None, ())


@dataclass
class Served:
    """An agent's answers."""

    documents: Mapping[str, bytes]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, digest: str) -> bytes:
        self.asked.append(digest)
        try:
            return self.documents[digest]
        except KeyError:
            raise Undecided("evidence.unknown", digest) from None


def served(folder: Path) -> tuple[str, Served]:
    index = (folder / INDEX).read_bytes()
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != INDEX}
    name = sha256(index).hex()
    return name, Served({**files, name: index})


async def test_a_node_fetches_only_what_is_new(founded: Founded, folder: Path) -> None:
    name, agent = served(folder)
    copy = CollateralCopy(membership(founded), agent)
    await copy.renew(None, NOW)
    assert copy.pieces == ()
    await copy.renew(name, NOW)
    await copy.renew(name, NOW)
    assert sorted(copy.pieces) == sorted(PIECES)
    assert len(agent.asked) == 4
    name, agent = served(sealed(founded, folder, [*PIECES, b"four"]))
    copy.fetch = agent
    await copy.renew(name, NOW)
    assert agent.asked == [name, sha256(b"four").hex()]
    assert b"four" in copy.pieces


@pytest.mark.parametrize(
    "fault", ["another index", "another piece", "no piece", "another key", "another domain"]
)
async def test_what_does_not_hold_changes_nothing(
    founded: Founded, folder: Path, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, agent = served(folder)
    copy = CollateralCopy(membership(founded), agent)
    await copy.renew(name, NOW)
    before = copy.pieces
    issuer = PEER if fault == "another domain" else OURS
    key = SigningKey.generate() if fault == "another key" else None
    newer, given = served(sealed(founded, tmp_path / "newer", [b"four"], issuer=issuer, key=key))
    four, documents = sha256(b"four").hex(), dict(given.documents)
    match fault:
        case "another index":
            documents[newer] = agent.documents[name]
        case "another piece":
            documents[four] = b"five"
        case "no piece":
            del documents[four]
    copy.fetch = Served(documents)
    with caplog.at_level(logging.WARNING, "comity.node"):
        await copy.renew(newer, NOW)
    assert copy.pieces == before
    assert len(caplog.records) == 1


async def test_a_bundle_too_large_for_evidence_is_not_sent_along(
    founded: Founded, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, agent = served(sealed(founded, folder, [n.to_bytes(2) for n in range(MAX_ATTACHED + 1)]))
    copy = CollateralCopy(membership(founded), agent)
    with caplog.at_level(logging.WARNING, "comity.node"):
        await copy.renew(name, NOW)
    assert copy.pieces == ()
    assert "does not fit" in caplog.text
