"""Fixtures: a federation founded once, and logs in a fresh folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from receipts.log import TransparencyLog
from receipts.tests.world import CLINIC, Domain, Federation
from receipts.verify import Claim, Report
from schemas.errors import ComityError, Refused, Unreadable


@pytest.fixture(scope="session")
def federation() -> Federation:
    return Federation.found()


@pytest.fixture(scope="session")
def good(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bundle of one good request, played once."""
    return asyncio.run(federation.play(tmp_path_factory.mktemp("good")))


@pytest.fixture
def clinic() -> Domain:
    return Domain.make(CLINIC)


@pytest.fixture
async def log(clinic: Domain, tmp_path: Path) -> AsyncIterator[TransparencyLog]:
    opened = await clinic.open(tmp_path)
    yield opened
    await opened.close()


def vectors() -> Path:
    """Where third-party vectors lie: `$COMITY_VECTORS`, by default beside the checkout."""
    default = Path(__file__).parents[3] / "shared" / "vectors"
    return Path(os.environ.get("COMITY_VECTORS") or default)


def code_of(call: Callable[[], object]) -> str:
    """The reason why `call` was turned away: a parser or verifier has these two ways to say no."""
    with pytest.raises(ComityError) as turned_away:
        call()
    assert isinstance(turned_away.value, Unreadable | Refused)
    return turned_away.value.code


async def refusal(waiting: object) -> str:
    """The reason code that an awaited call was turned away with."""
    with pytest.raises(ComityError) as turned_away:
        await waiting  # type: ignore[misc]
    return turned_away.value.code


def verdict(report: Report, kind: str, name: str) -> tuple[str, str | None]:
    """(verdict, reason code) of one claim of one receipt."""
    claim = claim_of(report, kind, name)
    return claim.label, claim.code


def claim_of(report: Report, kind: str, name: str) -> Claim:
    """One claim of the only receipt of its kind."""
    (found,) = [receipt for receipt in report.receipts if receipt.kind == kind]
    (claim,) = [claim for claim in found.claims if claim.name == name]
    return claim
