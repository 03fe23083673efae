"""What is remembered of a device changes no answer: the next report is judged as if nothing were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.appraise import appraise_nvidia
from attestation.gpu.appraise import Asked, appraise_device
from attestation.gpu.forms import Devices
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.rim.manifest import read_manifest, verify_manifest
from attestation.gpu.tests.judging import DRIVER_MANIFEST, GOOD, VBIOS_MANIFEST, but, collateral, expect, toml
from attestation.memory import forget
from attestation.pki import ecdsa
from attestation.result import AttestationResult
from attestation.testing.nvidia import NOW, GpuForge
from attestation.testing.nvidia_manifest import SIGNED_FROM, SIGNED_UNTIL
from attestation.testing.nvidia_node import PRODUCTION, BoardForge, board_manifests
from attestation.testing.nvidia_status import Answer, asked
from schemas.errors import Unreadable

OTHER = bytes(range(100, 132))
NEXT = but(nonce=OTHER)


def ask(
    report: bytes,
    nonce: bytes | None = None,
    at: datetime = NOW,
    documents: Sequence[bytes] | None = None,
    waive: bool = False,
    text: str = "",
) -> AttestationResult:
    given = collateral(GOOD) if documents is None else documents
    return appraise_nvidia(
        report,
        endorsements=given,
        expectations=expect(text or toml()),
        nonce=nonce,
        waive_revocation=waive,
        at=at,
    )


def anew(*arguments: object, **named: object) -> AttestationResult:
    """The same by somebody who remembers nothing."""
    forget()
    return ask(*arguments, **named)  # type: ignore[arg-type]


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What public-key operations were made about."""
    made: list[bytes] = []
    real = ecdsa.verify_ecdsa

    def noted(key: object, given: bytes, signed: bytes, hashing: object) -> bytes:
        made.append(signed)
        return real(key, given, signed, hashing)  # type: ignore[arg-type]

    monkeypatch.setattr(ecdsa, "verify_ecdsa", noted)
    return made


def test_a_next_report_costs_its_own_signature_and_says_the_same(operations: list[bytes]) -> None:
    fresh = anew(NEXT.report(), OTHER)
    anew(GOOD.report(), GOOD.nonce)
    operations.clear()
    found = ask(NEXT.report(), OTHER)
    assert found == fresh
    assert found.verdict == "affirming"
    assert len(operations) == 1
    assert found.stated() == fresh.stated()


REPORTS: dict[str, Callable[[], tuple[bytes, bytes | None]]] = {
    "the same again": lambda: (GOOD.report(), GOOD.nonce),
    "another challenge": lambda: (NEXT.report(), GOOD.nonce),
    "no challenge": lambda: (NEXT.report(), None),
    "another's signature": lambda: (but(nonce=OTHER, signer="GH100 1").report(), OTHER),
    "a turned bit": lambda: (NEXT.report()[:-1] + bytes((NEXT.report()[-1] ^ 1,)), OTHER),
    "zeros for a signature": lambda: (NEXT.report()[:-96] + bytes(96), OTHER),
    "another measurement": lambda: (but(nonce=OTHER, measurements={7: bytes(48)}).report(), OTHER),
    "another driver": lambda: (but(nonce=OTHER, driver="550.90.08").report(), OTHER),
    "a byte behind it": lambda: (NEXT.report() + b"\0", OTHER),
    "cut short": lambda: (NEXT.report()[:-1], OTHER),
    "another responder": lambda: (but(nonce=OTHER, frame={"responder": b"else"}).report(), OTHER),
    "another slot": lambda: (but(nonce=OTHER, frame={"slot": 1}).report(), OTHER),
}


@pytest.mark.parametrize("which", REPORTS)
def test_each_report_is_judged_as_if_nothing_were_known(which: str) -> None:
    report, nonce = REPORTS[which]()
    fresh = anew(report, nonce)
    assert anew(GOOD.report(), GOOD.nonce).verdict == "affirming"
    assert ask(report, nonce) == fresh


DAY, HOUR = timedelta(days=1), timedelta(hours=1)
LATER = replace(
    DRIVER_MANIFEST, changes={"signer": {"not_before": NOW + 3 * HOUR, "not_after": SIGNED_UNTIL}}
)
MOMENTS = [NOW + shift for shift in (
    -DAY, -2 * HOUR, timedelta(), timedelta(seconds=1), 3 * HOUR, 4 * HOUR, 22 * HOUR, 23 * HOUR,
    23 * HOUR + timedelta(seconds=59), 23 * HOUR + timedelta(seconds=61), 2 * DAY,
)] + [SIGNED_FROM - HOUR, SIGNED_UNTIL, SIGNED_UNTIL + DAY]  # fmt: skip


