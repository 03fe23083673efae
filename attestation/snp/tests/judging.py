"""What the tests of this room share: one good forged case, of which each test changes one thing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from attestation.appraise import appraise_snp
from attestation.expected import Expectations
from attestation.result import AttestationResult
from attestation.testing.expectations import snp_toml
from attestation.testing.forge import CSP_ID, NOW, Forge

PRODUCTS = ("Milan", "Genoa", "Turin")
KINDS = ("VCEK", "VLEK")


@lru_cache
def expect(text: str) -> Expectations:
    return Expectations.parse(text.encode())


def demanding(forge: Forge, more: str = "", tables: str = "", **changes: str | None) -> Expectations:
    """Complete expectations that the good case meets; changes are TOML for keys of `[snp]`."""
    keys: dict[str, str | None] = {"csp_ids": f'["{CSP_ID}"]', **changes}
    return expect("\n".join([snp_toml(keys, more), forge.root_toml(), tables]))


def judge(
    forge: Forge,
    *,
    report: bytes | None = None,
    endorsements: Sequence[bytes] | None = None,
    expectations: Expectations | None = None,
    nonce: bytes | None = None,
    waive: bool = False,
    at: datetime = NOW,
) -> AttestationResult:
    return appraise_snp(
        forge.report() if report is None else report,
        endorsements=forge.endorsements() if endorsements is None else endorsements,
        expectations=expectations or demanding(forge),
        nonce=nonce,
        waive_revocation=waive,
        at=at,
    )
