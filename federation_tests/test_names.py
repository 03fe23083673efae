"""Comity's rooms are top-level packages: no other installed distribution may own one of their names."""

from __future__ import annotations

from importlib.metadata import packages_distributions

import pytest

OURS = ("comity", "schemas", "federation", "attestation", "receipts", "domain_agent", "broker")


@pytest.mark.parametrize("name", OURS)
def test_no_other_distribution_owns_the_name(name: str) -> None:
    owners = set(packages_distributions().get(name, ())) - {"comity"}
    assert not owners, f"{name} is shadowed by {owners}: install Comity in an environment of its own"
