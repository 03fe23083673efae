"""What `comity` itself says: its commands, its release, and what it does not know."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from comity import COMMANDS

CHECKOUT = Path(__file__).parents[1]


def comity(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "comity", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)], ids=["nothing", "long", "short"])
def test_help_names_every_command(arguments: tuple[str, ...]) -> None:
    told = comity(*arguments)
    assert (told.returncode, told.stderr) == (0, "")
    named = [line.split()[0] for line in told.stdout.splitlines() if line.startswith("  ")]
    assert named == list(COMMANDS)


@pytest.mark.parametrize("argument", ["--version", "-V"])
def test_the_release_is_the_one_that_is_installed_and_described(argument: str) -> None:
    told = comity(argument)
    assert (told.returncode, told.stdout, told.stderr) == (0, f"comity {version('comity')}\n", "")
    changes = (CHECKOUT / "CHANGELOG.md").read_text().splitlines()
    newest = next(line for line in changes if line.startswith("## "))
    assert newest.split()[1].rstrip(",") == version("comity")


@pytest.mark.parametrize("name", ["recipt", "--verbose", "", "../broker"])
def test_an_unknown_command_is_a_mistake_of_usage(name: str) -> None:
    told = comity(name)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith(f"comity: no command {name!r}\n")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_tells_more(name: str) -> None:
    told = comity(name, "--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"usage: comity {name}")
