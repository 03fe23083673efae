"""A log that promised a leaf and stood still past the deadline: a quorum convicts it, and nothing less."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipts import bundle as bundles
from receipts import merkle, note
from receipts.audit.tests.conftest import Auditor, codes
from receipts.bundle import Bundle
from receipts.checkpoint import Checkpoint
from receipts.cosignature import Cosigner
from receipts.note import Note, NoteSigner
from receipts.statements.promise import InclusionPromise, promise_payload
from receipts.tests.conftest import claim_of, code_of, verdict
from receipts.tests.test_keeping import run
from receipts.tests.test_witnessed import found
from receipts.tests.world import CLINIC, CLOUD, FEDERATION, Federation, Run
from receipts.verify.convicted import convict
from receipts.verify.jury import Jury
from receipts.verify.pinned import PinnedTrust, establish
from receipts.witnessing import equivocation, quorum
from receipts.witnessing.equivocation import Conviction, Equivocation, late
from receipts.witnessing.state import WitnessState
from schemas import envelope
from schemas.errors import ComityError, Refused, Undecided, Unreadable
from schemas.keys import SigningKey
from schemas.papers.manifest import WitnessKey
from schemas.primitives import format_time

WORLD = found()
CLINIC_W, DESK_W, FORUM_W = (
    domain.witness for domain in (WORLD.clinic, *WORLD.others) if domain.witness is not None
)
OWN_W = WORLD.cloud.witness
DEADLINE = datetime(2026, 6, 1, 12, 0, 10, tzinfo=UTC)
DUE = int(DEADLINE.timestamp())
AT = DEADLINE + timedelta(minutes=5)
INDEX = 3
LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(8)]


def papers(federation: Federation) -> Bundle:
    return Bundle({}, charter=federation.charter,
                  manifests=tuple(federation.clinic.documents.manifests.values()))  # fmt: skip


HELD = establish(papers(WORLD), WORLD.trust())


def promised(key: SigningKey = WORLD.cloud.keys.promise, index: int = INDEX, **changes: str) -> bytes:
    values = {"federation": FEDERATION, "issuer": CLOUD, "origin": WORLD.cloud.origin, "receipt_id": "r",
              "receipt_digest": "1" * 64, "leaf_hash": LEAVES[INDEX].hex(),
              "time": format_time(DEADLINE - timedelta(seconds=10)), "deadline": format_time(DEADLINE),
              } | changes  # fmt: skip
    promise = InclusionPromise.model_validate({**values, "index": index})
    return envelope.sign(envelope.STATEMENT, promise_payload(promise), key)


Line = tuple[Cosigner | None, int]


def shown(*lines: Line, size: int = INDEX, signer: NoteSigner = WORLD.cloud.keys.note,
          origin: str = WORLD.cloud.origin) -> bytes:  # fmt: skip
    """The log's checkpoint with cosignatures."""
    text = Checkpoint(origin, size, merkle.root(LEAVES[:size]) if size else merkle.EMPTY_ROOT).text
    signed = note.read(signer.sign(text))
    more = [each.sign(text, time) for each, time in lines if each is not None]
    return note.write(Note(text, (*signed.signatures, *more)))


LATE: tuple[Line, ...] = ((CLINIC_W, DUE + 60), (DESK_W, DUE + 1))


def judged(
    document: Equivocation, needed: str | None = "2", at: datetime = AT, held: PinnedTrust = HELD
) -> Conviction:
    """By an auditor with that quorum; None: by a domain that speaks for itself."""
    jury = Jury(at, WORLD.trust(quorum=needed) if needed else None)
    return convict(equivocation.read(document.write()), held, jury)


@pytest.mark.parametrize("needed", ["2", None])
@pytest.mark.parametrize("size", [0, 1, INDEX])
def test_a_quorum_past_the_deadline_convicts(needed: str | None, size: int) -> None:
    found = judged(late(promised(), [shown(*LATE, size=size)]), needed)
    assert (found.accused, found.origin, found.from_size) == ("cloud.fr/log", "cloud.fr/log", INDEX + 1)
    assert "2026-06-01T12:00:11.000Z" in found.text, "as late as all of a quorum say, not as one says"


