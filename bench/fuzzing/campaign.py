"""One campaign: change what is good, judge it, and complain of the first thing that should not be.

    python -m bench.fuzzing.snp [--seconds 60] [--seed N] [--corpus DIR]

Exits 1 and prints the input in hex where anything but our own errors escapes, where what was changed is
believed, or where one input takes longer than a second. The seed is printed, so that a run can be
repeated; `--corpus` adds files to start from, for example recorded hardware evidence.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from attestation.endorsements import MAX_DOCUMENT_BYTES
from schemas.errors import ComityError

SLOW_S: Final = 1.0  # seconds of processor time that one input may take
INTERESTING: Final = (0, 1, 0x30, 0x7F, 0x80, 0x82, 0xFF)
LENGTHS: Final = (2**32 - 1, 0x4A0, 0, 1 << 31)


@dataclass(frozen=True, slots=True)
class Trial:
    """One changed input and how it is judged."""

    data: bytes
    judge: Callable[[], str | None]
    """Says what is wrong, or None. One of our own errors is a proper refusal."""


@dataclass(frozen=True, slots=True)
class Target:
    """A room under fire."""

    seeds: Sequence[bytes]
    """Documents of which single readers get a changed one."""
    readers: Sequence[Callable[[bytes], object]]
    appraise: Callable[[random.Random], Trial]
    """A good case with one part changed, to be appraised whole."""


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
                changed[at : at + 4] = chance.choice(LENGTHS).to_bytes(4, "little")
    return bytes(changed)


def run(description: str | None, make: Callable[[], Target]) -> int:
    """The command: fire at the target for so many seconds. Returns the exit code."""
    arguments = _arguments(description)
    chance, target = random.Random(arguments.seed), make()
    seeds = [*target.seeds, *_corpus(arguments.corpus)]
    print(f"seed {arguments.seed}, {len(seeds)} documents to start from", flush=True)
    count, until = 0, time.monotonic() + arguments.seconds
    while time.monotonic() < until:
        trial = target.appraise(chance) if count % 2 else _reading(target.readers, seeds, chance)
        complaint = _fire(trial)
        if complaint is not None:
            print(f"seed {arguments.seed}, input {count}: {complaint}\n{trial.data.hex()}", file=sys.stderr)
            return 1
        count += 1
    print(f"{count} inputs, nothing escaped, nothing changed was affirmed")
    return 0


def _reading(
    readers: Sequence[Callable[[bytes], object]], seeds: Sequence[bytes], chance: random.Random
) -> Trial:
    """One reader on one changed document."""
    data, read = mangle(chance.choice(seeds), chance)[:MAX_DOCUMENT_BYTES], chance.choice(readers)

    def judge() -> None:
        read(data)

    return Trial(data, judge)


def _fire(trial: Trial) -> str | None:
    began = time.process_time()
    try:
        complaint = trial.judge()
    except ComityError:
        complaint = None
    except Exception as error:
        complaint = f"{type(error).__name__} escaped: {error}"
    took = time.process_time() - began
    return complaint or (f"took {took:.1f} s" if took > SLOW_S else None)


def _arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--corpus", type=Path, help="a folder of further documents to start from")
    return parser.parse_args()


def _corpus(folder: Path | None) -> list[bytes]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()] if folder else []
    return [data for file in files if len(data := file.read_bytes()) <= MAX_DOCUMENT_BYTES]
