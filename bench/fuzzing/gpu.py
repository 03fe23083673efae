"""Throw mangled evidence at the GPU room: nothing but our own errors, nothing changed affirmed.

    python -m bench.fuzzing.gpu [--seconds 60] [--seed N] [--corpus DIR]

Starts from forged devices of every chip, with manifests, answers and tokens; how, says
bench.fuzzing.campaign. A changed manifest that is still believed must state the same values.
"""

from __future__ import annotations

import base64
import json
import random
import sys
from dataclasses import dataclass
from typing import Final

from attestation.appraise import appraise_nvidia
from attestation.endorsements import MAX_DOCUMENT_BYTES
from attestation.expected import Expectations
from attestation.gpu.documents import gather
from attestation.gpu.forms import unwrap
from attestation.gpu.nras.check import check_token
from attestation.gpu.pki.roots import NVIDIA_ROOTS
from attestation.gpu.revocation.ocsp import read_response
from attestation.gpu.rim.canonical import read_canonical
from attestation.gpu.rim.manifest import verify_manifest
from attestation.gpu.spdm.report import read_report
from attestation.testing.nvidia import NOW, GpuForge, root_toml
from attestation.testing.nvidia_manifest import manifests_for
from attestation.testing.nvidia_node import SWITCH_VBIOS, VBIOS
from attestation.testing.nvidia_report import NONCE
from attestation.testing.nvidia_status import answers
from attestation.testing.nvidia_token import TokenForge
from bench.fuzzing.campaign import Target, Trial, mangle, run

CHIPS: Final = ("GH100", "GB100", "GB20X", "LS_10")
KEYS: Final = ("driver_min", "vbios", "modes", "confidential", "devtools", "revocation")


@dataclass(frozen=True, slots=True)
class Good:
    """One affirmed case to start from: a report, its chain, its manifests."""

    parts: tuple[bytes, ...]


def target() -> Target:
    goods = [_good(chip) for chip in CHIPS]
    table = "\n".join(["[nvidia]", *(f'{key} = "any"' for key in KEYS), root_toml()])
    expectations = Expectations.parse(table.encode())
    tokens = (TokenForge().token(), TokenForge().key_set())
    return Target(
        seeds=[
            *(part for good in goods for part in good.parts),
            *tokens,
            *_collected(),
            *answers(GpuForge()),
        ],
        readers=(unwrap, read_report, read_response, verify_manifest, read_canonical, _gather, _token),
        appraise=lambda chance: _changed(chance.choice(goods), expectations, chance),
    )


def _good(chip: str) -> Good:
    device = GpuForge(chip)
    vbios = SWITCH_VBIOS if chip == "LS_10" else VBIOS
    return Good((device.report(), device.chain(), *manifests_for(chip, device.driver, vbios)))


def _collected() -> list[bytes]:
    """A device as the vendor's tools write it down, and a report in hex."""
    device = GpuForge()
    parts = {"evidence": device.report(), "certificate": device.chain()}
    listed = [{name: base64.b64encode(data).decode() for name, data in parts.items()}]
    return [json.dumps(listed).encode(), device.report().hex().encode()]


def _changed(good: Good, expectations: Expectations, chance: random.Random) -> Trial:
    parts = list(good.parts)
    index = chance.randrange(len(parts))
    parts[index] = mangle(parts[index], chance)[:MAX_DOCUMENT_BYTES]

    def judge() -> str | None:
        found = appraise_nvidia(
            parts[0], endorsements=parts[1:], expectations=expectations, nonce=NONCE, at=NOW
        )
        if found.verdict != "affirming" or parts[index] == good.parts[index]:
            return None
        if index == 0:
            return "a changed report is affirmed"
        if index > 1 and verify_manifest(good.parts[index]).golden != verify_manifest(parts[index]).golden:
            return "a changed manifest states other values"
        return None

    return Trial(parts[index], judge)


def _gather(data: bytes) -> object:
    return gather((data,))


def _token(data: bytes) -> object:
    return check_token(data, [data], None, NVIDIA_ROOTS, NOW.timestamp(), nonce=None)


if __name__ == "__main__":
    sys.exit(run(__doc__, target))