def test_each_witness_s_copy_adds_its_line() -> None:
    """A witness hands out its own line only."""
    copies = [shown(line) for line in LATE]
    assert late(promised(), copies) == late(promised(), [shown(*LATE)])
    assert judged(late(promised(), [copies[0], *copies])).from_size == INDEX + 1
    other = shown(LATE[0], size=2)
    assert code_of(lambda: late(promised(), [copies[0], other])) == "equivocation.shape"
    assert code_of(lambda: late(promised(), [])) == "equivocation.shape"
    assert code_of(lambda: late(bytes(800_000), copies)) == "equivocation.too_long"


def test_a_witness_that_signed_in_time_and_late_is_heard_late() -> None:
    """It asked again for the same tree: what counts is that it stood still after the deadline."""
    early: Sequence[Line] = ((CLINIC_W, DUE - 5), (DESK_W, DUE - 5))
    assert judged(late(promised(), [shown(*early, *LATE)])).from_size == INDEX + 1


UNHEARD: dict[str, tuple[Line, ...]] = {
    "one of two": ((DESK_W, DUE + 1),),
    "one in time": ((CLINIC_W, DUE - 1), (DESK_W, DUE + 60)),
    "one at the deadline": ((CLINIC_W, DUE), (DESK_W, DUE + 60)),
    "its own operator": ((OWN_W, DUE + 60), (DESK_W, DUE + 60)),
    "one operator twice": ((DESK_W, DUE + 60), (DESK_W, DUE + 70)),
    "a stranger": ((Cosigner.of("x.example/witness", bytes(32)), DUE + 60), (DESK_W, DUE + 60)),
}


@pytest.mark.parametrize("lines", UNHEARD.values(), ids=UNHEARD)
@pytest.mark.parametrize("needed", ["2", None])
def test_fewer_than_a_quorum_convict_nobody(lines: tuple[Line, ...], needed: str | None) -> None:
    """One lying witness cannot accuse a log that the others had seen in time."""
    with pytest.raises(Undecided, match=r"quorum\.not_met"):
        judged(late(promised(), [shown(*lines)]), needed)


def test_two_witnesses_of_one_operator_have_one_voice() -> None:
    second = Cosigner.of("desk.it/second", bytes(31) + b"\7")
    manifests = dict(HELD.manifests)
    desk = manifests["desk.it"]
    more = [*desk.witnesses, WitnessKey(name=second.key.name, vkey=second.key.vkey)]
    manifests["desk.it"] = desk.model_copy(update={"witnesses": more})
    held = replace(HELD, manifests=manifests)
    twice = late(promised(), [shown((DESK_W, DUE + 60), (second, DUE + 60))])
    with pytest.raises(Undecided, match=r"quorum\.not_met"):
        judged(twice, held=held)
    assert judged(late(promised(), [shown(*LATE, (second, DUE + 60))]), held=held).from_size == INDEX + 1


def test_a_silenced_witness_has_no_voice() -> None:
    assert DESK_W is not None
    held = replace(HELD, silenced=frozenset({DESK_W.key.raw}))
    with pytest.raises(Undecided, match=r"quorum\.not_met"):
        judged(late(promised(), [shown(*LATE)]), held=held)


def test_without_a_quorum_nobody_is_convicted() -> None:
    document = late(promised(), [shown(*LATE, (FORUM_W, DUE + 60))])
    for needed, code in (('"none"', "none"), ("4", "too_few")):
        with pytest.raises(Undecided, match=rf"quorum\.{code}"):
            judged(document, needed)
    with pytest.raises(Undecided, match=r"quorum\.none"):
        convict(document, HELD, None)
    alone = {name: HELD.manifests[name] for name in (CLINIC, CLOUD)}
    with pytest.raises(Undecided, match=r"quorum\.too_few"):
        judged(document, None, held=replace(HELD, manifests=alone))


