"""Throw mangled quotes, collateral and event logs at the TDX room: our own errors alone, nothing affirmed.

    python -m bench.fuzzing.tdx [--seconds 60] [--seed N] [--corpus DIR]

Starts from forged quotes of every version and body, with Intel-shaped collateral; how, says
bench.fuzzing.campaign.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from attestation.appraise import appraise_dcap
from attestation.expected import Expectations
from attestation.tdx.collateral.documents import gather
from attestation.tdx.collateral.stated import read_evaluations, read_qe_identity, read_tcb_info
from attestation.tdx.forms import unwrap
from attestation.tdx.log.replay import read_log
from attestation.tdx.origin.chain import split_pem
from attestation.tdx.origin.pck import read_pck
from attestation.tdx.quote import Tee, read_quote
from attestation.testing.intel import IntelForge, pem
from attestation.testing.intel_documents import NOW
from bench.fuzzing.campaign import Target, Trial, mangle, run

SHAPES: Final = ("v3 sgx", "v4", "v5 td10", "v5 td15", "v5 sgx")
READERS: Final[tuple[Callable[[bytes], object], ...]] = (
    read_quote, read_log, read_pck, split_pem, read_tcb_info, read_qe_identity, read_evaluations, unwrap,
    lambda data: gather((data,)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Good:
    """One affirmed case to start from."""

    tee: Tee
    parts: tuple[bytes, ...]
    """The quote, then its collateral in pieces."""
    expectations: Expectations


def target() -> Target:
    goods, forge = [_good(shape) for shape in SHAPES], IntelForge()
    documents = (
        forge.collateral(), *forge.documents(), forge.evaluations(), forge.sgx_extension(),
        pem(*forge.chain()), json.dumps({"quote": forge.quote().hex(), "event_log": "[]"}).encode(),
    )  # fmt: skip
    return Target(
        seeds=[*(part for good in goods for part in good.parts), *documents],
        readers=READERS,
        appraise=lambda chance: _changed(chance.choice(goods), chance),
    )


def _good(shape: str) -> Good:
    forge = IntelForge(shape=shape)
    tee: Tee = "sgx" if "sgx" in shape else "tdx"
    names = ("mrenclave", "mrsigner", "attributes", "isvprodid", "isvsvn_min") if tee == "sgx" else (
        "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrseam",
        "mrsignerseam", "td_attributes", "xfam",
    )  # fmt: skip
    keys = "\n".join(f'{name} = "any"' for name in (*names, "report_data", "tcb_date_min"))
    root = f'[[{tee}.simulated_root]]\nname = "forge"\nsha256 = "{forge.root_digest}"'
    expectations = Expectations.parse(f"[{tee}]\n{keys}\n{root}".encode())
    return Good(tee, (forge.quote(), *forge.pieces(), forge.evaluations()), expectations)


def _changed(good: Good, chance: random.Random) -> Trial:
    parts = list(good.parts)
    index = chance.randrange(len(parts))
    parts[index] = mangle(parts[index], chance)

    def judge() -> str | None:
        found = appraise_dcap(
            parts[0], tee=good.tee, endorsements=parts[1:], expectations=good.expectations, at=NOW
        )
        if found.verdict == "affirming" and index == 0 and not _same(good.parts[0], parts[0]):
            return "a quote was changed and is affirmed"
        return None

    return Trial(parts[index], judge)


def _same(before: bytes, after: bytes) -> bool:
    """Everything that is signed, or signs, is as before: only the tail and white space in PEM are free."""
    one, other = read_quote(before), read_quote(after)
    signs = one.certification_type == other.certification_type == 5 and split_pem(
        one.certification
    ) == split_pem(other.certification)
    return signs and (one.signed, one.signature, one.attestation_key, one.qe.raw, one.qe_signature) == (
        other.signed, other.signature, other.attestation_key, other.qe.raw, other.qe_signature
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(__doc__, target))
