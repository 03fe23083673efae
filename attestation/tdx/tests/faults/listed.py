"""Faults in otherwise good forged evidence: what each is, and the reason and verdict that it deserves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attestation.result import AttestationResult
from attestation.tdx.tests.judging import GOOD, but, judge
from attestation.testing.intel import IntelForge


@dataclass(frozen=True)
class Fault:
    code: str
    """Without the room's name."""
    name: str
    make: Callable[[], AttestationResult]
    verdict: str = "contraindicated"


FAULTS: list[Fault] = []


def fault(
    code: str, name: str, make: Callable[[], AttestationResult], verdict: str = "contraindicated"
) -> None:
    FAULTS.append(Fault(code, name, make, verdict))


def made(
    code: str, name: str, forge: IntelForge = GOOD, /, verdict: str = "contraindicated", **fields: Any
) -> None:
    """The forge with these fields replaced, judged as if nothing had happened."""
    FAULTS.append(Fault(code, name, lambda: judge(but(forge, **fields)), verdict))


def asking(code: str, name: str, forge: IntelForge = GOOD, /, **keys: Any) -> None:
    """Good evidence under expectations that ask for something else."""
    FAULTS.append(Fault(code, name, lambda: judge(forge, **keys)))


def turned(data: bytes, at: int, bit: int = 0) -> bytes:
    """The data with one bit turned; a negative position counts from the end."""
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)