def test_a_policy_file_names_who_is_heard(tmp_path: Path) -> None:
    """The log's own witness stays a member of the policy, and is not heard over its own log."""
    named = (DESK_W, OWN_W, FORUM_W)
    lines = [f"witness w{number} {each.key.vkey}" for number, each in enumerate(named) if each is not None]
    text = "\n".join([*lines, "group any2 2 w0 w1 w2", "quorum any2", ""])
    trust = replace(WORLD.trust(quorum="2"), quorum=quorum.read(text.encode()))
    own = late(promised(), [shown((DESK_W, DUE + 9), (OWN_W, DUE + 9))])
    with pytest.raises(Undecided, match=r"quorum\.not_met"):
        convict(own, HELD, Jury(AT, trust))
    with pytest.raises(Undecided, match=r"quorum\.not_met"):
        convict(late(promised(), [shown(*LATE)]), HELD, Jury(AT, trust))
    heard = late(promised(), [shown((DESK_W, DUE + 9), (FORUM_W, DUE + 9))])
    assert convict(heard, HELD, Jury(AT, trust)).accused == "cloud.fr/log"


def direct(document: Equivocation, at: datetime = AT) -> Conviction:
    """Under cloud.fr's keys, to see the reason."""
    keys = WORLD.cloud.keys
    policy = Jury(AT, WORLD.trust(quorum="2")).policy(HELD, CLOUD, WORLD.cloud.origin)
    return equivocation.convict_late(document, [keys.promise.public], [keys.note.key], lambda: policy, at)


def mutated(data: bytes, old: bytes, new: bytes) -> bytes:
    """A signed promise with other words in its payload, the signature as it was."""
    read = envelope.read(data)
    assert old in read.payload
    outer = json.loads(data)
    outer["payload"] = json.loads(
        envelope.sign(envelope.STATEMENT, read.payload.replace(old, new), WORLD.cloud.keys.promise)
    )["payload"]
    return json.dumps(outer, separators=(",", ":")).encode()


GOOD = late(promised(), [shown(*LATE)])
AT_LINES: tuple[Line, ...] = ((CLINIC_W, DUE), (DESK_W, DUE))
INNOCENT: dict[str, tuple[dict[str, Any], str]] = {
    "all at the deadline": ({"second": shown(*AT_LINES)}, "equivocation.none"),
    "all in time": ({"second": shown((CLINIC_W, DUE - 9), (DESK_W, DUE - 9))}, "equivocation.none"),
    "nobody": ({"second": shown()}, "equivocation.none"),
    "just large enough": ({"second": shown(*LATE, size=INDEX + 1)}, "equivocation.none"),
    "another index": ({"first": promised(index=INDEX - 1)}, "equivocation.none"),
    "another log's tree": (
        {"second": shown(*LATE, signer=WORLD.clinic.keys.note, origin="clinic.de/log")},
        "equivocation.origin",
    ),
    "another log's promise": ({"first": promised(origin="cloud.fr/other")}, "equivocation.origin"),
    "another's promise": ({"first": promised(WORLD.clinic.keys.promise)}, "envelope.signature_invalid"),
    "another's tree": (
        {"second": shown(*LATE, signer=NoteSigner.of("cloud.fr/log", bytes(32)))}, "note.no_known_signer",
    ),
    "an earlier deadline": (
        {"first": mutated(promised(), b"12:00:10.000Z", b"12:00:09.000Z")}, "envelope.signature_invalid",
    ),
    "a larger index": (
        {"first": mutated(promised(), b'"index":3', b'"index":9')}, "envelope.signature_invalid",
    ),
    "a receipt key's promise": ({"first": promised(WORLD.cloud.keys.receipt)}, "envelope.signature_invalid"),
    "a proof": ({"hashes": [bytes(32)]}, "equivocation.shape"),
    "a leaf": ({"root": LEAVES[0]}, "equivocation.shape"),
    "another kind": ({"kind": "promise"}, "equivocation.kind"),
    "from the future": ({"second": shown((CLINIC_W, DUE + 9000), (DESK_W, DUE + 9000))}, "quorum.future"),
    "one from the future": ({"second": shown(*LATE, (FORUM_W, DUE + 9000))}, "quorum.future"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "code"), INNOCENT.values(), ids=INNOCENT)
def test_what_does_not_convict(changes: dict[str, Any], code: str) -> None:
    document = GOOD.model_copy(update=changes)
    assert code_of(lambda: direct(document)) == code
    for needed in ("2", None):
        assert code_of(lambda needed=needed: judged(document, needed)) == "equivocation.nobody"  # type: ignore[misc]


