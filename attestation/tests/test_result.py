"""How checks become a verdict, and how a verdict is written, signed and read."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from attestation import render
from attestation.ear import PROFILE, as_ear, sign_ear, verify_ear
from attestation.render import human_text, stated_lines
from attestation.result import Check, decide, downranked, failed, not_evaluated, passed, undecided
from attestation.snp.tests.judging import demanding, judge
from attestation.testing.forge import Forge
from schemas.errors import ComityError
from schemas.keys import SigningKey

GOOD = passed("a", "", "", "")
SHOWN = not_evaluated("b", "not demanded")
FAIL = failed("c", "x.fail", "", "", "")
GAP = undecided("d", "x.gap", "", "", "")
LOW = downranked("e", "x.low", "", "", "")


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        ([], ("affirming", None)),
        ([GOOD, SHOWN], ("affirming", None)),
        ([LOW, GOOD], ("warning", "x.low")),
        ([LOW, GAP], ("none", "x.gap")),
        ([GAP, LOW, FAIL], ("contraindicated", "x.fail")),
    ],
)
def test_a_failure_outweighs_a_gap_outweighs_a_warning(checks: list[Check], verdict: tuple[str, str]) -> None:
    assert decide(checks) == verdict


FORGE = Forge.of("Milan")


def test_json_has_every_check_and_field() -> None:
    found = judge(FORGE)
    written: dict[str, Any] = json.loads(render.json_text(found))
    assert written["verdict"] == "affirming"
    assert written["simulated"] is True
    assert len(written["checks"]) == len(found.checks)
    assert written["evidence"]["tcb"]["reported"] == FORGE.tcb
    assert set(written["checks"][0]) == {"check", "status", "code", "seen", "wanted", "clause", "effect"}
    assert written["ear"]["submods"]["snp"]["ear.status"] == "affirming"


@pytest.mark.parametrize("good", [True, False])
def test_the_text_names_every_check_and_the_reason(good: bool) -> None:
    found = judge(FORGE, expectations=None if good else demanding(FORGE, vmpl="[1]"))
    text = render.human_text(found)
    assert all(check.name in text for check in found.checks)
    assert "SIMULATED" in text
    assert ("snp.vmpl.not_allowed" in text) != good
    assert text.startswith("affirming" if good else "contraindicated")


def test_the_trustworthiness_vector_follows_the_checks() -> None:
    good = as_ear(judge(FORGE))["submods"]
    bad = as_ear(judge(FORGE, expectations=demanding(FORGE, measurement=f'["{"00" * 48}"]')))["submods"]
    assert isinstance(good, dict)
    assert isinstance(bad, dict)
    vectors = [each["snp"]["ear.trustworthiness-vector"] for each in (good, bad)]  # type: ignore[call-overload,index]
    assert vectors[0]["executables"] == 2  # type: ignore[call-overload,index]
    assert vectors[1]["executables"] == 96  # type: ignore[call-overload,index]
    assert vectors[1]["instance-identity"] == 2  # type: ignore[call-overload,index]


def test_an_ear_is_signed_by_a_registered_key_and_in_date() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    token = sign_ear(judge(FORGE), key, issuer="clinic.de", issued_at=1_000_000_000, lifetime=60)
    claims = verify_ear(token, key.public, issuer="clinic.de", at=1_000_000_030)
    assert claims["eat_profile"] == PROFILE
    assert jwt.get_unverified_header(token)["kid"] == key.thumbprint
    header, body, signature = token.split(".")
    for bad, verifier, issuer, at in (
        (token, other, "clinic.de", 1_000_000_030),
        (token, key, "cloud.fr", 1_000_000_030),
        (token, key, "clinic.de", 1_000_000_060),
        (token, key, "clinic.de", 999_999_999),
        (f"{header}.{body}.{signature[:-4]}AAAA", key, "clinic.de", 1_000_000_030),
        ("a" * 300_000, key, "clinic.de", 1_000_000_030),
        ("a.b.c", key, "clinic.de", 1_000_000_030),
        (jwt.encode({"iss": "clinic.de", "iat": 1, "exp": 9}, "", algorithm="none"), key, "clinic.de", 5),
        (jwt.encode({"iss": "clinic.de", "iat": 1, "exp": 9}, key.private, "ES256"), key, "clinic.de", 5),
    ):
        with pytest.raises(ComityError):
            verify_ear(bad, verifier.public, issuer=issuer, at=at)


def test_the_text_hides_no_commands_for_a_terminal() -> None:
    lines = stated_lines({"name": "\x1b[2Jgood", "list": ["a\rb", "c"], "numbers": [1, 2], "in": {"x": "\n"}})
    assert lines == [
        "name: \\u001b[2Jgood", "list:", "  a\\u000db", "  c", "numbers: [1, 2]", "in: x \\u000a",
    ]  # fmt: skip
    spoken = judge(FORGE)._replace(checks=(passed("snp.chain", "ARK-\x1b]0;", "", ""),))
    assert "\x1b" not in human_text(spoken)
