"""The charter is the outer bound of what a domain may expect: it narrows, nothing widens."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from attestation.expected import Expectations
from attestation.narrow import narrow
from attestation.node.tests.test_appraise_node import (
    ENGINE,
    MODEL,
    NOW,
    Question,
    evidence,
    expectations,
    question,
    vendor,
)
from attestation.testing.forge import MEASUREMENT
from schemas.errors import ConfigurationError
from schemas.papers.trust import FederationTrust

__all__ = ["question"]
NONE = "00" * 32


@dataclass
class Charter:
    """What `narrow` reads of a federation's trust."""

    measurement: str = MEASUREMENT.hex()
    engines: list[str] = field(default_factory=lambda: [ENGINE])
    models: list[str] = field(default_factory=lambda: [MODEL])
    roots: list[str] = field(default_factory=lambda: [vendor().root_digest])

    def bound(self, own: Expectations) -> Expectations:
        value = SimpleNamespace(
            measurement=self.measurement, engine_digests=self.engines, model_digests=self.models
        )
        trust = SimpleNamespace(
            charter=SimpleNamespace(simulated_roots=[SimpleNamespace(sha256=root) for root in self.roots]),
            reference_values_at=lambda at: [value],
        )
        return narrow(own, cast(FederationTrust, trust), NOW)


OPEN = {"engine_digests": None, "models": None, "snp": {"measurement": '"any"'}}


@pytest.mark.parametrize("own", [{}, OPEN], ids=["stated", "any"])
@pytest.mark.parametrize(
    ("charter", "reason"),
    [
        (Charter(), None),
        (Charter(measurement="00" * 48), "snp.measurement.mismatch"),
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
