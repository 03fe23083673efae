"""What a bundle may bring beside its receipts: opened content, and documents that convict."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receipts import bundle as bundles
from receipts import checkpoint, disclosure
from receipts.bundle import Bundle, Disclosures, OpenedCommitment
from receipts.checkpoint import Checkpoint
from receipts.log import Draft
from receipts.proof import read as read_proof
from receipts.proof import write as write_proof
from receipts.statements.fields import Commitment, RequestRef
from receipts.tests.conftest import verdict
from receipts.tests.touching import predicate
from receipts.tests.world import CLINIC, NOW, Domain, Federation, Run, placement
from receipts.verify import Report
from receipts.witnessing.equivocation import Equivocation
from schemas import envelope
from schemas.canonical import sha256

PROMPT = b'{"messages":[]}'
KEY = bytes(range(32))
SD, SHOWN = disclosure.conceal({"tenant": "radiology"}, decoys=2)
REQUEST = RequestRef(id="r1", commitment=disclosure.commit(KEY, PROMPT).hex())


async def play(
    federation: Federation, folder: Path, touch: Callable[[Bundle], Bundle], run: Run | None = None
) -> Report:
    data = await federation.play(folder, run or Run(request=REQUEST, placement={"sd": SD}))
    return federation.verify(bundles.write(touch(bundles.read(data))), NOW)


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def disclosing(
    key: bytes = KEY,
    value: bytes = PROMPT,
    shown: str = SHOWN["tenant"],
    field: Any = "request",
    keep: bool = True,
) -> Callable[[Bundle], Bundle]:
    def touch(held: Bundle) -> Bundle:
        more = {
            name: each.model_copy(
                update={
                    "opened": [OpenedCommitment(field=field, key=key.hex(), value=sha256(value).hex())],
                    "shown": [shown],
                }
            )
            for name, each in held.disclosures.items()
        }
        blobs = {**held.blobs, sha256(value): value} if keep else held.blobs
        return replace(held, disclosures=more, blobs=blobs)

    return touch


CONTENT: list[tuple[Callable[[Bundle], Bundle], tuple[str, str | None]]] = [
    (lambda held: held, ("not-checked", None)),
    (disclosing(), ("proved", None)),
    (disclosing(value=b"something else"), ("failed", "disclosure.commitment")),
    (disclosing(key=bytes(32)), ("failed", "disclosure.commitment")),
    (
        disclosing(shown=disclosure.conceal({"tenant": "oncology"})[1]["tenant"]),
        ("failed", "disclosure.unknown"),
    ),
    (disclosing(field="response"), ("failed", "verify.content")),
    (disclosing(keep=False), ("not-checked", "verify.content_absent")),
]


@pytest.mark.parametrize(("touch", "wanted"), CONTENT)
async def test_content(
    federation: Federation, tmp_path: Path, touch: Callable[[Bundle], Bundle], wanted: tuple[str, str | None]
) -> None:
    assert verdict(await play(federation, tmp_path, touch), "placement", "content") == wanted


ANSWER = b'{"choices":[]}'


def answered(held: Bundle) -> Bundle:
    """The answer, opened for the Execution, as its issuer would disclose it."""
    (name,) = [
        json.loads(envelope.read(data).payload)["predicate"]["receiptId"]
        for data in held.envelopes.values()
        if "execution-receipt" in predicate(data)
    ]
    opened = [OpenedCommitment(field="response", key=KEY.hex(), value=sha256(ANSWER).hex())]
    return replace(
        held,
        disclosures={**held.disclosures, name: Disclosures(opened=opened)},
        blobs={**held.blobs, sha256(ANSWER): ANSWER},
    )


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"response": Commitment(commitment=disclosure.commit(KEY, ANSWER).hex())}, ("proved", None)),
        ({}, ("failed", "disclosure.commitment")),
        ({"response": None, "outcome": "failed", "code": "engine.failed"}, ("failed", "verify.content")),
    ],
    ids=["the-answer", "another", "none"],
)
async def test_an_answer_opens_what_its_execution_commits_to(
    federation: Federation, tmp_path: Path, changes: dict[str, Any], wanted: tuple[str, str | None]
) -> None:
    report = await play(federation, tmp_path, answered, Run(execution=changes))
    assert verdict(report, "execution", "content") == wanted


def forked(domain: Domain, size: int, root: bytes) -> bytes:
    """Another history that the log's own key signed."""
    return domain.keys.note.sign(Checkpoint(domain.origin, size, root).text)


