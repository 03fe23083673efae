"""Ready-made questions for policy tests: the three domains of the demo and a request."""

from __future__ import annotations

from typing import Any

from schemas.descriptors.tags import PolicyTags
from schemas.policy.facts import RequestContext, Subject
from schemas.policy.packs import CanaryDomain, CanaryRequest
from schemas.policy.policy_set import PolicySet

OPEN = """
@id("MEM-001-active-member")
permit (principal, action == Action::"place", resource) when { resource.status == "active" };
"""


def asking(*, max_price: int | None = None, simulated_allowed: bool = True, **tags: Any) -> RequestContext:
    """A request from clinic.de; tags that are left out take their most restrictive value."""
    return CanaryRequest(
        tags=PolicyTags(**tags), max_price=max_price, simulated_allowed=simulated_allowed
    ).context()


def serving(domain: str = "provider.example", **changes: Any) -> Subject:
    return CanaryDomain(domain=domain, **changes).subject()


def clinic(**changes: Any) -> Subject:
    return serving("clinic.de", **{"jurisdictions": ["DE"], "assurance": 1, "simulated": True} | changes)


def cloud(**changes: Any) -> Subject:
    return serving("cloud.fr", **{"jurisdictions": ["FR"], "assurance": 1, "simulated": True} | changes)


def hyper(**changes: Any) -> Subject:
    base = {"jurisdictions": ["US"], "exposed_to": ["US-CLOUD-Act"], "assurance": 1, "simulated": True}
    return serving("hyper.us", **base | changes)


def forbidding(rule: str, condition: str) -> PolicySet:
    """A set that allows active members but for one forbid."""
    return PolicySet.load(
        OPEN
        + f'@id("{rule}") forbid (principal, action == Action::"place", resource) when {{ {condition} }};',
        "test",
    )


def open_set(name: str = "open") -> PolicySet:
    return PolicySet.load(OPEN, name)
