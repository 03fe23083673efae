"""Faults in otherwise good forged evidence: the registry, and the two commonest ways to make one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from attestation.result import AttestationResult
from attestation.snp.tests.judging import demanding, judge
from attestation.testing.forge import Forge

MILAN = Forge.of("Milan")
GENOA = Forge.of("Genoa")
TURIN = Forge.of("Turin")
VLEK = Forge.of("Milan", "VLEK")
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Fault:
    code: str
    name: str
    make: Callable[[], AttestationResult]
    verdict: str = "contraindicated"


FAULTS: list[Fault] = []


def fault(
    code: str, verdict: str = "contraindicated"
) -> Callable[[Callable[[], AttestationResult]], Callable[[], AttestationResult]]:
    def remember(make: Callable[[], AttestationResult]) -> Callable[[], AttestationResult]:
        FAULTS.append(Fault(code, make.__name__, make, verdict))
        return make

    return remember


def stating(code: str, forge: Forge = MILAN, verdict: str = "contraindicated", **fields: Any) -> None:
    """The report states something else, and is signed all the same."""
    name = f"{forge.product.name}-{forge.kind}-" + ",".join(
        f"{key}={value!r:.40}" for key, value in fields.items()
    )
    FAULTS.append(Fault(code, name, lambda: judge(forge, report=forge.report(**fields)), verdict))


def asking(code: str, forge: Forge = MILAN, verdict: str = "contraindicated", **keys: str) -> None:
    """The expectations ask for something else."""
    name = f"{forge.product.name}-{forge.kind}-" + ",".join(
        f"{key} = {value:.40}" for key, value in keys.items()
    )
    FAULTS.append(Fault(code, name, lambda: judge(forge, expectations=demanding(forge, **keys)), verdict))