def accusing(federation: Federation, at: int, accused: Domain | None = None) -> Callable[[Bundle], Bundle]:
    """The bundle with a document against clinic.de's log, from a size of `at` leaves on."""
    clinic = accused or federation.clinic
    one, two = (forked(clinic, at, sha256(name)) for name in (b"one", b"two"))
    document = Equivocation(kind="log-same-size", first=one, second=two)

    def touch(held: Bundle) -> Bundle:
        return replace(held, equivocations=(document.write(), b"{}"))

    return touch


async def test_a_convicted_log_is_distrusted_from_the_fork_on(federation: Federation, tmp_path: Path) -> None:
    """What was proven at size 1 is below a fork at 2 and stays good; at the fork nothing does."""
    good = await play(federation, made(tmp_path / "a"), accusing(federation, 2))
    assert (good.exit_code, verdict(good, "placement", "not-equivocated")) == (0, ("not-checked", None))
    clinic = await federation.clinic.open(made(tmp_path / "b"))
    await clinic.issue([Draft(placement()), Draft(placement())])
    await clinic.close()
    bad = await play(federation, made(tmp_path / "b"), accusing(federation, 2))
    assert bad.exit_code == 1
    assert verdict(bad, "placement", "not-equivocated") == ("failed", "verify.equivocation")
    assert verdict(bad, "execution", "not-equivocated") == ("not-checked", None)
    framed = await play(federation, made(tmp_path / "c"), accusing(federation, 1, Domain.make(CLINIC)))
    assert framed.exit_code == 0, "signatures by a stranger convict nobody"


async def test_two_histories_in_one_bundle_convict_by_themselves(
    federation: Federation, tmp_path: Path
) -> None:
    """Nobody brought a document: the bundle's own checkpoints state two roots for one size."""

    def touch(held: Bundle) -> Bundle:
        (name,) = [key for key, text in held.proofs.items() if b"clinic.de/log" in text]
        parsed = read_proof(held.proofs[name])
        size = checkpoint.read(parsed.note).checkpoint.size
        other = replace(parsed, note=forked(federation.clinic, size, sha256(b"other")))
        return replace(held, proofs={**held.proofs, bytes(32): write_proof(other)})

    report = await play(federation, tmp_path, touch)
    assert verdict(report, "placement", "not-equivocated") == ("failed", "verify.equivocation")


async def test_one_domain_cannot_convict_another(federation: Federation, tmp_path: Path) -> None:
    """cloud.fr signs two receipts in the name of clinic.de: that convicts neither."""
    clinic = await federation.clinic.open(tmp_path)
    (issued,) = await clinic.issue([Draft(placement())])
    await clinic.close()
    payload = envelope.read(issued.envelope).payload
    twins = [
        envelope.sign(envelope.STATEMENT, data, federation.cloud.keys.receipt)
        for data in (payload, payload.replace(b'"count":3', b'"count":4'))
    ]
    document = Equivocation(kind="issuer", first=twins[0], second=twins[1])

    def touch(held: Bundle) -> Bundle:
        return replace(held, equivocations=(document.write(),))

    assert (await play(federation, made(tmp_path / "x"), touch)).exit_code == 0
    mine = [
        envelope.sign(envelope.STATEMENT, envelope.read(data).payload, federation.clinic.keys.receipt)
        for data in twins
    ]
    document = Equivocation(kind="issuer", first=mine[0], second=mine[1])
    report = await play(federation, made(tmp_path / "y"), touch)
    assert verdict(report, "placement", "not-equivocated") == ("failed", "verify.equivocation")
