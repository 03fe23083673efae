"""What this room remembers within a process: parsed certificates, verified chains and CRLs.

Only pure functions of bytes are remembered, never a verdict about time or expectations; every bound
is a constant beside its cache. Forgetting costs time and changes no answer.
"""

from __future__ import annotations

from functools import _lru_cache_wrapper
from typing import cast

from attestation import der, endorsements, x509
from attestation.snp import appraise, chain, policy, report, revocation, verify


def caches() -> tuple[_lru_cache_wrapper[object], ...]:
    """Every function of this room that remembers."""
    return cast(
        "tuple[_lru_cache_wrapper[object], ...]",
        (
            der.common_name,
            endorsements._gather,
            endorsements._recognise,
            x509.read_certificate,
            x509.read_crl,
            x509._hex_digest,
            report.read_standing,
            chain._verify_chain,
            chain._leaf_claims,
            revocation.verify_crl,
            verify._binding,
            verify._linked,
            policy.check_standing,
            policy.advisories,
            appraise._layout,
            appraise._kept,
        ),
    )


def forget() -> None:
    """Empty every cache: for measurements, and for tests that count."""
    for function in caches():
        function.cache_clear()
