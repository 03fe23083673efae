"""A folder of collateral as pieces that prove themselves, each named by the SHA-256 of its bytes.

`marks.json` says which piece was last taken under which name, and is what an older answer fails against.
A crash leaves at most an unfinished file, which nobody reads, or a piece that no mark names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

from attestation.files import UNFINISHED
from attestation.tdx.collateral.rollback import Mark, raised, read_marks, write_marks
from schemas.canonical import sha256
from schemas.errors import ConfigurationError, Unreadable

MARKS: Final = "marks.json"


@dataclass(frozen=True, slots=True)
class Pieces:
    """The folder. `--endorsements FOLDER` reads it as it is."""

    folder: Path

    def marks(self) -> dict[str, Mark]:
        """Raises `ConfigurationError`: marks that cannot be read are never taken for none."""
        file = self.folder / MARKS
        try:
            return read_marks(file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, Unreadable) as error:
            raise ConfigurationError("collateral.marks", f"{file}: {error}; mend or remove it") from None

    def find(self, name: str) -> Path | None:
        """The piece last taken under this name, if it is there and still what its name says."""
        mark = self.marks().get(name)
        if mark is None:
            return None
        for file in self.folder.glob(f"{mark.sha256}.*"):
            if file.suffix != UNFINISHED and sha256(file.read_bytes()).hex() == mark.sha256:
                return file
        return None

    def certificates(self) -> list[bytes]:
        """Every certificate in the folder, in DER; nothing in it is believed for that."""
        return [file.read_bytes() for file in sorted(self.folder.glob("*.der"))]

    def keep(self, data: bytes, kind: str) -> Path:
        """Write a piece under its digest. `kind`: json, crl, der, xml or ocsp."""
        return put(self.folder / f"{sha256(data).hex()}.{kind}", data)

    def take(self, name: str, data: bytes, kind: str, evaluation: int, issued: float) -> Path:
        """Keep a piece as the newest of its name; the one before goes.

        Raises `Refused` (`tdx.collateral_rollback`) where it is older than what was seen.
        """
        marks = self.marks()
        before = marks.get(name)
        marks = raised(marks, name, Mark(evaluation, issued, sha256(data).hex()))
        file = self.keep(data, kind)
        put(self.folder / MARKS, write_marks(marks))
        if before is not None and before.sha256 not in {mark.sha256 for mark in marks.values()}:
            for old in self.folder.glob(f"{before.sha256}.*"):
                old.unlink()
        return file


def put(file: Path, data: bytes) -> Path:
    """Write a file whole: whoever reads meets the old one or the new one, whoever else writes it meanwhile.

    Raises `OSError`, and leaves the old one.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{token_hex(4)}{UNFINISHED}")
    try:
        fresh.write_bytes(data)
        return fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
