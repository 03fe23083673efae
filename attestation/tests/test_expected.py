"""expected.toml: complete or refused, and the refusal says what to write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attestation.expected import DEFAULT_MAX_AGE, Expectations
from attestation.snp.products import MILAN
from attestation.testing.expectations import SNP_KEYS, node_toml, simulated_toml, snp_toml
from schemas.canonical import sha256
from schemas.errors import ConfigurationError


def parse(text: str) -> Expectations:
    return Expectations.parse(text.encode(), source="wanted.toml")


def refusal(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as error:
        parse(text)
    assert "wanted.toml" in error.value.text
    return error.value


@pytest.mark.parametrize("key", SNP_KEYS)
def test_every_identity_and_floor_must_be_stated(key: str) -> None:
    error = refusal(snp_toml({key: None}))
    assert error.code == "expected.unset"
    assert f"[snp] {key} is not set" in error.text
    assert f'{key} = "any"' in error.text
    assert error.exit_code == 2


@pytest.mark.parametrize("key", SNP_KEYS)
def test_every_identity_and_floor_can_be_waived_by_name(key: str) -> None:
    assert f"snp.{key}" in parse(snp_toml({key: '"any"'})).waived


@pytest.mark.parametrize("key", ["engine_digests", "models"])
def test_the_node_part_must_be_complete_too(key: str) -> None:
    lines = [line for line in node_toml().splitlines() if not line.startswith(key)]
    error = refusal("\n".join(lines))
    assert (error.code, f"[node] {key} is not set" in error.text) == ("expected.unset", True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vmpl", "[4]"),
        ("vmpl", "[true]"),
        ("vmpl", "[]"),
        ("vmpl", '"none"'),
        ("measurement", '["00"]'),
        ("measurement", "[]"),
        ("measurement", f'["{"0g" * 48}"]'),
        ("measurement", "1"),
        ("guest_svn_min", "-1"),
        ("guest_svn_min", "true"),
        ("reported_tcb_min", "{ bl = 1 }"),
        ("reported_tcb_min", "{ bl = 1, tee = 0, snp = 0, ucode = 256 }"),
        ("reported_tcb_min", "{ bl = 1, tee = 0, snp = 0, ucode = true }"),
        ("reported_tcb_min", "7"),
        ("firmware_min", '"1.55"'),
        ("firmware_min", "1.55"),
        ("products", '["Rome"]'),
        ("debug", '"allow"'),
        ("policy_required", '["turbo"]'),
        ("platform_forbidden", '"smt_en"'),
        ("csp_ids", '"CN=x"'),
        ("alias_check", '"any"'),
        ("report_versions", "[1]"),
        ("launch_mitigation_required", "-1"),
        ("measurment", '"any"'),
        ("pcrs", "7"),
        ("pcrs", '{ 24 = "any" }'),
        ("pcrs", '{ 7 = ["00"] }'),
    ],
)
def test_a_wrong_value_is_named(key: str, value: str) -> None:
    error = refusal(snp_toml({"products": '["Milan"]', key: value}))
    assert key in error.text or "pcrs" in error.text
    assert error.code in ("expected.invalid", "expected.unknown_key")


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "= 1",
        "snp = 1",
        "[unknown]",
        "node = 1",
        "[[snp]]",
        "simulated_root = 1",
        '[[simulated_root]]\nname = "x"',
        f'[[simulated_root]]\nname = "x"\nproduct = "Milan"\nsha256 = "{MILAN.pin.der if MILAN.pin else ""}"',
        f'[[simulated_root]]\nname = "x"\nproduct = "Rome"\nsha256 = "{"00" * 32}"',
        '[[simulated_root]]\nname = "any"\nproduct = "Milan"\nsha256 = "any"',
        '[[deny]]\nkind = "product"\nvalue = "Milan"',
        '[[deny]]\nkind = "colour"',
        "deny = [1]",
    ],
)
def test_other_faults_are_configuration_errors(text: str) -> None:
    refusal(text)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("product", "milan"),
        ("product", "Milan-B0"),
        ("chip", "ab" * 32),
        ("key", "ab" * 48),
        ("measurement", "ab" * 32),
        ("report", "ab" * 8),
        ("csp", ""),
    ],
)
def test_a_denial_that_could_never_match_is_named(kind: str, value: str) -> None:
    text = (
        f'[[deny]]\nkind = "{kind}"\nvalue = "{value}"\neffect = "deny"\nfrom = "2026-01-01T00:00:00Z"\n'
        'reason = "r"\nauthor = "a"\ndate = "2026-01-01"'
    )
    assert "value" in refusal(text).text


def test_a_denial_without_a_time_that_can_be_read() -> None:
    fields = (
        'kind = "product"\nvalue = "Milan"\neffect = "deny"\nreason = "r"\nauthor = "a"\ndate = "2026-01-01"'
    )
    assert "from" in refusal(f'[[deny]]\n{fields}\nfrom = "yesterday"').text


def test_a_product_line_overrides_what_holds_for_all() -> None:
    found = parse(
        snp_toml({"products": '["Milan", "Genoa"]'}, "[snp.Milan]\nguest_svn_min = 9\nvmpl = [1]")
    ).snp
    assert found is not None
    assert sorted(found) == ["Genoa", "Milan"]
    assert (found["Milan"].guest_svn_min, found["Genoa"].guest_svn_min) == (9, 0)
    assert (found["Milan"].vmpl, found["Genoa"].vmpl) == (frozenset({1}), frozenset({0}))


@pytest.mark.parametrize(
    "inner", ['products = ["Genoa"]', "[snp.Milan.Genoa]\nvmpl = [1]", "vmlp = [1]", 'firmware_min = "1.55"']
)
def test_an_error_in_an_override_names_the_table_that_it_stands_in(inner: str) -> None:
    """What `[snp.Milan]` could not act upon is not passed over in silence."""
    error = refusal(snp_toml({}, f"[snp.Milan]\n{inner}"))
    assert "wanted.toml: [snp.Milan] " in error.text


def test_a_waiver_in_an_override_is_named_as_such() -> None:
    waived = parse(snp_toml({}, '[snp.Milan]\nfirmware_min = "any"')).waived
    assert "snp.Milan.firmware_min" in waived
    assert "snp.firmware_min" not in waived


def test_an_unknown_table_is_named_beside_those_that_are_known() -> None:
    error = refusal("[nod]\nengine = 1")
    assert "wanted.toml: nod is not a key here; known: collateral, deny, node, nvidia, " in error.text


def test_spellings_of_one_value() -> None:
    """Hex in either case, dates with and without quotes, a byte order mark: one meaning."""
    digest, chip = "ab" * 32, "ab" * 64
    plain = f'''
[[simulated_root]]
name = "x"
product = "Milan"
sha256 = "{digest}"
[[deny]]
kind = "chip"
value = "{chip}"
effect = "deny"
from = "2026-01-01T00:00:00Z"
reason = "r"
author = "a"
date = "2026-01-01"
'''
    other = plain.replace(digest, digest.upper()).replace('"2026-01-01T00:00:00Z"', "2026-01-01T00:00:00Z")
    other = "\ufeff" + other.replace('"2026-01-01"', "2026-01-01").replace("\n", "\r\n")
    assert (parse(other).roots, parse(other).denials) == (parse(plain).roots, parse(plain).denials)
    for wrong in ("2026-01-01", "2026-01-01T00:00:00", "12:00:00", "2026"):
        assert "[deny.0] from" in refusal(plain.replace('"2026-01-01T00:00:00Z"', wrong)).text


def test_an_override_is_checked_even_for_a_product_that_is_not_accepted() -> None:
    assert "nonsense" in refusal(snp_toml({"products": '["Milan"]'}, "[snp.Genoa]\nnonsense = 1")).text


def test_defaults_are_the_safe_ones() -> None:
    policy = (parse(snp_toml()).snp or {})["Milan"]
    assert (policy.debug, policy.migration, policy.revocation) == ("refuse", "refuse", "required")
    assert policy.alias_check == "required-from-v3"
    assert policy.csp_ids == frozenset()
    node = parse(node_toml()).node
    assert node is not None
    assert (node.engine, node.enrolment, node.max_attestation_age) == ("in-tee", "required", DEFAULT_MAX_AGE)


@pytest.mark.parametrize("page", ["snp", "tdx", "gpu"])
def test_what_the_pages_show_can_be_read(page: str) -> None:
    """Digests stand for themselves there: as many digits as they say, or those of a SHA-256."""
    text = (Path(__file__).parents[2] / "docs" / f"attestation-{page}.md").read_text("utf-8")
    shown = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert shown
    for block in shown:
        digits = re.sub(r"<(\d+) hex digits>", lambda found: "a" * int(found[1]), block)
        parse(re.sub(r"<SHA-256[^>]*>", "a" * 64, digits))


def test_the_digest_names_the_exact_bytes(tmp_path: Path) -> None:
    text = simulated_toml()
    file = tmp_path / "expected.toml"
    file.write_text(text)
    assert Expectations.load(file).digest == sha256(text.encode())
    with pytest.raises(ConfigurationError):
        Expectations.load(tmp_path / "absent.toml")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a file without an end")
def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(ConfigurationError, match="/dev/zero: more than"):
        Expectations.load(Path("/dev/zero"))
