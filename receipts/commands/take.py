"""What an auditor takes away: one request's bundle, and a folder that is judged with one command.

request.receipt   the bundle, with the reasons of policy and ranking where asked for
trust.toml …      what the auditor holds as true, and the files that it names
VERIFY.txt        the command, and what it needs
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from receipts import bundle as bundles
from receipts.audit.logfile import LogFile
from receipts.bundle import Bundle
from receipts.log.draft import Documents
from receipts.log.reader import Reader
from schemas.errors import ConfigurationError
from schemas.policy.policy_set import MAX_POLICY_BYTES, PolicySet

BUNDLE: Final = "request.receipt"
TRUST: Final = "trust.toml"
READ_ME: Final = "VERIFY.txt"
GUIDE: Final = f"""To judge what is in this folder, offline, with Comity installed:

    comity receipt verify {BUNDLE} --trust {TRUST}

Add --html report.html for a page, --json for a program. Exit code 0: every claim that the profile
requires is proved; 1: one of them is wrong; 3: something could not be decided.

Trust nothing in this folder that you did not bring yourself: compare `charter` or the root keys in
{TRUST} with what the members of the federation published, and the expectations with your own.
"""


def take(
    log: LogFile, name: str, papers: Bundle, policies: Mapping[str, bytes], *, explained: bool
) -> Bundle:
    """The bundle of a request id or receipt id, from the log's database alone.

    `explained` adds the inputs of the ranking, losers included. Raises `Refused` (`log.unknown_receipt`,
    `log.erased`).
    """
    documents = Documents(policies=policies)
    found = Reader(log.connection, None).bundle(name, documents, explained=explained)
    return replace(found, charter=papers.charter, manifests=papers.manifests)


def under_newest(log: LogFile, name: str, bundle: Bundle) -> Bundle:
    """The same with its log's own proofs under the newest checkpoint.

    A bundle's are under the one that most witnesses signed. COSE does not take their word along, and has no
    form for the path of the one leaf that a log's first checkpoint covers.
    """
    newest = Reader(log.connection, None).newest_proofs(name)
    return replace(bundle, proofs={**bundle.proofs, **newest})


def read_policies(folder: Path) -> dict[str, bytes]:
    """Digest → text of every Cedar file in a folder; a file that is no policy set is an error.

    Raises `ConfigurationError`.
    """
    found: dict[str, bytes] = {}
    try:
        if not folder.is_dir():
            raise ConfigurationError("take.policies", f"{folder}: no such folder")
        for path in sorted(path for path in folder.rglob("*.cedar") if path.is_file()):
            if path.stat().st_size > MAX_POLICY_BYTES:
                raise ConfigurationError("take.policies", f"{path}: more than {MAX_POLICY_BYTES} bytes")
            data = path.read_bytes()
            found[PolicySet.load(data.decode("utf-8"), path.stem).digest] = data
    except OSError as error:
        raise ConfigurationError("take.policies", f"{folder}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError("take.policies", f"{folder}: a policy file is not UTF-8") from None
    return found


@dataclass(slots=True)
class NamedFiles:
    """Reads the files that a trust file names, and remembers them."""

    folder: Path
    reading: Callable[[Path], bytes]
    found: dict[str, bytes] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        """Raises `ConfigurationError`; a name that leads out of the folder cannot be taken along."""
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ConfigurationError("take.trust", f"{name}: the trust file must name files beside it")
        if Path(name).parts[:1] in ((BUNDLE,), (TRUST,), (READ_ME,)):
            raise ConfigurationError(
                "take.trust", f"{name}: the folder has a file of this name; rename yours"
            )
        self.found[name] = self.reading(self.folder / name)
        return self.found[name]


def write_folder(folder: Path, bundle: Bundle, trust: bytes, named: Mapping[str, bytes]) -> None:
    """Everything in one new folder, or no folder. Raises `ConfigurationError`."""
    files = {BUNDLE: bundles.write(bundle), TRUST: trust, READ_ME: GUIDE.encode(), **named}
    try:
        folder.mkdir(parents=True)
        try:
            _fill(folder, files)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigurationError("take.folder", f"{folder}: {error.strerror}") from None


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
