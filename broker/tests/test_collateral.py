"""A peer's bundle of collateral: fetched by name, held to signature and digests, believed no further."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from attestation.testing.chip import SimulatedVendor
from attestation.testing.forge import Forge
from broker.placing import collateral
from broker.placing.appraisals import Appraisals
from broker.placing.collateral import NOTHING, PeerCollateral
from broker.tests.parties import CONSUMER, PROVIDER, Parties
from broker.tests.test_appraisals import book
from schemas.canonical import sha256
from schemas.errors import Undecided
from schemas.keys import SigningKey
from schemas.proof.collateral import MAX_INDEX_BYTES, ROLE, CollateralIndex, Piece, sign_index
from schemas.proof.evidence import NodeEvidence


class Provider:
    """cloud.fr's agent: its node's evidence, and apart from it what the evidence lacks."""

    def __init__(self, parties: Parties) -> None:
        whole = NodeEvidence.read(parties.node.evidence())
        bare = whole.model_copy(update={"cpu": whole.cpu.model_copy(update={"endorsements": []})})
        self.parties, self.evidence = parties, bare.write()
        self.pieces = list(whole.cpu.endorsements)
        self.documents: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.name: str | None = None
        self.pause_s = 0.0

    @property
    def digest(self) -> str:
        return sha256(self.evidence).hex()

    def keep(self, *, issuer: str = PROVIDER, key: SigningKey | None = None, **index: Any) -> None:
        """Put the pieces into a bundle, and advertise it."""
        made = CollateralIndex.over(self.pieces, issuer=issuer, at=datetime.now(UTC))
        data = sign_index(made.model_copy(update=index), key or self.parties.keys[PROVIDER][ROLE])
        self.name = sha256(data).hex()
        self.documents = {sha256(each).hex(): each for each in (data, *self.pieces)}

    async def fetch(self, domain: str, digest: str) -> bytes:
        assert domain == PROVIDER
        self.asked.append(digest)
        await asyncio.sleep(self.pause_s)
        if digest == self.digest:
            return self.evidence
        try:
            return self.documents[digest]
        except KeyError:
            raise Undecided("evidence.unknown", "no such document") from None

    def appraisals(self) -> Appraisals:
        named = PeerCollateral(self.parties.trust, self.fetch, lambda _: self.name)
        return Appraisals(self.parties.trust, self.parties.expectations, book(), self.fetch, named)


@pytest.fixture
def provider(parties: Parties) -> Provider:
    return Provider(parties)


async def test_what_the_evidence_lacks_is_fetched_once(provider: Provider) -> None:
    ours = provider.appraisals()
    assert (await ours.appraise(PROVIDER, provider.digest)).status == "none"
    assert ours.supply(provider.digest) is NOTHING
    provider.keep()
    found = await ours.appraise(PROVIDER, provider.digest)
    assert found.status == "affirming"
    assert ours.supply(provider.digest).name == provider.name
    assert list(ours.supply(provider.digest).pieces.values()) == sorted(
        provider.pieces, key=lambda each: sha256(each)
    )
    asked = len(provider.asked)
    assert await ours.appraise(PROVIDER, provider.digest) is found
    assert len(provider.asked) == asked


async def test_evidence_that_brings_everything_asks_for_nothing(parties: Parties) -> None:
    provider = Provider(parties)
    provider.evidence = parties.node.evidence()
    provider.keep()
    assert (await provider.appraisals().appraise(PROVIDER, provider.digest)).status == "affirming"
    assert provider.asked == [provider.digest]


async def test_a_domain_that_renews_without_end_is_fetched_from_now_and_then(provider: Provider) -> None:
    provider.keep()
    held = PeerCollateral(provider.parties.trust, provider.fetch, lambda _: provider.name)
    first, asked = await held.of(PROVIDER), len(provider.asked)
    provider.pieces.append(b"another")
    provider.keep()
    assert await held.of(PROVIDER) is first
    assert len(provider.asked) == asked


async def test_a_new_bundle_costs_its_new_pieces_alone(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collateral, "RENEW_S", 0.0)
    provider.keep()
    held = PeerCollateral(provider.parties.trust, provider.fetch, lambda _: provider.name)
    first = await held.of(PROVIDER)
    provider.pieces.append(b"another")
    provider.keep()
    provider.asked.clear()
    second = await held.of(PROVIDER)
    assert provider.asked == [provider.name, sha256(b"another").hex()]
    assert second.pieces.items() > first.pieces.items()


async def test_many_who_ask_at_once_cause_one_fetch(provider: Provider) -> None:
    provider.keep()
    held = PeerCollateral(provider.parties.trust, provider.fetch, lambda _: provider.name)
    found = await asyncio.gather(*(held.of(PROVIDER) for _ in range(20)))
    assert len({id(each) for each in found}) == 1
    assert len(provider.asked) == len(set(provider.asked)) == 1 + len(provider.pieces)


def spoil_index(provider: Provider) -> None:
    provider.keep()
    assert provider.name
    provider.documents[provider.name] += b" "


def swap_piece(provider: Provider) -> None:
    provider.keep()
    provider.documents[sha256(provider.pieces[0]).hex()] = b"something else"


def oversize_index(provider: Provider) -> None:
    provider.keep()
    assert provider.name
    large = provider.documents[provider.name] + b" " * MAX_INDEX_BYTES
    provider.name = sha256(large).hex()
    provider.documents[provider.name] = large


def oversize_piece(provider: Provider) -> None:
    """The index says less than what is sent."""
    provider.keep()
    name = sha256(provider.pieces[0]).hex()
    provider.documents[name] += b" " * 1_000_000


def misstated_size(provider: Provider) -> None:
    names = sorted(sha256(each).hex() for each in provider.pieces)
    provider.keep(pieces=[Piece(sha256=name, size=1) for name in names])


def lost_piece(provider: Provider) -> None:
    provider.keep()
    del provider.documents[sha256(provider.pieces[0]).hex()]


HOSTILE: dict[str, tuple[Callable[[Provider], None], str]] = {
    "another-index": (spoil_index, "collateral.index"),
    "another-piece": (swap_piece, "collateral.piece_altered"),
    "an-oversize-index": (oversize_index, "collateral.index"),
    "an-oversize-piece": (oversize_piece, "collateral.piece_altered"),
    "a-misstated-size": (misstated_size, "collateral.piece_altered"),
    "a-lost-piece": (lost_piece, "evidence.unknown"),
    "a-foreign-key": (lambda each: each.keep(key=SigningKey.generate()), "envelope.signature_invalid"),
    "another-role-s-key": (
        lambda each: each.keep(key=each.parties.keys[PROVIDER]["message"]), "envelope.signature_invalid",
    ),
    "another-domain-s-bundle": (
        lambda each: each.keep(issuer=CONSUMER, key=each.parties.keys[CONSUMER][ROLE]), "collateral.issuer",
    ),
    "a-bundle-of-tomorrow": (
        lambda each: each.keep(made=int((datetime.now(UTC) + timedelta(hours=1)).timestamp())),
        "collateral.future",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", HOSTILE)
async def test_a_bundle_that_does_not_hold_helps_nobody(
    provider: Provider, caplog: pytest.LogCaptureFixture, lie: str
) -> None:
    spoil, code = HOSTILE[lie]
    spoil(provider)
    ours = provider.appraisals()
    assert (await ours.appraise(PROVIDER, provider.digest)).status == "none"
    assert ours.supply(provider.digest) is NOTHING
    assert [record.code for record in caplog.records] == [code]  # type: ignore[attr-defined]
    asked = len(provider.asked)
    assert (await ours.appraise(PROVIDER, provider.digest)).status == "none"
    assert len(provider.asked) == asked, "a bundle that did not hold is not asked for again at once"


async def test_pieces_are_believed_no_further_than_they_prove(provider: Provider) -> None:
    """Certificates of another made-up vendor, well signed by the domain."""
    stranger = SimulatedVendor.create("Milan", name="stranger").make_chip()
    provider.pieces = list(stranger.quote(bytes(64)).endorsements)
    provider.keep()
    found = await provider.appraisals().appraise(PROVIDER, provider.digest)
    assert found.status in ("none", "contraindicated")


async def test_a_list_whose_time_is_over_decides_nothing(provider: Provider, parties: Parties) -> None:
    """The domain signed its bundle today; the vendor's list in it ended yesterday."""
    vendor, now = parties.vendor, datetime.now(UTC)
    forge = Forge.of("Milan", at=now, ark_key=vendor.ark_key, intermediate_key=vendor.ask_key)
    old = forge.crl(this_update=now - timedelta(days=30), next_update=now - timedelta(days=1))
    provider.pieces = [each for each in provider.pieces if each != vendor.crl] + [old]
    provider.keep()
    found = await provider.appraisals().appraise(PROVIDER, provider.digest)
    assert (found.status, found.reason) == ("none", "snp.crl.stale")


@pytest.mark.parametrize("piece", [b"\x30\x03garbage", b"-----BEGIN CERTIFICATE-----"])
async def test_a_piece_that_cannot_be_read_proves_nothing(provider: Provider, piece: bytes) -> None:
    provider.pieces.append(piece)
    provider.keep()
    found = await provider.appraisals().appraise(PROVIDER, provider.digest)
    assert found.status in ("none", "contraindicated")


async def test_a_slow_peer_is_not_waited_for(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collateral, "FETCH_S", 0.05)
    provider.keep()
    provider.pause_s = 5.0
    held = PeerCollateral(provider.parties.trust, provider.fetch, lambda _: provider.name)
    began = time.monotonic()
    assert await held.of(PROVIDER) is NOTHING
    assert time.monotonic() - began < 2.0


async def test_no_more_bundles_are_held_than_memory_is_meant_for(provider: Provider) -> None:
    provider.keep()
    held = PeerCollateral(provider.parties.trust, provider.fetch, lambda _: provider.name)
    supply = await held.of(PROVIDER)
    for number in range(collateral.MAX_HELD):
        held._keep(f"d{number}.example", supply)
    assert len(held._held) == collateral.MAX_HELD
    assert PROVIDER not in held._held
