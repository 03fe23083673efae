"""Throw mangled evidence at the GPU room for a while: nothing but our own errors, nothing changed affirmed.

    python bench/fuzz_gpu.py [--seconds 60] [--seed N] [--corpus DIR]

Starts from forged devices, manifests, answers and tokens (and from the files of DIR, e.g. recorded hardware
evidence). Exits 1 and prints the input in hex where something else escapes, where a changed report is
affirmed, where a changed manifest states other values, or where one input takes longer than a second.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from attestation.appraise import appraise_nvidia
from attestation.endorsements import MAX_DOCUMENT_BYTES
from attestation.expected import Expectations
from attestation.gpu.documents import gather
from attestation.gpu.forms import unwrap
from attestation.gpu.nras.check import check_token
from attestation.gpu.pki.roots import NVIDIA_ROOTS
from attestation.gpu.revocation.ocsp import read_response
from attestation.gpu.rim.manifest import verify_manifest
from attestation.gpu.spdm.report import read_report
from attestation.testing.nvidia import NOW, GpuForge, root_toml
from attestation.testing.nvidia_manifest import manifests_for
from attestation.testing.nvidia_node import SWITCH_VBIOS, VBIOS
from attestation.testing.nvidia_report import NONCE
from attestation.testing.nvidia_token import TokenForge
from bench.fuzz_snp import SLOW, mangle
from schemas.errors import Refused, Unreadable

KEYS = ("driver_min", "vbios", "modes", "confidential", "devtools", "revocation")


@dataclass(frozen=True)
class Good:
    """One affirmed case to start from."""

    report: bytes
    endorsements: tuple[bytes, ...]


def goods() -> list[Good]:
    found = []
    for chip in ("GH100", "GB100", "GB20X", "LS_10"):
        device = GpuForge(chip)
        vbios = SWITCH_VBIOS if chip == "LS_10" else VBIOS
        documents = (device.chain(), *manifests_for(chip, device.driver, vbios))
        found.append(Good(device.report(), documents))
    return found


def attempt(good: Good, expectations: Expectations, chance: random.Random) -> tuple[bytes, str | None]:
    """Change one part, appraise the whole; returns (input, complaint)."""
    parts = [good.report, *good.endorsements]
    index = chance.randrange(len(parts))
    changed = parts[index] = mangle(parts[index], chance)
    if len(changed) > MAX_DOCUMENT_BYTES or (index == 0 and changed == good.report):
        return b"", None
    try:
        found = appraise_nvidia(
            parts[0], endorsements=parts[1:], expectations=expectations, nonce=NONCE, at=NOW
        )
    except Unreadable:
        return b"", None
    if found.verdict == "affirming" and index == 0:
        return changed, "a changed report is affirmed"
    if (
        found.verdict == "affirming"
        and index > 1
        and not _says_the_same(good.endorsements[index - 1], changed)
    ):
        return changed, "a changed manifest states other values"
    return b"", None


def _says_the_same(original: bytes, changed: bytes) -> bool:
    return verify_manifest(original).golden == verify_manifest(changed).golden


def parsers(chance: random.Random, seeds: list[bytes]) -> tuple[bytes, str | None]:
    """One parser on one changed document."""
    data = mangle(chance.choice(seeds), chance)[:MAX_DOCUMENT_BYTES]
    read: Callable[[bytes], object] = chance.choice(
        (unwrap, read_report, read_response, verify_manifest, _gather, _token)
    )
    try:
        read(data)
    except (Unreadable, Refused):
        return b"", None
    return b"", None


def _gather(data: bytes) -> object:
    return gather((data,))


def _token(data: bytes) -> object:
    return check_token(data, [data], None, NVIDIA_ROOTS, NOW.timestamp(), nonce=None)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--corpus", type=Path)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    start = goods()
    table = "\n".join(["[nvidia]", *(f'{key} = "any"' for key in KEYS), root_toml()])
    expectations = Expectations.parse(table.encode())
    seeds = [part for good in start for part in (good.report, *good.endorsements)]
    seeds += [TokenForge().token(), TokenForge().key_set()]
    if arguments.corpus:
        files = [file for file in arguments.corpus.rglob("*") if file.is_file()]
        seeds += [data for file in files if len(data := file.read_bytes()) <= MAX_DOCUMENT_BYTES]
    print(f"seed {arguments.seed}, {len(seeds)} documents to start from")
    count, until = 0, time.monotonic() + arguments.seconds
    while time.monotonic() < until:
        began = time.process_time()
        try:
            if count % 2:
                data, complaint = attempt(chance.choice(start), expectations, chance)
            else:
                data, complaint = parsers(chance, seeds)
        except Exception as error:
            data, complaint = b"", f"{type(error).__name__} escaped at input {count}: {error}"
        if time.process_time() - began > SLOW:
            complaint = f"input {count} took {time.process_time() - began:.1f} s"
        if complaint is not None:
            print(f"seed {arguments.seed}: {complaint}\n{data.hex()}", file=sys.stderr)
            return 1
        count += 1
    print(f"{count} inputs, nothing escaped, nothing changed was affirmed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
