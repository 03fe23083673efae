"""Checks side by side: each once, told in order, and the same verdicts as one after the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.appraise import appraise_nvidia
from attestation.gpu import side
from attestation.gpu.forms import Devices
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.side import SideBySide, Start
from attestation.gpu.tests.judging import but, expect, judge, toml
from attestation.memory import forget
from attestation.pki import ecdsa
from attestation.result import AttestationResult
from attestation.testing.nvidia import NOW, GpuForge
from attestation.testing.nvidia_node import BoardForge, board_manifests
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
    with SideBySide() as start:
        begun = [start(made.append, data) for data in (b"a", b"b", b"a")]
        assert [each() for each in begun] == [None] * 3
    assert sorted(made) == [b"a", b"b"]


def test_an_error_is_raised_wherever_the_result_is_asked_for(processors: Callable[[int], None]) -> None:
    def refuse(data: bytes) -> bytes:
        raise Refused("signature.invalid", data.decode())

    processors(2)
    with SideBySide() as start:
        begun = start(refuse, b"no"), start(refuse, b"no")
        for each in begun:
            with pytest.raises(Refused, match="no"):
                each()


def test_threads_end_with_the_appraisal_and_what_nobody_waits_for_is_dropped(
    processors: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []
    left = threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            left.set()
            super().shutdown(wait=wait)

    def wait(data: bytes) -> None:
        left.wait(60)
        made.append(data)

    monkeypatch.setattr(side, "ThreadPoolExecutor", Pool)
    processors(2)
    with SideBySide() as start:
        for number in range(50):
            start(wait, bytes([number]))
        assert len(threads()) == 2
    assert not threads()
    assert 0 < len(made) <= 2


def test_one_processor_makes_no_threads_and_begins_when_asked(processors: Callable[[int], None]) -> None:
    processors(1)
    made: list[bytes] = []
    with SideBySide() as start:
        begun = start(made.append, b"a")
        assert not made
        begun()
        assert not threads()
    assert made == [b"a"]


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
    made: list[bytes] = []
    real = ecdsa.verify_ecdsa

    def noted(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, hashing: ec.ECDSA) -> bytes:
        made.append(signed)
        return real(key, signature, signed, hashing)

    monkeypatch.setattr(ecdsa, "verify_ecdsa", noted)
    board = list(BoardForge().devices().values())
    processors(4)
    forget()
    assert together(board).verdict == "affirming"
    assert len(made) == len(set(made)) == 3 * 12 + 4 + 7 + 3


def test_partial_is_a_way_to_start() -> None:
    start: Start = partial
    assert start(bytes.upper, b"a")() == b"A"


def together(devices: Iterable[GpuForge]) -> AttestationResult:
    inputs = tuple(DeviceInput(each.report(), (each.chain(),)) for each in devices)
    return appraise_nvidia(
        Devices(inputs, together=True), endorsements=board_manifests(),
        expectations=expect(toml(revocation='"any"')), nonce=BoardForge().nonce, at=NOW,
    )  # fmt: skip
