"""What convicts, and what only looks as if it did."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipts import merkle, note
from receipts.checkpoint import Checkpoint
from receipts.log import TransparencyLog
from receipts.note import Note, NoteSigner
from receipts.statements.promise import InclusionPromise, promise_payload
from receipts.tests.conftest import code_of
from receipts.tests.world import Domain, drafts
from receipts.witnessing import equivocation
from receipts.witnessing.equivocation import Equivocation
from receipts.witnessing.state import MAX_CONVICTIONS, WitnessState
from receipts.witnessing.tests.trees import LEAVES, LOG, ORIGIN, OTHER, SIGNER, TIME, proof, signed, tree
from schemas import envelope
from schemas.errors import Refused, Unreadable
from schemas.keys import SigningKey

AT = "2026-06-01T12:00:00.000Z"
SAME_SIZE = Equivocation(kind="log-same-size", first=signed(5), second=signed(5, OTHER))
HISTORIES = Equivocation(
    kind="log-histories", first=signed(5), second=signed(9, OTHER), root=tree(5, OTHER).root,
    hashes=proof(5, 9, OTHER),
)  # fmt: skip


@pytest.mark.parametrize("document", [SAME_SIZE, HISTORIES], ids=["same-size", "histories"])
def test_two_histories_convict_with_the_log_s_key_alone(document: Equivocation) -> None:
    found = equivocation.convict_log(equivocation.read(document.write()), [LOG.key])
    assert (found.accused, found.origin, found.from_size) == (ORIGIN, ORIGIN, 5)
    stranger = NoteSigner.of(ORIGIN, bytes(32)).key
    assert code_of(lambda: equivocation.convict_log(document, [stranger])) == "note.no_known_signer"


def changed(document: Equivocation, **fields: object) -> Equivocation:
    return document.model_copy(update=fields)


INNOCENT = [
    (changed(SAME_SIZE, second=signed(5)), "equivocation.none"),
    (changed(SAME_SIZE, second=LOG.sign(tree(5, OTHER).text.replace(ORIGIN, "x/y"))), "equivocation.origin"),
    (changed(SAME_SIZE, hashes=[bytes(32)]), "equivocation.shape"),
    # A proof that fails convicts nobody: anyone can make one.
    (changed(HISTORIES, hashes=proof(5, 9)), "merkle.consistency"),
    (changed(HISTORIES, hashes=[]), "merkle.proof_length"),
    (changed(HISTORIES, root=tree(5).root, second=signed(9), hashes=proof(5, 9)), "equivocation.none"),
    (changed(HISTORIES, root=None), "equivocation.shape"),
    # A smaller tree shown later is a symptom of a rollback, not two histories.
    (changed(HISTORIES, first=signed(9), second=signed(5)), "equivocation.shape"),
    (changed(SAME_SIZE, kind="issuer"), "equivocation.kind"),
]


@pytest.mark.parametrize(("document", "code"), INNOCENT)
def test_what_does_not_convict(document: Equivocation, code: str) -> None:
    assert code_of(lambda: equivocation.convict_log(document, [LOG.key])) == code


@pytest.mark.parametrize(
    ("first", "second", "hashes", "kind"),
    [
        (signed(5), signed(5, OTHER), [], "log-same-size"),
        (signed(5), signed(9, OTHER), proof(5, 9, OTHER), "log-histories"),
        (signed(9, OTHER), signed(5), proof(5, 9, OTHER), "log-histories"),
        (signed(5), signed(9), proof(5, 9), None),
        (signed(5), signed(9, OTHER), proof(5, 9), None),
        (signed(8), signed(9, OTHER), proof(8, 9, OTHER), None),  # a power of two: the proof omits the root
        (signed(5), signed(5), [], None),
        (signed(5), signed(9), [b"short"], None),
    ],
)
def test_a_document_is_made_only_of_what_convicts(
    first: bytes, second: bytes, hashes: Sequence[bytes], kind: str | None
) -> None:
    found = equivocation.between(first, second, hashes)
    assert (found.kind if found else None) == kind
    if found:
        equivocation.convict_log(found, [LOG.key])


def cosigned(data: bytes) -> bytes:
    parsed = note.read(data)
    return note.write(Note(parsed.text, (*parsed.signatures, SIGNER.sign(parsed.text, TIME))))


def test_a_witness_that_cosigned_both() -> None:
    document = changed(
        HISTORIES, kind="witness", first=cosigned(HISTORIES.first), second=cosigned(HISTORIES.second)
    )
    assert equivocation.convict_witness(document, SIGNER.key).accused == "clinic.de/witness"
    once = changed(document, second=HISTORIES.second)
    assert code_of(lambda: equivocation.convict_witness(once, SIGNER.key)) == "equivocation.unsigned"
    assert code_of(lambda: equivocation.convict_witness(HISTORIES, SIGNER.key)) == "equivocation.kind"


async def test_an_issuer_with_one_number_for_two(log: TransparencyLog, clinic: Domain) -> None:
    """The same number under two receipts convicts; a second signature over the same receipt does not."""
    first, second = await log.issue(drafts(2))
    keys = [clinic.keys.receipt.public]
    forked = envelope.read(second.envelope).payload.replace(b'"seq":1', b'"seq":0')
    forked = forked.replace(f'"prev":"{first.digest.hex()}"'.encode(), b'"prev":"' + b"0" * 64 + b'"')
    other = envelope.sign(envelope.STATEMENT, forked, clinic.keys.receipt)
    document = Equivocation(kind="issuer", first=first.envelope, second=other)
    assert equivocation.convict_issuer(document, keys).accused == clinic.name
    for data, code in (
        (second.envelope, "equivocation.none"),
        (first.envelope, "equivocation.same"),
        (first.promise, "equivocation.kind"),
    ):
        wrong = changed(document, second=data)
        held = [*keys, clinic.keys.promise.public]
        assert code_of(lambda wrong=wrong, held=held: equivocation.convict_issuer(wrong, held)) == code  # type: ignore[misc]


@given(st.binary(max_size=200) | st.tuples(st.integers(0, 2000), st.binary(max_size=3)).map(
    lambda cut: HISTORIES.write()[: cut[0]] + cut[1] + HISTORIES.write()[cut[0] + 1 :]
))  # fmt: skip
def test_noise_convicts_nobody(data: bytes) -> None:
    with contextlib.suppress(Unreadable, Refused):
        assert equivocation.convict_log(equivocation.read(data), [LOG.key]).from_size == 5


PROMISING = SigningKey.generate()
HELD = SigningKey.generate()


def promised(index: int = 3, leaf: bytes = LEAVES[3], **changes: str) -> bytes:
    values = {"federation": "care", "issuer": "cloud.fr", "origin": ORIGIN, "receipt_id": "r", "time": AT,
              "receipt_digest": "1" * 64, "leaf_hash": leaf.hex(), "deadline": AT} | changes  # fmt: skip
    promise = InclusionPromise.model_validate({**values, "index": index})
    return envelope.sign(envelope.STATEMENT, promise_payload(promise), PROMISING)


def included(index: int, size: int) -> list[bytes]:
    def node(level: int, at: int) -> bytes:
        return merkle.root(OTHER[at << level : (at + 1) << level])

    return merkle.inclusion_proof(index, size, node)


BROKEN = Equivocation(
    kind="promise", first=promised(), second=signed(9, OTHER), root=OTHER[3], hashes=included(3, 9)
)


def test_another_leaf_than_was_promised_convicts() -> None:
    found = equivocation.convict_promise(equivocation.read(BROKEN.write()), [PROMISING.public], [LOG.key])
    assert (found.accused, found.origin, found.from_size) == (ORIGIN, ORIGIN, 4)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"first": promised(leaf=OTHER[3])}, "equivocation.none"),
        ({"root": None}, "equivocation.none"),
        ({"root": OTHER[4]}, "merkle.inclusion"),
        ({"hashes": []}, "merkle.proof_length"),
        ({"first": promised(index=9)}, "merkle.index"),
        ({"first": promised(origin="x/y")}, "equivocation.origin"),
        ({"second": NoteSigner.of(ORIGIN, bytes(32)).sign(tree(9, OTHER).text)}, "note.no_known_signer"),
        ({"first": envelope.sign(envelope.STATEMENT, b"{}", HELD)}, "envelope.signature_invalid"),
        ({"kind": "issuer"}, "equivocation.kind"),
    ],
)
def test_a_promise_that_was_kept_or_never_made(changes: dict[str, object], code: str) -> None:
    document = changed(BROKEN, **changes)
    assert code_of(lambda: equivocation.convict_promise(document, [PROMISING.public], [LOG.key])) == code


def test_a_witness_keeps_some_documents_against_a_log_and_not_all(tmp_path: Path) -> None:
    """Whoever equivocates can make them without end; one is enough."""
    state = WitnessState.open(tmp_path / "witness.db", logs={ORIGIN: [LOG.key]}, signers=[SIGNER])

    def document(number: int) -> bytes:
        other = LOG.sign(Checkpoint(ORIGIN, 5, bytes([number]) * 32).text)
        return changed(SAME_SIZE, second=other).write()

    kept = [state.add_conviction(document(number)) for number in range(MAX_CONVICTIONS + 5)]
    assert kept == [True] * MAX_CONVICTIONS + [False] * 5
    assert state.convicted == MAX_CONVICTIONS
    state.close()