@pytest.mark.parametrize("at", MOMENTS, ids=str)
@pytest.mark.parametrize("waived", [False, True])
def test_nothing_serves_a_moment_outside_its_bounds(at: datetime, waived: bool) -> None:
    """Answers end, a newer issue of a manifest begins, signers end later than they say: each as when anew."""
    about, issuer = asked(GOOD)[0]
    brief = Answer(about, issuer, next_update=NOW + 22 * HOUR).der()
    documents = [*collateral(GOOD, [DRIVER_MANIFEST, LATER, VBIOS_MANIFEST]), brief]
    text = toml(rim_signer_expired_days="1", revocation='"any"' if waived else '"required"')
    arguments = (NEXT.report(), OTHER, at, documents)
    fresh = anew(*arguments, text=text)
    anew(GOOD.report(), GOOD.nonce, NOW, documents, text=text)
    assert ask(*arguments, text=text) == fresh


def test_other_inputs_meet_another_room(operations: list[bytes]) -> None:
    """Documents, expectations, waivers and what the guest says: whatever could change the answer."""
    anew(GOOD.report(), GOOD.nonce)
    lacking = [each for each in collateral(GOOD) if not each.startswith(b"<")]
    assert ask(NEXT.report(), OTHER, documents=lacking) == anew(NEXT.report(), OTHER, documents=lacking)
    demanding = toml(confidential='"required"', devtools='"refuse"')
    anew(GOOD.report(), GOOD.nonce)
    assert ask(NEXT.report(), OTHER, text=demanding).reason == "gpu.cc_mode_unproven"
    states = (None, PRODUCTION, PRODUCTION.model_copy(update={"devtools": True}))
    reasons = []
    for state in (*states, *states):
        found = appraise_device(
            NEXT.report(), endorsements=collateral(GOOD), state=state,
            asked=Asked(expect(demanding).nvidia, None, (), OTHER, waive_revocation=False, at=NOW),
        )  # fmt: skip
        reasons.append(found.result.reason)
    assert reasons == ["gpu.cc_mode_unproven", None, "gpu.devtools_on"] * 2
    unanswered = collateral(GOOD)[:3]
    anew(GOOD.report(), GOOD.nonce, waive=True, documents=unanswered)
    assert ask(NEXT.report(), OTHER, documents=unanswered).reason == "gpu.revocation_unavailable"


def test_a_manifest_is_read_once_for_all_moments_and_devices() -> None:
    forget()
    for number in range(3):
        device, moment = GpuForge(number=number), NOW + timedelta(seconds=number)
        assert ask(device.report(), at=moment, documents=collateral(device)).verdict == "affirming"
    assert (read_manifest.cache_info().misses, verify_manifest.cache_info().misses) == (2, 2)


def test_what_does_not_hold_is_found_anew_each_time(operations: list[bytes]) -> None:
    bad = but(measurements={7: bytes(48)}).report()
    anew(bad, GOOD.nonce)
    operations.clear()
    assert ask(bad, GOOD.nonce).reason == "gpu.measurement_mismatch"
    assert len(operations) == 1


def test_devices_of_a_board_that_is_known_say_the_same_under_their_numbers() -> None:
    def together(board: BoardForge) -> AttestationResult:
        inputs = tuple(DeviceInput(each.report(), (each.chain(),)) for each in board.devices().values())
        return appraise_nvidia(
            Devices(inputs, together=True), endorsements=board_manifests(),
            expectations=expect(toml(revocation='"any"')), nonce=board.nonce, at=NOW,
        )  # fmt: skip

    forget()
    fresh = together(BoardForge(nonce=OTHER))
    forget()
    together(BoardForge())
    assert together(BoardForge(nonce=OTHER)) == fresh
    assert together(BoardForge(nonce=OTHER, changes={"gpu3": {"signer": "GH100 0"}})).reason == (
        "gpu.report_signature_invalid"
    )
    assert together(BoardForge(nonce=OTHER)) == fresh


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7), st.binary(max_size=4))
def test_any_change_of_a_report_is_judged_as_anew(place: int, bit: int, tail: bytes) -> None:
    data = bytearray(NEXT.report() + tail)
    data[place % len(data)] ^= 1 << bit

    def judged() -> object:
        try:
            return ask(bytes(data), OTHER)
        except Unreadable as error:
            return error.code

    forget()
    fresh = judged()
    ask(GOOD.report(), GOOD.nonce)
    assert judged() == fresh
