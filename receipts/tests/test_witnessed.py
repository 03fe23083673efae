"""Witnesses in verification: who counts, since when, and what a stolen key can and cannot do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from receipts import bundle as bundles
from receipts import checkpoint, note, proof
from receipts.bundle import Bundle
from receipts.checkpoint import Checkpoint
from receipts.cosignature import SUBTREE, Cosigner, CosignerKey
from receipts.log import TransparencyLog
from receipts.note import Note, NoteSigner, Signature
from receipts.statements.fields import Times
from receipts.tests.conftest import claim_of, verdict
from receipts.tests.world import NOW, Domain, Federation, Run, platform
from receipts.verify import Report
from receipts.verify.witnessed import tolerance
from receipts.witnessing import quorum
from receipts.witnessing.equivocation import Equivocation
from schemas.errors import ConfigurationError, Unreadable
from schemas.papers.manifest import DomainManifest, RevokedKey, WitnessKey
from schemas.primitives import format_time


@dataclass
class Circle:
    """Four domains that watch each other, and the bundle of one request between two of them."""

    federation: Federation
    folder: Path

    @cached_property
    def clinic(self) -> Domain:
        return self.federation.clinic

    def signers(self, log: Domain) -> list[Domain]:
        federation = self.federation
        every = (federation.clinic, federation.cloud, *federation.others)
        return [domain for domain in every if domain.name != log.name and domain.witness]

    async def cosign(self, log: TransparencyLog, signers: list[Domain], at: datetime = NOW) -> None:
        signed = checkpoint.read(await log.checkpoint())
        for domain in signers:
            assert domain.witness is not None
            line = domain.witness.sign(signed.note.text, int(at.timestamp()))
            await log.keep_cosignature(signed.checkpoint.size, line)

    async def play(self, count: int = 3, at: datetime = NOW, run: Run | None = None) -> bytes:
        """One request; `count` other operators cosign both logs before the consumer's bundle is made."""
        run = run or Run()
        async with self.federation.opened(self.folder) as (clinic, cloud):
            await run.play(clinic, cloud)
            for log, domain in ((clinic, self.federation.clinic), (cloud, self.federation.cloud)):
                await self.cosign(log, self.signers(domain)[:count], at)
            assert run.executed is not None
            text = await cloud.proof(run.executed.receipt_id)
            assert text is not None
            held = bundles.read(await clinic.bundle(run.request.id))
            proofs = dict(held.proofs) | {run.executed.digest: text}
            return bundles.write(replace(held, proofs=proofs))

    def verify(self, data: bytes, at: datetime = NOW, **changes: str | None) -> Report:
        return self.federation.verify(data, at, **{"quorum": "2", **changes})


def found(**changes: Any) -> Federation:
    """clinic.de, cloud.fr, and two more that only watch."""
    others = tuple(Domain.make(name).watching() for name in ("desk.it", "forum.es"))
    clinic, cloud = Domain.make("clinic.de"), Domain.make("cloud.fr", (platform(),))
    federation = Federation(
        replace(clinic.watching(), **changes.get("clinic", {})),
        replace(cloud.watching(), **changes.get("cloud", {})),
        others,
    )
    federation.publish()
    return federation


@pytest.fixture
def circle(tmp_path: Path) -> Circle:
    return Circle(found(), tmp_path)


async def test_a_quorum_of_operators_proves_it(circle: Circle) -> None:
    data = await circle.play()
    report = circle.verify(data)
    assert (report.exit_code, report.status) == (0, "anchor: none, witnesses: 3/3")
    assert "witnessed" in report.profile.requires
    for kind in ("placement", "execution"):
        assert verdict(report, kind, "witnessed")[0] == "proved"
        assert "quorum 2 of 3" in claim_of(report, kind, "witnessed").text
        assert verdict(report, kind, "time")[0] == "proved"


@pytest.mark.parametrize(
    ("needed", "of", "words"),
    [
        (2, 2, "no bad one is tolerated, one outage stalls it"),
        (1, 2, "no bad one is tolerated, 2 outages stall it"),
        (3, 4, "1 bad one is tolerated, 2 outages stall it"),
        (5, 7, "2 bad ones are tolerated, 3 outages stall it"),
    ],
)
def test_the_limits_of_a_quorum_are_said_plainly(needed: int, of: int, words: str) -> None:
    assert tolerance(needed, of) == f"quorum {needed} of {of}: {words}"


async def test_too_few_witnesses_leave_it_undecided(circle: Circle) -> None:
    report = circle.verify(await circle.play(count=1))
    assert (report.exit_code, report.missing, report.status) == (
        3,
        ("witnessed",),
        "anchor: none, witnesses: 1/3",
    )
    assert verdict(report, "placement", "witnessed") == ("not-checked", "quorum.not_met")
    assert verdict(report, "placement", "time")[0] == "asserted-by(clinic.de)"
    four = circle.verify(await circle.play(), quorum="4")
    assert verdict(four, "placement", "witnessed")[1] == "quorum.too_few"
    waived = circle.verify(await circle.play(), quorum='"none"')
    assert (waived.exit_code, waived.status) == (0, "anchor: none, witnesses: 3/3")
    assert "waived" in claim_of(waived, "placement", "witnessed").text


