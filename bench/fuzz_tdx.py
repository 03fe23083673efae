"""Throw mangled quotes, collateral and event logs at the TDX room: our own errors alone, nothing affirmed.

    python bench/fuzz_tdx.py [--seconds 60] [--seed N] [--corpus DIR]

Starts from forged evidence (and from the files of DIR, e.g. recorded hardware evidence), changes it, and
appraises it. Exits 1 and prints the input in hex where something else escapes, where a quote whose signed
bytes were changed is affirmed, or where one input takes longer than a second. The seed is printed.
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

from attestation.appraise import appraise_dcap
from attestation.endorsements import MAX_DOCUMENT_BYTES
from attestation.expected import Expectations
from attestation.tdx.collateral.documents import gather
from attestation.tdx.collateral.stated import read_qe_identity, read_tcb_info
from attestation.tdx.log.replay import read_log
from attestation.tdx.origin.chain import split_pem
from attestation.tdx.origin.pck import read_pck
from attestation.tdx.quote import Tee, read_quote
from attestation.testing.intel import IntelForge, pem
from attestation.testing.intel_documents import NOW
from bench.fuzz_snp import SLOW, mangle
from schemas.errors import Refused, Unreadable

SHAPES = ("v3 sgx", "v4", "v5 td10", "v5 td15", "v5 sgx")


@dataclass(frozen=True)
class Good:
    """One affirmed case to start from."""

    tee: Tee
    parts: tuple[bytes, ...]
    """The quote, then its collateral in pieces."""
    expectations: Expectations


def good(shape: str) -> Good:
    forge = IntelForge(shape=shape)
    tee: Tee = "sgx" if "sgx" in shape else "tdx"
    names = ("mrenclave", "mrsigner", "attributes", "isvprodid", "isvsvn_min") if tee == "sgx" else (
        "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrseam",
        "mrsignerseam", "td_attributes", "xfam",
    )  # fmt: skip
    keys = "\n".join(f'{name} = "any"' for name in (*names, "report_data", "tcb_date_min"))
    root = f'[[{tee}.simulated_root]]\nname = "forge"\nsha256 = "{forge.root_digest}"'
    return Good(
        tee, (forge.quote(), *forge.pieces()), Expectations.parse(f"[{tee}]\n{keys}\n{root}".encode())
    )


def attempt(case: Good, chance: random.Random) -> tuple[bytes, str | None]:
    """Change one part, appraise the whole; returns (input, complaint)."""
    parts = list(case.parts)
    index = chance.randrange(len(parts))
    parts[index] = mangle(parts[index], chance)
    try:
        found = appraise_dcap(
            parts[0], tee=case.tee, endorsements=parts[1:], expectations=case.expectations, at=NOW
        )
    except Unreadable:
        return b"", None
    if found.verdict == "affirming" and index == 0 and not _same(case.parts[0], parts[0]):
        return parts[0], "a quote was changed and is affirmed"
    return b"", None


def _same(before: bytes, after: bytes) -> bool:
    """Everything that is signed, or signs, is as before: only the tail and white space in PEM are free."""
    one, other = read_quote(before), read_quote(after)
    signs = one.certification_type == other.certification_type == 5 and split_pem(
        one.certification
    ) == split_pem(other.certification)
    return signs and (one.signed, one.signature, one.attestation_key, one.qe.raw, one.qe_signature) == (
        other.signed, other.signature, other.attestation_key, other.qe.raw, other.qe_signature
    )  # fmt: skip


READERS: tuple[Callable[[bytes], object], ...] = (
    read_quote, read_log, read_pck, split_pem, read_tcb_info, read_qe_identity, lambda data: gather((data,)),
)  # fmt: skip


def parse(seeds: list[bytes], chance: random.Random) -> tuple[bytes, str | None]:
    """One reader on one changed document."""
    data = mangle(chance.choice(seeds), chance)[:MAX_DOCUMENT_BYTES]
    try:
        chance.choice(READERS)(data)
    except (Unreadable, Refused):
        return b"", None
    return b"", None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--corpus", type=Path)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    goods = [good(shape) for shape in SHAPES]
    forge = IntelForge()
    seeds = [part for case in goods for part in case.parts]
    seeds += [forge.collateral(), *forge.documents(), forge.sgx_extension(), pem(*forge.chain())]
    if arguments.corpus:
        files = [file for file in arguments.corpus.rglob("*") if file.is_file()]
        seeds += [data for file in files if len(data := file.read_bytes()) <= MAX_DOCUMENT_BYTES]
    print(f"seed {arguments.seed}, {len(seeds)} documents to start from")
    count, until = 0, time.monotonic() + arguments.seconds
    while time.monotonic() < until:
        start = time.process_time()
        try:
            data, complaint = attempt(chance.choice(goods), chance) if count % 2 else parse(seeds, chance)
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
