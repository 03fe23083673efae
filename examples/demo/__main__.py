"""`make demo`: found three domains, start them, play seven scenes, stop them, and audit what is left.

Exit code 0 only if every scene holds; 1 with what was seen otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import openai
from rich.console import Console

from examples.demo import show
from examples.demo.audit import audit
from examples.demo.journal import write_journal
from examples.demo.requests import health_data, nobody_may, personal_data, public_question
from examples.demo.stage import CLOUD, ROGUE, DoesNotHold, Stage
from examples.demo.trouble import killed, lying_and_revoked
from examples.launch import launched
from examples.simulated import found_simulated
from examples.workplace import fresh_folder, waited
from federation.found import Founded
from schemas.errors import ComityError

Scene = Callable[[Stage], Awaitable[None]]

LIVE: Final[tuple[Scene, ...]] = (
    public_question, personal_data, health_data, nobody_may, lying_and_revoked, killed,
)  # fmt: skip
AUDIT: Final = 7
NEEDED_BY_AUDIT: Final = (1, 6)
"""Scenes whose receipts the audit cannot do without."""
RUN: Final = Path("run")


def main() -> int:
    """Play. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description="Seven scenes with three domains.")
    parser.add_argument("--scene", type=int, choices=range(1, 8), metavar="N", help="play one scene only")
    parser.add_argument("--run", type=Path, default=RUN, metavar="DIR", help="where files go (default run/)")
    arguments = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"  # the stock client would ask a configured proxy for loopback
    console, took = show.console(), waited()
    numbers = chosen(arguments.scene)
    try:
        with fresh_folder(arguments.run.resolve() / "demo") as folder:
            failed = play(console, folder, numbers)
    except ComityError as error:
        console.print(f"[red]demo: {error}[/]", soft_wrap=True, markup=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    console.print()
    if failed:
        console.print(f"[red bold]{len(failed)} of {len(numbers)} scenes do not hold[/]: {failed}")
        return 1
    console.print(f"[green bold]All {len(numbers)} scenes hold[/] ({took():.0f} s)")
    return 0


def chosen(scene: int | None) -> tuple[int, ...]:
    """The scenes to play: all, or one with those whose receipts it needs."""
    if scene is None:
        return (*range(1, len(LIVE) + 1), AUDIT)
    return (*NEEDED_BY_AUDIT, AUDIT) if scene == AUDIT else (scene,)


def play(console: Console, folder: Path, numbers: tuple[int, ...]) -> list[int]:
    """Found, start, play, stop, audit. Returns the numbers of the scenes that do not hold."""
    with console.status("founding three domains: keys, charter, manifests, simulated chips"):
        simulated = found_simulated(folder, datetime.now(UTC), {CLOUD: ROGUE})
    console.print(f"[bold]Comity[/]: three sovereign domains, one charter, pin {simulated.founded.pin.hex()}")
    console.print("[dim]Hardware is simulated; engines, signatures, seals, policies and logs are real.[/]")
    receipts = folder / "receipts"
    receipts.mkdir()
    failed = asyncio.run(_live(console, folder, simulated.founded, receipts, numbers))
    lines = write_journal(folder / "logs", folder / "federation.log")
    console.print(
        f"\n[dim]receipts: {receipts}\nfederation log: {folder / 'federation.log'} ({lines} lines)[/]"
    )
    return failed


async def _live(
    console: Console, folder: Path, founded: Founded, receipts: Path, numbers: tuple[int, ...]
) -> list[int]:
    failed: list[int] = []
    with console.status("starting") as status:
        async with launched(
            founded, folder, without=frozenset({f"{CLOUD}/{ROGUE}"}), said=status.update
        ) as federation:
            status.stop()
            stage = Stage(federation, console, receipts)
            for number in numbers:
                if number != AUDIT and not await _play(stage, number, LIVE[number - 1]):
                    failed.append(number)
            with console.status("stopping every domain"):
                await federation.stop()
    if AUDIT in numbers and not await _play(stage, AUDIT, audit):
        failed.append(AUDIT)
    return failed


async def _play(stage: Stage, number: int, scene: Scene) -> bool:
    """Whether the scene holds; says what was seen when it does not."""
    title = (scene.__doc__ or "").strip().partition(" ")[2]
    show.heading(stage.console, number, title)
    try:
        await scene(stage)
    except (DoesNotHold, ComityError, openai.OpenAIError, TimeoutError) as error:
        show.broken(stage.console, f"{type(error).__name__}: {error}")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