def with_lines(data: bytes, change: Any) -> bytes:
    """The bundle with other signature lines under each checkpoint."""
    held: Bundle = bundles.read(data)
    proofs = {}
    for name, text in held.proofs.items():
        parsed = proof.read(text)
        signed = note.read(parsed.note)
        proofs[name] = proof.write(
            replace(parsed, note=note.write(Note(signed.text, change(signed.text, signed.signatures))))
        )
    return bundles.write(replace(held, proofs=proofs))


async def test_the_log_s_own_witness_has_no_voice(circle: Circle) -> None:
    """Each log cosigned by one stranger and by its own operator: that is one voice, not two."""
    federation = circle.federation
    own = {domain.origin: domain.witness for domain in (federation.clinic, federation.cloud)}

    def add(text: str, lines: tuple[Signature, ...]) -> tuple[Signature, ...]:
        signer = own[text.split("\n", 1)[0]]
        assert signer is not None
        return (*lines, signer.sign(text, int(NOW.timestamp())))

    report = circle.verify(with_lines(await circle.play(count=1), add))
    assert verdict(report, "placement", "witnessed") == ("not-checked", "quorum.not_met")


@pytest.mark.parametrize(
    ("shift", "code"), [(timedelta(0), "note.signature_invalid"), (timedelta(hours=1), "quorum.future")]
)
async def test_a_wrong_cosignature_is_a_failure(circle: Circle, shift: timedelta, code: str) -> None:
    domain = circle.federation.others[0]

    def forge(text: str, lines: tuple[Signature, ...]) -> tuple[Signature, ...]:
        assert domain.witness is not None
        text = text if shift else text.replace("/log", "/log2")
        return (*lines[:1], domain.witness.sign(text, int((NOW + shift).timestamp())))

    report = circle.verify(with_lines(await circle.play(), forge))
    assert verdict(report, "placement", "witnessed") == ("failed", code)
    assert report.exit_code == 1


async def test_a_witness_that_cosigned_two_histories_has_no_voice(circle: Circle) -> None:
    """The document goes along with the bundle; the log itself is none the worse for it."""
    data = await circle.play()
    assert circle.verify(data, quorum="3").exit_code == 0
    cloud = circle.federation.cloud
    (other,) = [each.witness for each in circle.federation.others if each.name == "desk.it"]
    assert other
    notes = []
    for root in (bytes(32), b"\1" * 32):
        text = Checkpoint(cloud.origin, 7, root).text
        line = note.format_signature(other.sign(text, int(NOW.timestamp())))
        notes.append(NoteSigner.of(cloud.origin, bytes(32)).sign(text) + line.encode())
    document = Equivocation(kind="witness", first=notes[0], second=notes[1])
    held = replace(bundles.read(data), equivocations=(document.write(),))
    report = circle.verify(bundles.write(held))
    assert report.status == "anchor: none, witnesses: 2/2"
    assert verdict(report, "execution", "witnessed")[0] == "proved"
    assert verdict(report, "execution", "not-equivocated") == ("not-checked", None)
    three = circle.verify(bundles.write(held), quorum="3")
    assert verdict(three, "placement", "witnessed")[1] == "quorum.too_few"


def policy_of(circle: Circle, needed: int = 2, domains: Any = None) -> str:
    federation = circle.federation
    domains = domains or (federation.clinic, federation.cloud, *federation.others)
    keys = {domain.name: [domain.witness.key] for domain in domains if domain.witness}
    return quorum.write(quorum.of_operators(keys, needed)).decode()


async def test_a_policy_file_of_the_auditor_s_own(circle: Circle) -> None:
    data = await circle.play()
    cases: list[tuple[str, tuple[str, str | None]]] = [
        (policy_of(circle), ("proved", None)),
        (policy_of(circle, 4), ("not-checked", "quorum.not_met")),  # its own operator is among the four
        (policy_of(circle, 1), ("not-checked", "quorum.single_operator")),
        (policy_of(circle, 2, circle.federation.others), ("proved", None)),
        (f"log {circle.federation.cloud.keys.note.key.vkey}\n{policy_of(circle)}", ("failed", "quorum.log")),
    ]
    for text, wanted in cases:
        circle.federation.files["policy.txt"] = text.encode()
        report = circle.verify(data, quorum='"policy.txt"')
        assert verdict(report, "placement", "witnessed") == wanted
    circle.federation.files["policy.txt"] = b"quorum nobody\n"
    with pytest.raises(ConfigurationError, match=r"policy\.txt"):
        circle.verify(data, quorum='"policy.txt"')


