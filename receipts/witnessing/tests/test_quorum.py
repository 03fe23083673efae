"""Quorum policies: what is enough, since when, and every way in which a policy file can be wrong."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipts import merkle, note
from receipts.checkpoint import Checkpoint
from receipts.cosignature import COSIGNATURE, SUBTREE, Cosigner
from receipts.note import Note, NoteSigner, Signature
from receipts.tests.conftest import code_of
from receipts.witnessing import quorum
from receipts.witnessing.quorum import Policy
from schemas.errors import Refused, Undecided, Unreadable

LOG = NoteSigner.of("cloud.fr/log", bytes(range(32)))
W = [Cosigner.of(f"w{number}.example/witness", bytes([number + 1]) * 32) for number in range(4)]
TEXT = Checkpoint("cloud.fr/log", 1, merkle.leaf_hash(b"")).text
AT = datetime(2026, 6, 1, tzinfo=UTC)
T = int(AT.timestamp())

GOOD = f"""# a policy
log {LOG.key.vkey} https://logs.invalid/
witness a1 {W[0].key.vkey}
witness\ta2  {W[1].key.vkey} https://w.invalid/

witness b {W[2].key.vkey}
group A any a1 a2
group all 2 A b
quorum all
"""


def signed(*lines: tuple[Cosigner, int]) -> Note:
    parsed = note.read(LOG.sign(TEXT))
    return Note(TEXT, (*parsed.signatures, *(each.sign(TEXT, time) for each, time in lines)))


def test_a_policy_is_read_and_written_back() -> None:
    policy = quorum.read(GOOD.encode())
    assert list(policy.witnesses) == ["a1", "a2", "b"]
    assert [key.vkey for key in policy.logs] == [LOG.key.vkey]
    assert quorum.read(quorum.write(policy)) == policy


@pytest.mark.parametrize(
    ("names", "met"),
    [((), False), (("a1", "a2"), False), (("b",), False), (("a1", "b"), True), (("a2", "b"), True)],
)
def test_two_witnesses_of_one_group_have_one_voice(names: tuple[str, ...], met: bool) -> None:
    assert quorum.read(GOOD.encode()).satisfied(names) is met


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("quorum all\n", ""),
        ("quorum all\n", "quorum all\nquorum all\n"),
        ("quorum all", "quorum nobody"),
        ("quorum all", "quorum all more"),
        ("group all 2", "group all 3"),
        ("group all 2", "group all 0"),
        ("group all 2", "group all two"),
        ("group all 2", "group A 2"),
        ("group all 2 A b", "group none 2 A b"),
        ("group all 2 A b", "group all 2 A b a1"),
        ("group all 2 A b", "group all 2 b b"),
        ("group all 2 A b", "group all 2 all b"),
        ("group A any a1 a2", "group A any a1 missing"),
        ("witness b", "witness a1"),
        (W[2].key.vkey, W[0].key.vkey),
        ("# a policy", "nonsense here"),
        ("# a policy", f"log {LOG.key.vkey}"),
        ("# a policy", "\r"),
        ("# a policy", "# a policy\x7f"),
        ("# a policy", "# a policy\r"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_refused(old: str, new: str) -> None:
    assert GOOD.count(old) >= 1
    assert code_of(lambda: quorum.read(GOOD.replace(old, new, 1).encode())) == "quorum.policy"


def test_a_log_key_is_no_witness_key() -> None:
    text = GOOD.replace(W[2].key.vkey, LOG.key.vkey)
    assert code_of(lambda: quorum.read(text.encode())) == "note.key_type"


def test_no_quorum_is_met_by_nobody() -> None:
    policy = quorum.read(b"quorum none\n")
    assert policy.satisfied(())
    with pytest.raises(Undecided):
        policy.time({})


def operators(needed: int) -> Policy:
    keys = {"a.de": [W[0].key, W[1].key], "b.fr": [W[2].key], "c.us": [W[3].key]}
    return quorum.of_operators(keys, needed)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([(W[0], T), (W[2], T + 9)], T + 9),
        ([(W[0], T), (W[1], T + 1), (W[2], T + 9)], T + 9),
        ([(W[0], 1), (W[1], 1), (W[2], T), (W[3], T + 5)], T),
        ([(W[0], T), (W[0], T - 50), (W[3], T + 5)], T + 5),
    ],
)
def test_the_quorum_time_is_when_enough_had_signed(lines: list[tuple[Cosigner, int]], wanted: int) -> None:
    """One witness that backdates moves nothing: the second voice decides."""
    policy = operators(2)
    times = quorum.cosigned(signed(*lines), policy.witnesses, at=AT).times
    assert policy.time(times) == wanted


def test_one_operator_alone_is_never_two() -> None:
    policy = operators(2)
    times = quorum.cosigned(signed((W[0], T), (W[1], T)), policy.witnesses, at=AT).times
    with pytest.raises(Undecided, match="not meet the quorum"):
        policy.time(times)
    owners = {name: name.partition("#")[0] for name in policy.witnesses}
    assert quorum.single_operator(policy, owners) is None
    assert quorum.single_operator(operators(1), owners) == "a.de"
    assert quorum.single_operator(policy, dict.fromkeys(policy.witnesses, "a.de")) == "a.de"
    assert code_of(lambda: operators(4)) == "quorum.too_few"


def test_a_cosignature_that_does_not_hold_spoils_the_note() -> None:
    witnesses = operators(2).witnesses
    good = signed((W[0], T))
    bad = Signature(W[2].key.name, W[2].key.key_id, W[0].sign(TEXT, T).blob)
    spoiled = Note(TEXT, (*good.signatures, bad))
    assert code_of(lambda: quorum.cosigned(spoiled, witnesses, at=AT)) == "note.signature_invalid"
    late = signed((W[0], T + quorum.MAX_AHEAD_S + 1))
    assert code_of(lambda: quorum.cosigned(late, witnesses, at=AT)) == "quorum.future"
    assert quorum.cosigned(signed((W[0], T + 60)), witnesses, at=AT).times == {"a.de#0": T + 60}


def test_ml_dsa_cosigns_beside_ed25519() -> None:
    strong = Cosigner.of("w.example/witness", b"\7" * 32, SUBTREE)
    plain = Cosigner.of("w.example/witness", b"\7" * 32, COSIGNATURE)
    assert strong.key.key_id != plain.key.key_id
    keys = {"strong": strong.key, "plain": plain.key}
    times = quorum.cosigned(signed((strong, T), (plain, T + 1)), keys, at=AT).times
    assert times == {"strong": T, "plain": T + 1}
    line = strong.sign(TEXT, T)
    moved = Signature(line.name, line.key_id, (T + 1).to_bytes(8) + line.blob[8:])
    assert code_of(lambda: strong.key.verify(moved, TEXT)) == "note.signature_invalid"
    assert (
        code_of(lambda: strong.key.verify(line, TEXT.replace("\n1\n", "\n2\n"))) == "note.signature_invalid"
    )
    assert code_of(lambda: strong.key.verify(line, TEXT + "more\n")) == "checkpoint.extension"


@given(st.binary(max_size=120) | st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=4)).map(
    lambda cut: GOOD.encode()[: cut[0]] + cut[1] + GOOD.encode()[cut[0] + 1 :]
))  # fmt: skip
def test_noise_is_refused(data: bytes) -> None:
    with contextlib.suppress(Unreadable, Refused):
        quorum.read(data)
