"""A folder of collateral as pieces that prove themselves, each named by the SHA-256 of its bytes.

`marks.json` says which piece was last taken under which name, and is what an older answer fails against.
A crash leaves at most a temporary file or a piece that no mark names; both are harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
            if sha256(file.read_bytes()).hex() == mark.sha256:
                return file
        return None

    def certificates(self) -> list[bytes]:
        """Every certificate in the folder, in DER; nothing in it is believed for that."""
        return [file.read_bytes() for file in sorted(self.folder.glob("*.der"))]

    def keep(self, data: bytes, kind: str) -> Path:
        """Write a piece under its digest. `kind`: json, crl or der."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{sha256(data).hex()}.{kind}"
        self._replace(file, data)
        return file

    def take(self, name: str, data: bytes, kind: str, evaluation: int, issued: float) -> Path:
        """Keep a piece as the newest of its name; the one before goes.

        Raises `Refused` (`tdx.collateral_rollback`) where it is older than what was seen.
        """
        marks = self.marks()
        before = marks.get(name)
        marks = raised(marks, name, Mark(evaluation, issued, sha256(data).hex()))
        file = self.keep(data, kind)
        self._replace(self.folder / MARKS, write_marks(marks))
        if before is not None and before.sha256 not in {mark.sha256 for mark in marks.values()}:
            for old in self.folder.glob(f"{before.sha256}.*"):
                old.unlink()
        return file

    def _replace(self, file: Path, data: bytes) -> None:
        temporary = file.with_name(file.name + ".new")
        temporary.write_bytes(data)
        temporary.replace(file)
