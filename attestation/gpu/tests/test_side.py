"""Checks side by side: each once, told in order, and the same verdicts as one after the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.appraise import appraise_nvidia
from attestation.gpu import side, verify
from attestation.gpu.forms import Devices
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.revocation import check
from attestation.gpu.rim import signature as rim_signature
from attestation.gpu.side import SideBySide
from attestation.gpu.tests.judging import GOOD, but, collateral, expect, judge, status_of, toml
from attestation.memory import forget
from attestation.pki import ecdsa
from attestation.result import AttestationResult
from attestation.testing.nvidia import NOW, GpuForge
from attestation.testing.nvidia_node import BoardForge, board_manifests
from attestation.testing.nvidia_status import Answer, asked
from schemas.errors import Refused

FAULTS = (
    but(),
    but(signer="GH100 7"),
    but(measurements={7: bytes(48)}),
    but(nonce=bytes(32)),
)


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Say how many there are."""

    def say(count: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))

    return say


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("comity-signatures")]


def test_a_check_of_the_same_bytes_is_made_once(processors: Callable[[int], None]) -> None:
    processors(2)
    made: list[bytes] = []
    noted = SideBySide()
    begun = [noted(made.append, data) for data in (b"a", b"b", b"a")]
    assert not made
    with noted:
        assert [each() for each in (*begun, *begun)] == [None] * 6
    assert sorted(made) == [b"a", b"b"]


def test_an_error_is_raised_wherever_the_result_is_asked_for(processors: Callable[[int], None]) -> None:
    def refuse(data: bytes) -> bytes:
        raise Refused("signature.invalid", data.decode())

    processors(2)
    noted = SideBySide()
    begun = noted(refuse, b"no"), noted(refuse, b"no"), noted(refuse, b"not this either")
    with noted:
        for each in begun:
            with pytest.raises(Refused, match="no"):
                each()


def test_threads_begin_at_the_end_and_who_asks_at_the_front(processors: Callable[[int], None]) -> None:
    under_way, asked = threading.Event(), threading.Event()
    makers: dict[bytes, str] = {}

    def note(data: bytes) -> None:
        makers[data] = threading.current_thread().name

    def wait(data: bytes) -> None:
        note(data)
        under_way.set()
        assert asked.wait(60)

    processors(2)
    noted = SideBySide()
    first, _, last = noted(note, b"1"), noted(note, b"2"), noted(wait, b"3")
    with noted:
        assert under_way.wait(60)
        first()
        asked.set()
        last()
    assert makers[b"1"] == threading.current_thread().name
    assert makers[b"3"] == "comity-signatures"


