"""Intel's signed list of evaluation numbers: which channel TCB info is of, and who holds to it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from attestation.memory import forget
from attestation.render import json_text
from attestation.result import AttestationResult
from attestation.tdx.collateral.documents import gather
from attestation.tdx.collateral.endorsed import verify_document
from attestation.tdx.collateral.evaluations import CHANNELS, NAME, standard_of
from attestation.tdx.collateral.rollback import Mark
from attestation.tdx.collateral.stated import read_evaluations
from attestation.tdx.origin.chain import INTEL_ROOTS
from attestation.tdx.tests import recorded
from attestation.tdx.tests.judging import GOOD, SGX, but, judge
from attestation.testing.intel import IntelForge, days
from attestation.testing.intel_documents import NOW, evaluation, text
from schemas.errors import ConfigurationError, Refused
from schemas.primitives import parse_time

GENUINE_BODY = (
    b'{"id":"SGX","version":1,"issueDate":"2025-06-02T02:43:30Z","nextUpdate":"2025-07-02T02:43:30Z",'
    b'"tcbEvalNumbers":[{"tcbEvaluationDataNumber":19,"tcbRecoveryEventDate":"2025-05-13T00:00:00Z",'
    b'"tcbDate":"2025-05-14T00:00:00Z"},{"tcbEvaluationDataNumber":18,"tcbRecoveryEventDate":'
    b'"2024-11-12T00:00:00Z","tcbDate":"2024-11-13T00:00:00Z"},{"tcbEvaluationDataNumber":17,'
    b'"tcbRecoveryEventDate":"2024-03-12T00:00:00Z","tcbDate":"2024-03-13T00:00:00Z"}]}'
)
GENUINE_SIGNATURE = (
    "a74e6819789f232632ddacd0857f6bebe6e8d4fc93a6ad34188d6d601aa24adc"
    "edb1547feca0ce10b1d4c096e9c66207eda65fbb4ef7d41542dfa21704b6099a"
)
AT_18 = GOOD
AT_20 = but(info={"tcbEvaluationDataNumber": 20}, identity={"tcbEvaluationDataNumber": 20})


def ask(
    forge: IntelForge, *lists: bytes, channel: str | None = None, at: datetime = NOW, **more: Any
) -> AttestationResult:
    chosen: dict[str, Any] = {} if channel is None else {"evaluation_channel": f'"{channel}"'}
    return judge(forge, endorsements=[forge.collateral(), *lists], at=at, **chosen, **more)


def test_a_genuine_list_is_intels() -> None:
    """Signed by the certificate that signed the recorded documents of that time."""
    answer = b'{"tcbEvaluationDataNumbers":%s,"signature":"%s"}' % (GENUINE_BODY, GENUINE_SIGNATURE.encode())
    (source,) = gather((answer,)).of("evaluations")
    listed = read_evaluations(source.body)
    assert [each.number for each in listed.numbers] == [19, 18, 17]
    assert standard_of(listed, parse_time("2025-06-10T00:00:00Z").timestamp()) == 17
    assert standard_of(listed, parse_time("2025-11-13T00:00:00Z").timestamp()) == 18
    if not recorded.PRESENT:
        pytest.skip(recorded.ABSENT)
    name = "tdx/collateral/sgx-00606a000000-eval17-2025-08-15.json"
    signers = gather((recorded.read(name),)).documents[0].issuers or ()
    assert verify_document(source, signers, None, INTEL_ROOTS).root.fingerprint in INTEL_ROOTS.pins
    (edited,) = gather((answer.replace(b'Number":19', b'Number":16'),)).of("evaluations")
    with pytest.raises(Refused, match="signature"):
        verify_document(edited, signers, None, INTEL_ROOTS)


@pytest.mark.parametrize(
    ("forge", "channel", "verdict", "reason"),
    [
        (AT_18, None, "affirming", None),
        (AT_18, "standard", "affirming", None),
        (AT_18, "early", "contraindicated", "tdx.eval_number_too_low"),
        (AT_20, "standard", "affirming", None),
        (AT_20, "early", "affirming", None),
        (but(info={"tcbEvaluationDataNumber": 17}), "standard", "contraindicated", "tdx.eval_number_too_low"),
        (but(info={"tcbEvaluationDataNumber": 17}), None, "affirming", None),
    ],
)
def test_the_channel_that_is_held_to(
    forge: IntelForge, channel: str | None, verdict: str, reason: str | None
) -> None:
    found = ask(forge, forge.evaluations(), channel=channel)
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.stated()["evaluations"] == {"listed": [20, 19, 18, 17], "standard": 18, "early": 20}


def test_falling_behind_is_noted_where_no_channel_is_demanded() -> None:
    found = ask(but(info={"tcbEvaluationDataNumber": 17}), GOOD.evaluations())
    notes: Any = found.stated()["notes"]
    assert "eval_number_too_low" in notes
    assert "standard 18" in found.check(NAME).seen


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        ([], "tdx.collateral_missing"),
        ([SGX.evaluations()], "tdx.collateral_missing"),
        ([GOOD.evaluations(nextUpdate=text(days(-1)))], "tdx.collateral_expired"),
        ([GOOD.evaluations(issueDate=text(days(1)))], "tdx.collateral_not_yet_valid"),
    ],
)
def test_a_channel_without_a_list_cannot_be_decided(channel: str, lists: list[bytes], reason: str) -> None:
    found = ask(GOOD, *lists, channel=channel)
    assert (found.verdict, found.reason) == ("none", reason)
    assert ask(GOOD, *lists).verdict == "affirming"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (GOOD.evaluations(signer="other"), "tdx.collateral_signature_invalid"),
        (GOOD.evaluations(signer="pck"), "tdx.collateral_signature_invalid"),
        (GOOD.evaluations(version=2), "tdx.collateral_malformed"),
        (GOOD.evaluations(id="QE"), "tdx.collateral_malformed"),
        (GOOD.evaluations(tcbEvalNumbers=[]), "tdx.collateral_malformed"),
        (GOOD.evaluations(tcbEvalNumbers=[evaluation(5, "2025-01-01")] * 2), "tdx.collateral_malformed"),
        (GOOD.evaluations(tcbEvalNumbers=[evaluation(-5, "2025-01-01")]), "tdx.collateral_malformed"),
        (GOOD.evaluations(tcbEvalNumbers=[evaluation(5, "2025-13-01")]), "tdx.collateral_malformed"),
        (GOOD.evaluations(issueDate="now"), "tdx.collateral_malformed"),
    ],
)
def test_a_list_that_is_bad_refuses_where_one_is_demanded_and_says_nothing_else(
    answer: bytes, reason: str
) -> None:
    for channel in CHANNELS:
        found = ask(GOOD, answer, channel=channel)
        assert (found.verdict, found.reason) == ("contraindicated", reason)
    shown = ask(GOOD, answer)
    assert (shown.verdict, shown.stated()["evaluations"]) == (
        "affirming",
        {"listed": [], "standard": None, "early": None},
    )
    assert reason in shown.check(NAME).seen


def test_a_list_under_another_root_is_none_of_ours() -> None:
    """A folder may hold what belongs to a made-up vendor and to Intel."""
    other = but(root=replace(GOOD.root, key="namesake", signer="namesake"))
    offered = [GOOD.collateral(), GOOD.evaluations(signer="other"), GOOD.evaluations()]
    assert judge(GOOD, endorsements=offered, evaluation_channel='"standard"').verdict == "affirming"
    found = judge(but(other), endorsements=[other.root.der(), GOOD.evaluations()])
    assert found.check(NAME).status == "not_evaluated"


def test_no_bit_of_a_list_is_free_to_change_what_it_says() -> None:
    answer = GOOD.evaluations()
    end = answer.index(b',"signature"')
    for at in range(len(b'{"tcbEvaluationDataNumbers":'), end, 3):
        changed = answer[:at] + bytes((answer[at] ^ 1,)) + answer[at + 1 :]
        assert ask(AT_20, changed, channel="early").verdict != "affirming"


@pytest.mark.parametrize(("seconds", "standard"), [(-1, 18), (0, 19)])
def test_a_number_is_the_standard_once_its_event_is_a_year_old(seconds: int, standard: int) -> None:
    lists = GOOD.evaluations(
        tcbEvalNumbers=[evaluation(19, "2025-03-02"), evaluation(18, "2024-11-12")], nextUpdate=text(days(90))
    )
    year = parse_time("2025-03-02T00:00:00Z") + timedelta(days=365, seconds=seconds)
    assert ask(GOOD, lists, at=year).stated()["evaluations"] == {
        "listed": [19, 18], "standard": standard, "early": 19,
    }  # fmt: skip


def test_the_newest_list_that_has_begun_counts() -> None:
    later = GOOD.evaluations(
        issueDate=text(days(-1)), tcbEvalNumbers=[evaluation(21, "2026-02-10"), evaluation(20, "2025-08-12")]
    )
    future = GOOD.evaluations(issueDate=text(days(1)), tcbEvalNumbers=[evaluation(30, "2026-03-01")])
    found = ask(GOOD, GOOD.evaluations(), later, future)
    assert found.stated()["evaluations"] == {"listed": [21, 20], "standard": 20, "early": 21}


MOMENTS = [days(count) for count in (-11, 0, 1, 19.999, 20, 20.001)]


@pytest.mark.parametrize("at", MOMENTS, ids=str)
@pytest.mark.parametrize("channel", [None, *CHANNELS])
def test_cold_and_warm_say_the_same(at: datetime, channel: str | None) -> None:
    """A number becomes the standard channel's between two judgements, and the list ends."""
    turning = GOOD.evaluations(
        tcbEvalNumbers=[evaluation(19, "2025-03-02"), evaluation(18, "2024-11-12")],
        nextUpdate=text(days(5)),
    )
    forget()
    cold = ask(GOOD, turning, channel=channel, at=at)
    forget()
    ask(but(auth_data=bytes(31)), turning, channel=channel)
    assert json_text(ask(GOOD, turning, channel=channel, at=at)) == json_text(cold)


def test_an_older_list_does_not_lower_what_is_demanded() -> None:
    """Still current, and signed: only what was seen tells that it is superseded."""
    older = GOOD.evaluations(issueDate=text(days(-20)), tcbEvalNumbers=[evaluation(18, "2024-11-12")])
    assert ask(GOOD, older, channel="early").verdict == "affirming"
    seen = {"tdx/evaluations": Mark(20, days(-10).timestamp(), "")}
    found = ask(GOOD, older, channel="early", marks=seen)
    assert (found.verdict, found.reason) == ("contraindicated", "tdx.collateral_rollback")
    assert ask(AT_20, GOOD.evaluations(), channel="early", marks=seen).verdict == "affirming"


def test_no_channel_but_intels_two() -> None:
    with pytest.raises(ConfigurationError, match="evaluation_channel"):
        ask(GOOD, channel="newest")


def test_the_list_is_no_json_that_is_passed_over() -> None:
    assert json.loads(GOOD.evaluations())["tcbEvaluationDataNumbers"]["id"] == "TDX"
    assert len(gather((GOOD.evaluations(),)).of("evaluations")) == 1
