"""Receipts: what issuing, verifying and proving cost, as ratios of raw signing and verifying.

Everything runs interleaved in one process, median of several rounds: absolute numbers depend on the
machine, ratios much less. What one thread does is measured in its own processor time, what needs the
disk or several threads by the clock. `python -m bench.receipts [--large]`; `--large` adds a tree of a
million leaves.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.table import Table

from bench.receipts.auditing import auditing
from bench.receipts.issuing import durable, in_memory
from bench.receipts.proving import growth, large, proofs
from bench.receipts.sample import COUNT, IDENTITY, Figure, keys, placement
from broker.starting.program import THREAD_TURN_S, leave_alone_what_stands
from receipts.log import Draft, TransparencyLog

AUDITED: Final = 20_000  # receipts in the log that is audited


async def measure(more: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        log_keys, database = keys(), Path(folder) / "log.db"
        log = await TransparencyLog.open(database, identity=IDENTITY, keys=log_keys)
        leave_alone_what_stands()
        issued = await log.issue([Draft(placement()) for _ in range(COUNT)])
        figures = in_memory(log_keys, issued)
        figures += await durable(log, log_keys)
        figures += await proofs(log, log_keys, issued)
        while log.size < AUDITED:
            await log.issue([Draft(placement()) for _ in range(COUNT)])
        size = log.size
        await log.close()
        figures += auditing(database, log_keys)
        figures.append(growth(database, size))
    return figures + (large() if more else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="add a tree of a million leaves (half a minute)")
    arguments = parser.parse_args()
    sys.setswitchinterval(THREAD_TURN_S)  # with uvloop and what stands left alone: as a broker runs
    figures = uvloop.run(measure(arguments.large))
    table = Table("what", "measured", "ratio", "goal", title="Receipts")
    for figure in figures:
        table.add_row(figure.name, figure.value, figure.ratio, figure.goal)
    Console().print(table)