@pytest.mark.parametrize("written", ["1", "0", "65", "-1", "true", '""', "2.0", None])
def test_a_quorum_must_be_said_and_be_one(circle: Circle, written: str | None) -> None:
    with pytest.raises(ConfigurationError, match="quorum"):
        circle.federation.trust(quorum=written)


async def test_a_single_operator_is_accepted_only_aloud(circle: Circle) -> None:
    report = circle.verify(await circle.play(count=1), quorum="1", single_operator='"any"')
    assert report.exit_code == 0
    assert report.waived == ("single_operator",)
    assert "alone could have met this quorum" in claim_of(report, "placement", "witnessed").text


# Keys: what a thief can do, and what only looks like it.


async def stolen(tmp_path: Path, since: timedelta | None, *, seen: datetime = NOW, count: int = 3) -> Report:
    """The receipt is real; later the clinic revokes the key. The auditor holds the newer manifest."""
    before = found()
    circle = Circle(before, tmp_path)
    data = await circle.play(count=count, at=seen)
    key = before.clinic.keys.receipt.thumbprint
    revoked = RevokedKey(
        thumbprint=key,
        reason="stolen",
        compromised_since=int((NOW + since).timestamp()) if since is not None else None,
    )
    clinic = replace(before.clinic, revoked=(revoked,), version=2)
    after = Federation(clinic, before.cloud, before.others)
    after.publish()
    held = bundles.read(data)
    documents = after.clinic.documents
    newer = replace(held, charter=documents.charter, manifests=tuple(documents.manifests.values()))
    return after.verify(bundles.write(newer), quorum="2", at=NOW + timedelta(hours=2))


@pytest.mark.parametrize(
    ("since", "seen", "count", "refused"),
    [
        (timedelta(hours=1), NOW, 3, None),
        (timedelta(hours=-1), NOW, 3, "verify.key_revoked"),
        (timedelta(0), NOW, 3, "verify.key_revoked"),
        (timedelta(hours=1), NOW, 1, "verify.key_revoked"),
        (timedelta(hours=1), NOW + timedelta(hours=1), 3, "verify.key_revoked"),
        (None, NOW, 3, "verify.key_revoked"),
    ],
    ids=["seen-before", "stolen-before", "at-the-moment", "one-witness", "backdated", "no-moment"],
)
async def test_a_stolen_key_cannot_backdate(
    tmp_path: Path, since: timedelta | None, seen: datetime, count: int, refused: str | None
) -> None:
    """The receipt says the same time in every case: only what the witnesses saw decides."""
    report = await stolen(tmp_path, since, seen=seen, count=count)
    assert verdict(report, "placement", "issuer-key") == ("failed" if refused else "proved", refused)


@pytest.mark.parametrize(
    ("stated", "wanted"),
    [
        (NOW - timedelta(hours=5), "asserted-by(clinic.de)"),
        (NOW - timedelta(seconds=20), "proved"),
        (NOW + timedelta(seconds=20), "proved"),
        (NOW + timedelta(minutes=5), "failed"),
    ],
)
async def test_the_time_is_what_the_quorum_saw(circle: Circle, stated: datetime, wanted: str) -> None:
    run = Run(placement={"times": Times(issued=format_time(stated))})
    report = circle.verify(await circle.play(run=run))
    assert verdict(report, "placement", "time")[0] == wanted


async def test_a_log_with_two_kinds_of_key_needs_both(tmp_path: Path) -> None:
    clinic = Domain.make("clinic.de")
    beside = Cosigner.of(clinic.origin, bytes([5]) * 32, SUBTREE)
    federation = found(clinic={"keys": replace(clinic.keys, beside=beside)})
    # The note key's name is the origin in either case: the domain is the same.
    circle = Circle(federation, tmp_path)
    data = await circle.play()
    assert circle.verify(data).exit_code == 0

    def strip(_: str, lines: tuple[Signature, ...]) -> tuple[Signature, ...]:
        return tuple(line for line in lines if line.key_id != beside.key.key_id)

    report = circle.verify(with_lines(data, strip))
    assert verdict(report, "placement", "logged") == ("failed", "verify.beside")


def test_one_note_key_has_one_role() -> None:
    """A log's key that also witnesses, or one witness key under two names, is no manifest."""
    domain = Domain.make("clinic.de").watching()
    manifest, witness = domain.manifest, domain.witness
    assert witness is not None
    own = CosignerKey.of("clinic.de/witness", domain.keys.note.key.raw)
    twice = CosignerKey.of("clinic.de/other", witness.key.raw)
    for vkeys in ([own.vkey], [witness.key.vkey, twice.vkey]):
        listed = [WitnessKey(name=f"w{number}", vkey=vkey) for number, vkey in enumerate(vkeys)]
        changed = manifest.model_copy(update={"witnesses": listed})
        with pytest.raises(Unreadable, match="one note key stands in two roles"):
            DomainManifest.read(changed.write())
