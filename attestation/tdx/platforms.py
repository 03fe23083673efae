"""Which platforms a relying party lets in, by what their PCK certificate says of them (`[tdx]`, `[sgx]`).

Every rule is optional: without one every platform that Intel vouches for may serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from attestation.result import Check, compared, not_evaluated
from attestation.tdx.origin.pck import SGX_TYPES, PckClaims
from attestation.toml import Table
from schemas.canonical import sha256

FLAGS: Final = ("dynamic_platform", "cached_keys", "smt_enabled")
_CLAUSE: Final = "Intel PCK certificate profile: SGX extension"
_FMSPC_BYTES: Final = 6
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class PlatformRules:
    """Allow-lists (None = everything) and deny-lists. A platform is named by SHA-256 of its PPID."""

    fmspcs: frozenset[bytes] | None = None
    fmspcs_denied: frozenset[bytes] = frozenset()
    platforms: frozenset[bytes] | None = None
    platforms_denied: frozenset[bytes] = frozenset()
    sgx_types: frozenset[str] | None = None
    refused: frozenset[str] = frozenset()
    """Of `FLAGS`: a platform that states one of them is refused, as is one that does not say."""


NO_RULES: Final = PlatformRules()


def read_rules(table: Table) -> PlatformRules:
    """The optional keys about platforms. Raises `ConfigurationError`."""
    return PlatformRules(
        fmspcs=_listed(table, "fmspcs", _FMSPC_BYTES),
        fmspcs_denied=_listed(table, "fmspcs_denied", _FMSPC_BYTES) or frozenset(),
        platforms=_listed(table, "platforms", _DIGEST_BYTES),
        platforms_denied=_listed(table, "platforms_denied", _DIGEST_BYTES) or frozenset(),
        sgx_types=table.names("sgx_types", frozenset(SGX_TYPES.values()))
        if table.states("sgx_types")
        else None,
        refused=table.names("platform_refused", FLAGS, []) or frozenset(),
    )


def _listed(table: Table, key: str, size: int) -> frozenset[bytes] | None:
    return table.digests(key, size) if table.states(key) else None


def check_platform(claims: PckClaims | None, rules: PlatformRules) -> Check:
    """One check over all rules. Its text names each that does not hold."""
    name = "tdx.policy.platform"
    if rules == NO_RULES:
        return not_evaluated(name, "nothing demanded", _CLAUSE)
    if claims is None:
        return not_evaluated(name, "no chain", _CLAUSE)
    wrong = _wrong(claims, rules)
    seen = ", ".join(wrong) or f"FMSPC {claims.fmspc.hex()}, {SGX_TYPES[claims.sgx_type]}"
    return compared(name, "tdx.platform_not_allowed", not wrong, seen, "as the rules say", _CLAUSE)


def _wrong(claims: PckClaims, rules: PlatformRules) -> list[str]:
    platform, kind = sha256(claims.ppid), SGX_TYPES[claims.sgx_type]
    found = {
        f"FMSPC {claims.fmspc.hex()} is not listed": rules.fmspcs is None or claims.fmspc in rules.fmspcs,
        f"FMSPC {claims.fmspc.hex()} is denied": claims.fmspc not in rules.fmspcs_denied,
        f"platform {platform.hex()} is not listed": rules.platforms is None or platform in rules.platforms,
        f"platform {platform.hex()} is denied": platform not in rules.platforms_denied,
        f"SGX type {kind}": rules.sgx_types is None or kind in rules.sgx_types,
    }
    flags = [flag for flag in FLAGS if flag in rules.refused and getattr(claims, flag) is not False]
    return [*(text for text, holds in found.items() if not holds), *flags]
