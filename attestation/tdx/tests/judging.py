"""What the tests share: one good forged case, judged under expectations that accept its root alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

from attestation.appraise import appraise_dcap
from attestation.expected import Expectations
from attestation.result import AttestationResult
from attestation.tdx.collateral.rollback import Marks
from attestation.tdx.quote import Tee
from attestation.testing.intel import IntelForge
from attestation.testing.intel_documents import NOW
from attestation.testing.intel_quote import GOOD_TD

GOOD = IntelForge()
SGX = IntelForge(shape="v3 sgx")
TD15 = IntelForge(shape="v5 td15")
TD15_EX = IntelForge(shape="v5 td15ex")

TDX_KEYS = {
    "mrtd": f'["{GOOD_TD["mrtd"].hex()}"]',
    **{f"rtmr{i}": '"any"' for i in range(4)},
    **dict.fromkeys(("mrconfigid", "mrowner", "mrownerconfig", "mrseam", "mrsignerseam"), '"any"'),
    "report_data": '"any"',
    "td_attributes": '"any"',
    "xfam": '"any"',
    "tcb_date_min": '"any"',
}
SGX_KEYS = dict.fromkeys(
    ("mrenclave", "mrsigner", "report_data", "attributes", "isvprodid", "isvsvn_min", "tcb_date_min"), '"any"'
)


def toml(forge: IntelForge, **changes: str | None) -> str:
    """A complete table that the good case meets; a change of None leaves a key out."""
    keys = {**(TDX_KEYS if forge.tee == "tdx" else SGX_KEYS), **changes}
    lines = [f"[{forge.tee}]", *(f"{key} = {value}" for key, value in keys.items() if value is not None)]
    root = f'[[{forge.tee}.simulated_root]]\nname = "forge"\nsha256 = "{forge.root_digest}"\n'
    return "\n".join([*lines, root])


@lru_cache
def expect(text: str) -> Expectations:
    return Expectations.parse(text.encode())


def judge(
    forge: IntelForge,
    *,
    quote: bytes | None = None,
    endorsements: Sequence[bytes] | None = None,
    nonce: bytes | None = None,
    waive: bool = False,
    at: datetime = NOW,
    evaluation: int | None = None,
    event_logs: Sequence[bytes] = (),
    marks: Marks | None = None,
    **expected: str | None,
) -> AttestationResult:
    return appraise_dcap(
        forge.quote() if quote is None else quote,
        tee=cast(Tee, forge.tee),
        endorsements=[forge.collateral()] if endorsements is None else endorsements,
        expectations=expect(toml(forge, **expected)),
        nonce=nonce,
        waive_revocation=waive,
        at=at,
        evaluation=evaluation,
        event_logs=event_logs,
        marks=marks,
    )


def but(forge: IntelForge = GOOD, /, **changes: Any) -> IntelForge:
    """The case with these fields replaced."""
    return replace(forge, **changes)


def codes(result: AttestationResult) -> list[str]:
    """Codes of everything that speaks against it, without the room's name."""
    found = [check for check in result.checks if check.effect != "shown"]
    return [(check.code or "").removeprefix("tdx.") for check in found]
