"""Each program as its operator starts it with a wrong file: exit code 2, and what to write where.

End to end through the command line, over the files that a founding writes. The rooms' own tests go
through every key (broker/tests/test_config.py, domain_agent/tests/test_config.py).
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from federation.found import Founded
from federation_tests.plan import CLINIC, Changes, found_scripted

USAGE: Final = 2  # DESIGN 7: usage, configuration, or input that cannot be read
PROGRAMS: Final = {"broker": ("broker", "serve"), "agent": ("agent", "run"), "node-ward-1": ("node", "run")}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One change of a program's file, and the words that its operator must read."""

    program: str
    old: str
    new: str
    key: str
    write: str


UNKNOWN: Final = [
    Mistake("broker", "[listen]\n", "[listen]\nprot = 8080\n", "listen.prot", "no such key"),
    Mistake("agent", "[summary]\n", "[summary]\nk_mni = 5\n", "[summary] k_mni", "k_min"),
    Mistake("node-ward-1", "[engine]\n", "[engine]\nslot = 5\n", "[engine] slot ", "known: "),
]
UNSET: Final = [
    Mistake(
        "broker", 'expectations = "expectations.toml"\n', "", "federation.expectations", "must be written"
    ),
    Mistake("agent", 'expectations = "expectations.toml"\n', "", "[federation] expectations", "write"),
    Mistake("broker", 'tls = "any"\n', "", "listen.tls", '"any"'),
    Mistake("node-ward-1", "[tee]\n", "[ignored]\n", "[tee] ", "write"),
]


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    """The files of a domain that nobody has started."""
    return found_scripted(
        tmp_path_factory.mktemp("settings") / "world", datetime.now(UTC), Changes(domains=(CLINIC,))
    )


async def said(founded: Founded, program: str, file: Path) -> str:
    """What the program says on standard error as it refuses to start; it may neither serve nor crash."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "comity",
        *PROGRAMS[program],
        "--config",
        str(file),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert (process.returncode, output) == (USAGE, b""), errors.decode()
    return errors.decode()


def changed(founded: Founded, mistake: Mistake) -> Path:
    """The program's file with one mistake, beside the good one."""
    folder = founded.domain(CLINIC)
    text = (folder / f"{mistake.program}.toml").read_text("utf-8")
    assert text.count(mistake.old) == 1, (mistake.old, text)
    file = folder / f"wrong-{mistake.program}.toml"
    file.write_text(text.replace(mistake.old, mistake.new), "utf-8")
    return file


@pytest.mark.parametrize("mistake", UNKNOWN, ids=lambda mistake: mistake.program)
async def test_an_unknown_key(founded: Founded, mistake: Mistake) -> None:
    file = changed(founded, mistake)
    text = await said(founded, mistake.program, file)
    assert str(file) in text
    assert mistake.key in text
    assert mistake.write in text


@pytest.mark.parametrize("mistake", UNSET, ids=lambda mistake: f"{mistake.program} {mistake.key}")
async def test_an_expectation_that_is_not_set(founded: Founded, mistake: Mistake) -> None:
    """Nothing fails open by omission: to waive one, its operator writes "any"."""
    file = changed(founded, mistake)
    text = await said(founded, mistake.program, file)
    assert str(file) in text
    assert mistake.key in text
    assert mistake.write in text


@pytest.mark.parametrize(
    ("program", "secret", "key"),
    [
        ("broker", "keys/receipt.pem", "keys.receipt"),
        ("agent", "keys/advert.pem", "[keys] advert"),
        ("node-ward-1", "keys/node.ward-1.nk", "[bus] seed"),
    ],
)
@pytest.mark.parametrize("how", ["absent", "for everybody to read"])
async def test_a_secret_that_cannot_be_used(
    founded: Founded, program: str, secret: str, key: str, how: str
) -> None:
    folder = founded.domain(CLINIC)
    path, aside = folder / secret, folder / f"{secret}.aside"
    if how == "absent":
        path.rename(aside)
    else:
        path.chmod(0o644)
    try:
        text = await said(founded, program, folder / f"{program}.toml")
    finally:
        if how == "absent":
            aside.rename(path)
        path.chmod(0o600)
    assert str(folder / f"{program}.toml") in text
    assert str(path) in text
    assert key in text
    assert how == "absent" or "run chmod 600" in text
