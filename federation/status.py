"""What a founded domain holds, checked against its pin: the facts behind `comity federation status`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from schemas.canonical import Json
from schemas.errors import ConfigurationError, Unreadable
from schemas.papers.trust import FederationTrust

MAX_PUBLIC_FILES = 2048  # manifests or reference lists in one folder


@dataclass(frozen=True, slots=True)
class Standing:
    """One domain's copy of the federation's papers, verified."""

    domain: str
    pin: str
    trust: FederationTrust

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Verify the papers under `folder/shared`. Raises `ConfigurationError`, `Refused` or `Unreadable`."""
        shared = folder / "shared"
        pin = _text(shared / "pin")
        try:
            digest = bytes.fromhex(pin)
        except ValueError:
            raise ConfigurationError("status.pin", f"{shared / 'pin'}: 64 hex digits are expected") from None
        trust = FederationTrust.load(
            _bytes(shared / "charter.json"),
            pin=digest,
            manifests=_folder(shared / "manifests"),
            reference_values=_folder(shared / "reference-values"),
        )
        return cls(folder.resolve().name, pin, trust)

    def as_json(self, now: datetime) -> dict[str, Json]:
        """Everything that `status` shows, with one line of faults per member; none means it holds."""
        charter = self.trust.charter
        members: list[Json] = [self._member(domain, now) for domain in self.trust.members]
        return {
            "domain": self.domain,
            "federation": charter.federation,
            "pin": self.pin,
            "charter_version": charter.version,
            "charter_until": _day(charter.expires),
            "expired": charter.expires <= now.timestamp(),
            "threshold": charter.threshold,
            "simulated_roots": [f"{root.name} ({root.product})" for root in charter.simulated_roots],
            "reference_values": len(self.trust.reference_values_at(now)),
            "members": members,
        }

    def _member(self, domain: str, now: datetime) -> Json:
        endorsed = next(member.endorsed for member in self.trust.charter.members if member.domain == domain)
        manifest = self.trust.manifests.get(domain)
        facts: dict[str, Json] = {
            "domain": domain,
            "operator": endorsed.profile.operator,
            "jurisdictions": list(endorsed.profile.jurisdictions),
            "exposed_to": list(endorsed.profile.exposed_to),
            "manifest": None,
        }
        if manifest is None:
            return facts | {"fault": "its manifest is not held, so it has no usable key"}
        valid = sorted(key.role for key in manifest.keys if key.not_before <= now.timestamp() < key.not_after)
        facts |= {
            "manifest": manifest.version,
            "until": _day(manifest.expires),
            "keys": list(valid),
            "logs": [log.origin for log in manifest.logs],
            "platforms": len(manifest.platforms),
        }
        if manifest.expires <= now.timestamp():
            return facts | {"fault": "its manifest has expired"}
        return facts | {"fault": None if len(valid) == len(manifest.keys) else "a key is out of date"}


def folders(path: Path) -> list[Path]:
    """The domain folders here: this one, or those inside. Raises `ConfigurationError` when there is none."""
    if (path / "shared" / "charter.json").is_file():
        return [path]
    found = sorted(entry.parent.parent for entry in path.glob("*/shared/charter.json"))
    if not found:
        raise ConfigurationError("status.folder", f"{path}: no domain's folder, and none inside it")
    return found


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError("status.file", f"{path}: {error.strerror}") from None


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("ascii").strip()
    except UnicodeDecodeError:
        raise Unreadable("status.file", f"{path}: not text") from None


def _folder(path: Path) -> list[bytes]:
    if not path.is_dir():
        raise ConfigurationError("status.file", f"{path}: no such folder")
    return [_bytes(entry) for entry in sorted(path.iterdir())[:MAX_PUBLIC_FILES] if entry.is_file()]
