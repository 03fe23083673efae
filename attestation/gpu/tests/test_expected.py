"""`[nvidia]`: complete or refused, every waiver named, and no root that a charter does not know."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest

from attestation.appraise import appraise_nvidia
from attestation.expected import Expectations
from attestation.gpu.pki.roots import NVIDIA_DEVICE_ROOT, NVIDIA_MANIFEST_ROOT
from attestation.gpu.tests.judging import GOOD, KEYS, but, codes, expect, judge, toml
from attestation.narrow import check_roots
from attestation.testing.nvidia import NOW, spki_digest
from schemas.errors import ConfigurationError
from schemas.papers.trust import FederationTrust

DIGEST = "ab" * 32


def root(table: str, anchor: str, digest: str = DIGEST) -> str:
    return f'[[nvidia.{table}]]\nname = "x"\nanchor = "{anchor}"\nspki_sha256 = "{digest}"\n'


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("confidential", "devtools")])
def test_what_is_not_stated_is_an_error_that_says_what_to_write(key: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Expectations.parse(toml("", **{key: None}).encode())
    assert error.value.code == "expected.unset"
    assert key in error.value.text


@pytest.mark.parametrize(
    "changes",
    [
        {"driver_min": '"550.x"'},
        {"driver_min": "550"},
        {"driver_min": '""'},
        {"vbios": '"96"'},
        {"modes": '["fast"]'},
        {"chips": '["GH200"]'},
        {"confidential": '"off"'},
        {"devtools": '"on"'},
        {"fwid": '"never"'},
        {"padding": '"any"'},
        {"revocation": '"never"'},
        {"hold": '"any"'},
        {"token": '"any"'},
        {"bindings": '["tight"]'},
        {"rim_signer_min": '"yesterday"'},
        {"rim_signer_expired_days": "-1"},
        {"drivers_min": '"550"'},
    ],
)
def test_a_value_that_means_nothing_is_an_error(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        Expectations.parse(toml(**changes).encode())


@pytest.mark.parametrize(
    "more",
    [
        "[nvidia.fabric]\ngpus = 8\n",
        "[nvidia.fabric]\ngpus = 65\nswitches = 4\n",
        '[nvidia.fabric]\ngpus = 8\nswitches = 4\ntopology = "maybe"\n',
        "[nvidia.fabric]\ngpus = 8\nswitches = 4\ncables = 3\n",
        root("root", "device"),
        root("root", "manifest"),
        root("simulated_root", "anything"),
        root("simulated_root", "device", NVIDIA_DEVICE_ROOT),
        root("simulated_root", "manifest", NVIDIA_MANIFEST_ROOT),
        root("root", "service", "ab"),
    ],
)
def test_a_table_that_means_nothing_is_an_error(more: str) -> None:
    with pytest.raises(ConfigurationError):
        Expectations.parse(toml(more).encode())


def test_waivers_are_named_in_the_result() -> None:
    found = judge(revocation='"any"')
    assert {"nvidia.driver_min", "nvidia.confidential", "nvidia.revocation"} <= set(found.waived)


def test_what_is_stated_is_judged() -> None:
    found = judge(
        driver_min='"550.90.06"', vbios='["96.00.9F.00.01"]', modes='["unstated"]', chips='["GH100"]',
        rim_signer_min='"2025-05-01T00:00:00Z"', fwid='"required"',
    )  # fmt: skip
    assert (found.verdict, codes(found)) == ("affirming", [])
    assert found.check("gpu.policy.driver").status == "pass"


def test_a_signer_that_has_ended_may_be_tolerated_for_some_days_and_is_said() -> None:
    late = datetime(2027, 7, 1, tzinfo=UTC)
    found = judge(at=late, revocation='"any"', rim_signer_expired_days="60")
    assert found.verdict == "affirming"
    assert "out of date, tolerated" in found.check("gpu.rim.driver").seen
    assert codes(judge(at=late, revocation='"any"', rim_signer_expired_days="10"))[0] == "rim_signer_expired"


def test_expectations_without_nvidia_are_no_expectations_for_it() -> None:
    with pytest.raises(ConfigurationError, match=r"\[nvidia\] is not set"):
        appraise_nvidia(GOOD.report(), expectations=Expectations.parse(b""), at=NOW)


def test_a_version_that_is_no_number_is_below_every_floor() -> None:
    assert codes(judge(but(driver="new"), driver_min='"1"'))[-1] == "driver_below_floor"


@pytest.mark.parametrize("missing", ["device root", "manifest root", "service"])
def test_every_made_up_root_must_stand_in_the_charter(missing: str) -> None:
    names = ["device root", "manifest root", "service"]

    def trust(listed: list[str]) -> FederationTrust:
        roots = [SimpleNamespace(sha256=spki_digest(name)) for name in listed]
        return cast(FederationTrust, SimpleNamespace(charter=SimpleNamespace(simulated_roots=roots)))

    check_roots(expect(toml()), trust(names))
    with pytest.raises(ConfigurationError, match="not listed in the charter"):
        check_roots(expect(toml()), trust([name for name in names if name != missing]))


@pytest.mark.parametrize(
    "entry", ['"ab" = 1', f'"{"AB" * 48}" = 1', f'"{"ab" * 48}" = "any"', f'"{"ab" * 48}" = 65']
)
def test_an_image_is_a_measurement_with_a_number(entry: str) -> None:
    with pytest.raises(ConfigurationError):
        Expectations.parse(toml(f"[nvidia.images]\n{entry}\n").encode())
