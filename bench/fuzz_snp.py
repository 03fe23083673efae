"""Throw mangled evidence at the SNP room for a while: nothing but our own errors, nothing affirmed.

    python bench/fuzz_snp.py [--seconds 60] [--seed N] [--corpus DIR]

Starts from forged evidence (and from the files of DIR, e.g. recorded hardware evidence), changes it, and
appraises it. Exits 1 and prints the input in hex where something else escapes, where changed evidence
is affirmed, or where one input takes longer than a second. The seed is printed, so that a run can be
repeated.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from attestation.appraise import appraise_node_offline, appraise_snp
from attestation.endorsements import MAX_DOCUMENT_BYTES, recognise
from attestation.expected import Expectations
from attestation.snp.azure import read_hcl, read_quote
from attestation.snp.forms import unwrap
from attestation.snp.report import REPORT_BYTES, SIGNED_BYTES
from attestation.testing.expectations import snp_toml
from attestation.testing.forge import NOW, Forge
from schemas.errors import Refused, Unreadable

SLOW = 1.0  # seconds that one input may take
INTERESTING = (0, 1, 0x30, 0x7F, 0x80, 0x82, 0xFF)


@dataclass(frozen=True)
class Good:
    """One affirmed case to start from."""

    report: bytes
    endorsements: tuple[bytes, ...]


def mangle(data: bytes, chance: random.Random) -> bytes:
    """The data with up to four changes of the kinds that break parsers."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << chance.randrange(8)
            case 1 if changed:
                changed[at % len(changed)] = chance.choice(INTERESTING)
            case 2:
                del changed[at : at + chance.randint(1, 40)]
            case 3:
                changed[at:at] = chance.randbytes(chance.randint(1, 40))
            case 4:
                source = chance.randrange(len(changed) + 1)
                changed[at:at] = changed[source : source + chance.randint(1, 80)]
            case _:
                changed[at : at + 4] = chance.choice((2**32 - 1, 0x4A0, 0, 1 << 31)).to_bytes(4, "little")
    return bytes(changed)


def attempt(good: Good, expectations: Expectations, chance: random.Random) -> tuple[bytes, str | None]:
    """Change one part, appraise the whole; returns (input, complaint)."""
    parts = [good.report, *good.endorsements]
    index = chance.randrange(len(parts))
    parts[index] = mangle(parts[index], chance)
    if index == 0 and parts[0] == good.report:
        return b"", None
    try:
        found = appraise_snp(parts[0], endorsements=parts[1:], expectations=expectations, at=NOW)
    except Unreadable:
        return b"", None
    if found.verdict == "affirming" and not _harmless(index, parts[index], good):
        return parts[index], f"part {index} was changed and is affirmed"
    return b"", None


def _harmless(index: int, changed: bytes, good: Good) -> bool:
    """Nothing really changed, or what changed is not a report's and was not needed (a leaf twice, say)."""
    original = (good.report, *good.endorsements)[index]
    if index == 0:
        return len(changed) == REPORT_BYTES and changed[:SIGNED_BYTES] == original[:SIGNED_BYTES]
    return changed == original


def parsers(chance: random.Random, seeds: list[bytes]) -> tuple[bytes, str | None]:
    """One parser on one changed document."""
    data = mangle(chance.choice(seeds), chance)[:MAX_DOCUMENT_BYTES]
    read: Callable[[bytes], object] = chance.choice((unwrap, recognise, read_hcl, read_quote, _node))
    try:
        read(data)
    except (Unreadable, Refused):
        return b"", None
    return b"", None


def _node(data: bytes) -> object:
    return appraise_node_offline(data, at=NOW)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--corpus", type=Path)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    forges = [Forge.of(product, kind) for product in ("Milan", "Turin") for kind in ("VCEK", "VLEK")]
    forges.append(replace(Forge.of("Genoa"), version=2))
    goods = [Good(forge.report(), tuple(forge.endorsements())) for forge in forges]
    text = snp_toml({"csp_ids": '"any"'}) + "\n".join(forge.root_toml() for forge in forges)
    expectations = Expectations.parse(text.encode())
    seeds = [part for good in goods for part in (good.report, *good.endorsements)]
    if arguments.corpus:
        files = [file for file in arguments.corpus.rglob("*") if file.is_file()]
        seeds += [data for file in files if len(data := file.read_bytes()) <= MAX_DOCUMENT_BYTES]
    print(f"seed {arguments.seed}, {len(seeds)} documents to start from")
    count, until = 0, time.monotonic() + arguments.seconds
    while time.monotonic() < until:
        start = time.process_time()
        try:
            if count % 2:
                data, complaint = attempt(chance.choice(goods), expectations, chance)
            else:
                data, complaint = parsers(chance, seeds)
        except Exception as error:
            data, complaint = b"", f"{type(error).__name__} escaped at input {count}: {error}"
        if time.process_time() - start > SLOW:
            complaint = f"input {count} took {time.process_time() - start:.1f} s"
        if complaint is not None:
            print(f"seed {arguments.seed}: {complaint}\n{data.hex()}", file=sys.stderr)
            return 1
        count += 1
    print(f"{count} inputs, nothing escaped, nothing changed was affirmed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
