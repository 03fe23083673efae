"""The charter is the outer bound of what a domain may expect: it narrows, nothing widens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attestation.expected import Expectations
from attestation.gpu.tests.judging import KEYS
from attestation.node.tests.test_appraise_node import (
    ENGINE,
    MODEL,
    Question,
    evidence,
    expectations,
    question,
)
from attestation.snp.origin.chain import Roots
from attestation.tdx.tests.judging import TDX_KEYS
from attestation.tests.charter import Charter
from schemas.errors import ConfigurationError

__all__ = ["question"]
NONE = "00" * 32


OPEN = {"engine_digests": None, "models": None, "snp": {"measurement": '"any"'}}


@pytest.mark.parametrize("own", [{}, OPEN], ids=["stated", "any"])
@pytest.mark.parametrize(
    ("charter", "reason"),
    [
        (Charter(), None),
        (Charter(measurements=(bytes(48),)), "snp.measurement.mismatch"),
        (Charter(engines=[NONE]), "node.engine_not_listed"),
        (Charter(models=[NONE]), "node.model_not_listed"),
        (Charter(models=[]), "node.model_not_listed"),
    ],
)
def test_only_what_is_published_counts(
    question: Question, own: dict[str, object], charter: Charter, reason: str | None
) -> None:
    question.expectations = charter.bound(expectations(**own))
    assert question.ask(evidence()).reason == reason


def test_a_domain_may_ask_for_less_than_is_published(question: Question) -> None:
    charter = Charter(models=[MODEL, NONE], engines=[ENGINE, NONE])
    question.expectations = charter.bound(expectations(models={"chat.small/demo": [NONE]}))
    assert question.ask(evidence()).reason == "node.model_not_listed"


def test_a_simulated_root_that_the_charter_does_not_list_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError) as error:
        Charter(roots=[]).bound(expectations())
    assert "not listed in the charter" in error.value.text


def test_the_same_bounds_give_the_same_expectations() -> None:
    """So that what is remembered of a guest is found again, and a change of what is published is not."""
    own = expectations()
    assert Charter().bound(own) is Charter().bound(own)
    assert Charter().bound(own) is not Charter(models=[NONE]).bound(own)


@pytest.mark.parametrize(
    ("vendors", "reason"),
    [
        (["amd-sev-snp"], None),
        ([], "snp.chain.root_unpinned"),
        (["intel-tdx", "nvidia"], "snp.chain.root_unpinned"),
    ],
)
def test_a_vendor_that_the_charter_does_not_accept_proves_nothing(
    question: Question, vendors: list[str], reason: str | None
) -> None:
    """The forged vendor stands in the place of AMD: a root of the code, not a listed one."""
    own = expectations()
    genuine = {
        digest: (name, replace(pin, simulated=False)) for digest, (name, pin) in own.roots.pins.items()
    }
    question.expectations = Charter(vendors=vendors).bound(replace(own, roots=Roots(genuine)))
    assert question.ask(evidence()).reason == reason


QUOTES = "\n".join(
    ["[tdx]", *(f'{key} = "any"' for key in TDX_KEYS), "[nvidia]", *(f'{key} = "any"' for key in KEYS)]
)


@pytest.mark.parametrize("vendors", [[], ["intel-tdx"], ["nvidia"], ["amd-sev-snp", "intel-tdx", "nvidia"]])
def test_only_the_roots_of_accepted_vendors_are_left(vendors: list[str]) -> None:
    bound = Charter(vendors=vendors).bound(Expectations.parse(QUOTES.encode()))
    assert bound.tdx is not None
    assert bound.nvidia is not None
    left = {
        "amd-sev-snp": bound.roots.pins,
        "intel-tdx": bound.tdx.roots.pins,
        "nvidia": {**bound.nvidia.roots.device, **bound.nvidia.roots.manifest},
    }
    assert {vendor for vendor, pins in left.items() if pins} == set(vendors)