def test_threads_end_with_the_appraisal_and_what_nobody_asked_for_is_dropped(
    processors: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []
    left = threading.Event()

    class Joined(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            left.set()
            super().join(timeout)

    def wait(data: bytes) -> None:
        assert left.wait(60)
        made.append(data)

    monkeypatch.setattr(side, "Thread", Joined)
    processors(3)
    noted = SideBySide()
    for number in range(50):
        noted(wait, bytes([number]))
    assert not threads()
    with noted:
        assert len(threads()) == 2
    assert not threads()
    assert len(made) <= 2


@pytest.mark.parametrize(("count", "checks"), [(1, 9), (64, 1)], ids=["one processor", "one check"])
def test_where_threads_gain_nothing_there_are_none(
    count: int, checks: int, processors: Callable[[int], None]
) -> None:
    processors(count)
    made: list[bytes] = []
    noted = SideBySide()
    begun = [noted(made.append, bytes([number])) for number in range(checks)]
    with noted:
        assert not threads()
        assert not made
        begun[0]()
    assert made == [b"\0"]


def test_a_process_that_may_have_no_more_threads_checks_alone(
    processors: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    processors(4)
    forget()
    assert judge(GpuForge()).verdict == "affirming"


@pytest.mark.parametrize("devices", [1, 12], ids=["one device", "a board"])
def test_no_signature_is_checked_before_everything_is_read(
    devices: int, processors: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading keeps other threads waiting, and a signature leaves the caches cold for it."""
    order: list[str] = []

    def tracked(place: object, name: str, what: str) -> None:
        real = getattr(place, name)

        def called(*given: object) -> object:
            order.append(what)
            return real(*given)

        monkeypatch.setattr(place, name, called)

    tracked(ecdsa, "verify_ecdsa", "verified")
    tracked(verify, "read_chain", "read")
    tracked(verify, "read_report", "read")
    tracked(rim_signature, "read_signed", "read")
    tracked(check, "read_response", "read")
    board = list(BoardForge().devices().values())
    processors(2)
    forget()
    found = judge(GpuForge()) if devices == 1 else together(board, status_of(board))
    assert found.verdict == "affirming"
    assert order == sorted(order)
    assert set(order) == {"read", "verified"}


@pytest.mark.parametrize("device", FAULTS, ids=["good", "signature", "measurement", "nonce"])
def test_verdicts_and_reasons_are_those_of_one_after_the_other(
    device: GpuForge, processors: Callable[[int], None]
) -> None:
    found = []
    for count in (1, 2, 64):
        processors(count)
        forget()
        found.append(judge(device))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "revoked"},
        {"status": "unknown"},
        {"damaged": True},
        {"appointed": False},
        {"delegate_signer": "stranger"},
        {"responder": "issuer"},
    ],
    ids=str,
)
def test_answers_are_judged_as_one_after_the_other(
    change: dict[str, Any], processors: Callable[[int], None]
) -> None:
    documents = collateral(GOOD)
    about, issuer = asked(GOOD)[1]
    assert documents[4] == Answer(about, issuer).der()
    documents[4] = Answer(about, issuer, **change).der()
    found = []
    for count in (1, 2, 64):
        processors(count)
        forget()
        found.append(judge(GOOD, endorsements=documents))
    assert found[0] == found[1] == found[2]
    assert (found[0].verdict == "affirming") == (change == {"responder": "issuer"})


@pytest.mark.parametrize(
    "fault", [{}, {"gpu3": {"signer": "GH100 0"}}, {"gpu0": {"nonce": bytes(32)}}], ids=str
)
def test_a_board_is_judged_as_one_after_the_other(
    fault: dict[str, dict[str, object]], processors: Callable[[int], None]
) -> None:
    found = []
    for count in (1, 4):
        processors(count)
        forget()
        found.append(together(BoardForge(changes=fault).devices().values()))
    assert found[0] == found[1]


def test_what_devices_share_is_verified_once(
    processors: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their links, manifests and answers about revocation; so much and no more, whoever makes the checks.

    Two answers about one certificate that are made in one second differ in their signatures alone.
    """
    made: list[tuple[bytes, bytes]] = []
    real = ecdsa.verify_ecdsa

    def noted(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, hashing: ec.ECDSA) -> bytes:
        made.append((signature, signed))
        return real(key, signature, signed, hashing)

    monkeypatch.setattr(ecdsa, "verify_ecdsa", noted)
    board = list(BoardForge().devices().values())
    about = status_of(board)
    needed = []
    for count in (1, 2, 4):
        processors(count)
        for given in ((), about):
            forget()
            made.clear()
            assert together(board, given).verdict == "affirming"
            assert len(made) == len(set(made))
            needed.append(set(made))
    assert len(needed[0]) == 3 * 12 + 4 + 7 + 3
    assert needed[0] < needed[1]
    assert needed == needed[:2] * 3


def together(devices: Iterable[GpuForge], about: Sequence[bytes] = ()) -> AttestationResult:
    """Judged with these answers about revocation; with none, it is waived."""
    inputs = tuple(DeviceInput(each.report(), (each.chain(),)) for each in devices)
    return appraise_nvidia(
        Devices(inputs, together=True), endorsements=[*board_manifests(), *about],
        expectations=expect(toml() if about else toml(revocation='"any"')), nonce=BoardForge().nonce, at=NOW,
    )  # fmt: skip
