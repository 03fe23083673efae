"""Whatever bytes a parser gets: a value, or one of our own errors. Nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestation.appraise import appraise_node_offline, appraise_snp
from attestation.endorsements import read_table, recognise
from attestation.expected import Expectations
from attestation.pki.x509 import read_certificate, read_crl
from attestation.snp.azure import read_hcl, read_quote
from attestation.snp.forms import unwrap
from attestation.snp.report import REPORT_BYTES, read_report
from attestation.snp.tests.azure.azure_forge import azure_bundle, hcl_blob, make_quote
from attestation.snp.tests.judging import demanding
from attestation.testing.expectations import SNP_KEYS
from attestation.testing.forge import NOW, Forge
from schemas.errors import ConfigurationError, Refused, Unreadable

FORGE = Forge.of("Turin")
SAMPLES = {
    "report": FORGE.report(),
    "leaf": FORGE.leaf(),
    "crl": FORGE.crl(),
    "hcl": hcl_blob(FORGE)[0],
    "quote": make_quote(),
    "bundle": azure_bundle(FORGE),
}
quick = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PARSERS: dict[str, Callable[[bytes], Any]] = {
    "report": read_report,
    "forms": unwrap,
    "endorsement": recognise,
    "table": read_table,
    "certificate": read_certificate,
    "crl": read_crl,
    "hcl": read_hcl,
    "quote": read_quote,
}


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Something real, cut, extended, or overwritten somewhere; or nothing real at all."""
    data = bytearray(draw(st.sampled_from([*SAMPLES.values(), b""])))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "insert", "overwrite"])):
            case "cut":
                del data[at : at + draw(st.integers(0, 64))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=64))
            case _:
                patch = draw(st.binary(max_size=16))
                data[at : at + len(patch)] = patch
    return bytes(data) or draw(st.binary(max_size=2000))


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_raises_only_our_errors(name: str) -> None:
    @quick
    @given(mangled())
    def run(data: bytes) -> None:
        try:
            PARSERS[name](data)
        except (Unreadable, Refused):
            return

    run()


@quick
@given(st.lists(mangled(), max_size=3), st.binary(max_size=8), st.integers(0, REPORT_BYTES - 8))
def test_no_mangled_evidence_is_affirmed_without_its_leaf(
    documents: list[bytes], patch: bytes, at: int
) -> None:
    report = bytearray(SAMPLES["report"])
    report[at : at + len(patch)] = patch
    try:
        found = appraise_snp(
            bytes(report), endorsements=documents, expectations=demanding(FORGE), nonce=None, at=NOW
        )
    except Unreadable:
        return
    assert found.verdict in ("contraindicated", "none")
    assert found.reason is not None


@quick
@given(mangled())
def test_node_evidence(data: bytes) -> None:
    with pytest.raises(Unreadable):
        appraise_node_offline(data, at=NOW)


@quick
@given(st.text(max_size=200))
def test_expectations(text: str) -> None:
    try:
        Expectations.parse(text.encode())
    except ConfigurationError:
        return


toml_values = st.one_of(
    st.integers(-5, 2**64), st.booleans(), st.text(alphabet="ab0\"'", max_size=6).map(repr), st.just('"any"'),
    st.just("[]"), st.just("[1, 'a']"), st.just("{ bl = 1 }"), st.just("1.5"), st.just("1979-05-27"),
).map(lambda value: str(value).lower() if isinstance(value, bool) else str(value))  # fmt: skip


@quick
@given(st.dictionaries(st.sampled_from(sorted(SNP_KEYS)), toml_values))
def test_a_key_of_any_type_is_taken_or_named(changes: dict[str, str]) -> None:
    try:
        demanding(FORGE, **changes)
    except ConfigurationError:
        return