def test_before_the_deadline_has_passed_here_nothing_is_late() -> None:
    """Witnesses' clocks may run ahead of the reader's, within what a cosignature may."""
    assert code_of(lambda: direct(GOOD, DEADLINE)) == "equivocation.not_due"
    assert direct(GOOD, DEADLINE + timedelta(seconds=1)).from_size == INDEX + 1


def test_a_spoiled_line_spoils_the_note() -> None:
    """signed-note: a known key's signature that fails means that the whole note is refused."""
    parsed = note.read(GOOD.second)
    last = parsed.signatures[-1]
    bad = replace(last, blob=last.blob[:-1] + bytes([last.blob[-1] ^ 1]))
    spoiled = note.write(Note(parsed.text, (*parsed.signatures[:-1], bad)))
    assert code_of(lambda: direct(GOOD.model_copy(update={"second": spoiled}))) == "note.signature_invalid"


def test_a_deadline_within_a_second_is_not_rounded_away() -> None:
    """A cosignature counts whole seconds: 12:00:10 is not past 12:00:10.500."""
    promise = promised(deadline="2026-06-01T12:00:10.500Z")
    assert code_of(lambda: direct(late(promise, [shown(*AT_LINES)]))) == "equivocation.none"
    assert direct(late(promise, [shown(*LATE)])).from_size == INDEX + 1


WRITTEN = GOOD.write()


@given(st.tuples(st.integers(0, len(WRITTEN) - 1), st.binary(min_size=1, max_size=2)))
def test_any_touch_leaves_it_convicting_the_same_or_nobody(cut: tuple[int, bytes]) -> None:
    data = WRITTEN[: cut[0]] + cut[1] + WRITTEN[cut[0] + 1 :]
    with suppress(Unreadable, Refused, Undecided):
        found = convict(equivocation.read(data), HELD, Jury(AT, WORLD.trust(quorum="2")))
        assert (found.accused, found.from_size) == ("cloud.fr/log", INDEX + 1)


# In a log, in a bundle, before an auditor.


@pytest.fixture
def auditor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Auditor:
    return Auditor(WORLD, tmp_path, capsys)


async def said(auditor: Auditor, folder: Path, *lines: Line) -> None:
    """clinic.de states in its log that cloud.fr's log was late, by command."""
    (folder / "promise.json").write_bytes(promised(index=0))
    words: list[str] = []
    for number, line in enumerate(lines):
        path = folder / f"checkpoint-{number}"
        path.write_bytes(shown(line, size=0))
        words += ["--checkpoint", str(path)]
    result = await run(auditor, "convict", "--promise", str(folder / "promise.json"), *words)
    assert result["stated"] == "equivocation"


def demanding(auditor: Auditor, needed: str) -> None:
    path = auditor.folder / "trust.toml"
    path.write_text(path.read_text().replace('quorum = "none"', f"quorum = {needed}"))


async def test_it_is_stated_by_command_and_heard_by_auditors(auditor: Auditor, tmp_path: Path) -> None:
    await auditor.play(Run(), acknowledged=True)
    await said(auditor, tmp_path, *LATE)
    demanding(auditor, "2")
    assert codes(auditor.log()[1]) == [("cloud.fr/log", "audit.convicted")]
    code, report = auditor.pair("--proofs", str(tmp_path / "proofs"))
    assert (code, codes(report)) == (1, [(CLOUD, "audit.convicted")])
    (kept,) = (tmp_path / "proofs").iterdir()
    assert equivocation.read(kept.read_bytes()).kind == "promise-late"


@pytest.mark.parametrize(("needed", "code"), [("3", "quorum.not_met"), ('"none"', "quorum.none")])
async def test_an_auditor_with_another_quorum_notes_it_and_blames_nobody(
    auditor: Auditor, tmp_path: Path, needed: str, code: str
) -> None:
    await auditor.play(Run(), acknowledged=True)
    await said(auditor, tmp_path, *LATE)
    demanding(auditor, needed) if needed != '"none"' else None
    for exit_code, report in (auditor.log(), auditor.pair()):
        assert (exit_code, codes(report)) == (0, [(CLINIC, code)])
        assert [each["severity"] for each in report["findings"]] == ["note"]


