"""Throw mangled evidence at the SNP room: nothing but our own errors, nothing changed affirmed.

    python -m bench.fuzzing.snp [--seconds 60] [--seed N] [--corpus DIR]

Starts from forged reports of every product and leaf kind, with their chains and lists; how, says
bench.fuzzing.campaign.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, replace

from attestation.appraise import appraise_node_offline, appraise_snp
from attestation.endorsements import recognise
from attestation.expected import Expectations
from attestation.snp.azure import read_hcl, read_quote
from attestation.snp.forms import unwrap
from attestation.snp.report import REPORT_BYTES, SIGNED_BYTES
from attestation.testing.expectations import snp_toml
from attestation.testing.forge import NOW, Forge
from bench.fuzzing.campaign import Target, Trial, mangle, run


@dataclass(frozen=True, slots=True)
class Good:
    """One affirmed case to start from: a report, then its endorsements."""

    parts: tuple[bytes, ...]


def target() -> Target:
    forges = [Forge.of(product, kind) for product in ("Milan", "Turin") for kind in ("VCEK", "VLEK")]
    forges.append(replace(Forge.of("Genoa"), version=2))
    goods = [Good((forge.report(), *forge.endorsements())) for forge in forges]
    text = snp_toml({"csp_ids": '"any"'}) + "\n".join(forge.root_toml() for forge in forges)
    expectations = Expectations.parse(text.encode())
    return Target(
        seeds=[part for good in goods for part in good.parts],
        readers=(unwrap, recognise, read_hcl, read_quote, _node),
        appraise=lambda chance: _changed(chance.choice(goods), expectations, chance),
    )


def _changed(good: Good, expectations: Expectations, chance: random.Random) -> Trial:
    parts = list(good.parts)
    index = chance.randrange(len(parts))
    parts[index] = mangle(parts[index], chance)

    def judge() -> str | None:
        found = appraise_snp(parts[0], endorsements=parts[1:], expectations=expectations, at=NOW)
        if found.verdict == "affirming" and not _harmless(index, parts[index], good.parts[index]):
            return f"part {index} was changed and is affirmed"
        return None

    return Trial(parts[index], judge)


def _harmless(index: int, changed: bytes, original: bytes) -> bool:
    """Nothing really changed, or nothing of the report that is signed."""
    if index == 0:
        return len(changed) == REPORT_BYTES and changed[:SIGNED_BYTES] == original[:SIGNED_BYTES]
    return changed == original


def _node(data: bytes) -> object:
    return appraise_node_offline(data, at=NOW)


if __name__ == "__main__":
    sys.exit(run(__doc__, target))