async def test_it_goes_along_with_bundles(auditor: Auditor, tmp_path: Path) -> None:
    """The receipt proven in the tree that came too late is believed no more; by whom, the auditor says."""
    await auditor.play(Run())
    await said(auditor, tmp_path, *LATE)
    log = await WORLD.clinic.open(auditor.folder)
    data = await log.bundle(auditor.runs[0].request.id)
    await log.close()
    (document,) = bundles.read(data).equivocations
    assert equivocation.read(document).kind == "promise-late"
    convicted = ("failed", "verify.equivocation")
    for needed, wanted in (("2", convicted), ("3", ("not-checked", None)), ('"none"', ("not-checked", None))):
        report = WORLD.verify(data, AT, quorum=needed)
        assert verdict(report, "execution", "not-equivocated") == wanted
        assert verdict(report, "placement", "not-equivocated") == ("not-checked", None)
        said_so = "1 that rests on witnesses" in claim_of(report, "execution", "not-equivocated").text
        assert said_so is (wanted != convicted), "what was left open is named"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((LATE[0],), r"quorum\.not_met"),
        ((LATE[0], (OWN_W, DUE + 60)), r"quorum\.not_met"),
        (AT_LINES, r"equivocation\.nobody"),
    ],
)
async def test_what_convicts_nobody_is_not_said(
    auditor: Auditor, tmp_path: Path, lines: tuple[Line, ...], code: str
) -> None:
    await auditor.play(Run())
    with pytest.raises(ComityError, match=code):
        await said(auditor, tmp_path, *lines)
    assert auditor.log()[1]["counts"]["notices"]["convictions"] == 0


async def test_a_promise_alone_is_no_document(auditor: Auditor, tmp_path: Path) -> None:
    await auditor.play(Run())
    with pytest.raises(ComityError, match=r"log\.document"):
        await said(auditor, tmp_path)


def asking(old: int, size: int) -> bytes:
    """A tlog-witness request by anyone who holds the log's checkpoint: none is authenticated."""

    def node(level: int, index: int) -> bytes:
        return merkle.root(LEAVES[index << level : (index + 1) << level])

    hashes = merkle.consistency_proof(old, size, node) if 0 < old < size else []
    lines = "".join(f"{base64.b64encode(each).decode()}\n" for each in hashes)
    return f"old {old}\n{lines}\n".encode() + shown(size=size)


def witnesses(folder: Path) -> list[WitnessState]:
    logs = {WORLD.cloud.origin: [WORLD.cloud.keys.note.key]}
    states = []
    for number, signer in enumerate((DESK_W, FORUM_W)):
        assert signer is not None
        states.append(WitnessState.open(folder / f"{number}.db", logs=logs, signers=[signer]))
    return states


def test_honest_witnesses_hand_out_what_convicts_a_log_that_stands_still(tmp_path: Path) -> None:
    """Whoever holds promise and checkpoint asks them again after the deadline; each says what it has seen."""
    states = witnesses(tmp_path)
    for state in states:
        assert state.add_checkpoint(asking(0, INDEX), time=DUE - 20).status == 200
    in_time = [state.latest(WORLD.cloud.origin) or b"" for state in states]
    assert code_of(lambda: direct(late(promised(), in_time))) == "equivocation.none"
    for state in states:
        assert state.add_checkpoint(asking(INDEX, INDEX), time=DUE + 20).status == 200
    stood = [state.latest(WORLD.cloud.origin) or b"" for state in states]
    assert judged(late(promised(), stood)).accused == "cloud.fr/log"
    for state in states:
        state.close()


def test_honest_witnesses_convict_no_log_that_was_in_time(tmp_path: Path) -> None:
    """They have seen more, and cosign the smaller tree no more; one that lies is not enough."""
    states = witnesses(tmp_path)
    for state in states:
        assert state.add_checkpoint(asking(0, INDEX), time=DUE - 20).status == 200
        assert state.add_checkpoint(asking(INDEX, INDEX + 1), time=DUE - 5).status == 200
        assert state.add_checkpoint(asking(INDEX, INDEX), time=DUE + 20).status == 409
    grown = [state.latest(WORLD.cloud.origin) or b"" for state in states]
    assert code_of(lambda: direct(late(promised(), grown))) == "equivocation.none"
    with pytest.raises(Undecided, match=r"quorum\.not_met"):
        judged(late(promised(), [shown((CLINIC_W, DUE + 20))]))
    for state in states:
        state.close()
