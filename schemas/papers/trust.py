"""What a verifier holds as true: one pinned charter, its members' manifests, its publishers' values.

Every signature check in the house asks here for the key: by domain, role and time. A key that came
with a message is never among the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from schemas import envelope
from schemas.errors import Refused
from schemas.keys import VerifyKey
from schemas.papers.charter import (
    Charter,
    ReferenceValue,
    ReferenceValues,
    verify_charter,
    verify_reference_values,
)
from schemas.papers.manifest import DomainManifest, LogKey, Role, RoleKey, verify_manifest
from schemas.primitives import format_time


@dataclass(frozen=True, slots=True)
class FederationTrust:
    """A verified charter with everything that hangs on it. Immutable; a new charter is a new value."""

    charter: Charter
    charter_digest: bytes
    manifests: Mapping[str, DomainManifest]
    manifest_digests: Mapping[str, bytes]
    reference_values: tuple[ReferenceValue, ...]
    _registered: Mapping[tuple[str, Role], tuple[tuple[RoleKey, VerifyKey], ...]] = field(repr=False)

    @classmethod
    def load(
        cls, charter: bytes, *, pin: bytes, manifests: Iterable[bytes], reference_values: Iterable[bytes]
    ) -> FederationTrust:
        """Verify everything against the pin. Raises `Unreadable` or `Refused`; nothing partial is kept."""
        verified = verify_charter(charter, pin=pin)
        by_digest = {envelope.read(data).digest: data for data in manifests}
        held: dict[str, DomainManifest] = {}
        for member in verified.members:
            data = by_digest.get(bytes.fromhex(member.manifest_digest))
            if data is None:
                continue  # a member whose manifest we lack has no usable key: its words are refused
            manifest = verify_manifest(data, roots=member.roots)
            if (manifest.domain, manifest.federation) != (member.domain, verified.federation):
                raise Refused("trust.manifest_owner", f"the manifest pinned for {member.domain} is another's")
            held[member.domain] = manifest
        values = [verify_reference_values(data, verified) for data in reference_values]
        return cls(
            verified,
            pin,
            held,
            {member.domain: bytes.fromhex(member.manifest_digest) for member in verified.members},
            tuple(value for listed in _newest(values) for value in listed.values),
            _register(held),
        )

    @property
    def federation(self) -> str:
        return self.charter.federation

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(member.domain for member in self.charter.members)

    def manifest(self, domain: str) -> DomainManifest:
        """The member's manifest. Raises `Refused` for a stranger or a member whose manifest is not held."""
        try:
            return self.manifests[domain]
        except KeyError:
            raise Refused("trust.unknown_domain", f"{domain} is no member with a known manifest") from None

    def keys(self, domain: str, role: Role, at: datetime) -> list[VerifyKey]:
        """The keys that speak for `domain` in `role` at that time: registered, in date, not revoked.

        Raises `Refused` (`trust.manifest_expired`, `trust.charter_expired`, `trust.no_key`).
        """
        manifest, now = self.manifest(domain), int(at.timestamp())
        ends = (
            ("manifest", f"the manifest of {domain}", manifest.expires),
            ("charter", "the charter", self.charter.expires),
        )
        for name, paper, expires in ends:
            if expires <= now:
                ended = format_time(datetime.fromtimestamp(expires, UTC))
                raise Refused(
                    f"trust.{name}_expired", f"{paper} ended at {ended}, and it is {format_time(at)} here"
                )
        revoked = {entry.thumbprint for entry in manifest.revoked}
        found = [
            public
            for key, public in self._registered.get((domain, role), ())
            if key.not_before <= now < key.not_after and key.thumbprint not in revoked
        ]
        if not found:
            text = f"{domain} has no {role} key that is valid now, and it is {format_time(at)} here"
            raise Refused("trust.no_key", text)
        return found

    def logs(self, domain: str) -> list[LogKey]:
        """The transparency logs that `domain` registered."""
        return self.manifest(domain).logs

    def enrolments(self) -> dict[str, frozenset[str]]:
        """Which platforms each domain enrolled: domain → hex digests."""
        return {domain: frozenset(manifest.platforms) for domain, manifest in self.manifests.items()}

    def reference_values_at(self, at: datetime) -> list[ReferenceValue]:
        """Published values that are in date and not revoked at that time."""
        now = int(at.timestamp())
        return [
            value
            for value in self.reference_values
            if value.valid_from <= now < value.valid_until and not value.revoked
        ]


def _newest(lists: Iterable[ReferenceValues]) -> list[ReferenceValues]:
    """Each publisher's highest version alone: an older list must not bring back what a newer revoked."""
    newest: dict[str, ReferenceValues] = {}
    for listed in lists:
        held = newest.get(listed.publisher)
        if held is not None and held.version == listed.version and held != listed:
            raise Refused(
                "trust.reference_values_fork", f"{listed.publisher} signed two lists as one version"
            )
        if held is None or listed.version > held.version:
            newest[listed.publisher] = listed
    return list(newest.values())


def _register(
    manifests: Mapping[str, DomainManifest],
) -> dict[tuple[str, Role], tuple[tuple[RoleKey, VerifyKey], ...]]:
    """Decode every registered key once: the hot path looks keys up, it does not parse them."""
    table: dict[tuple[str, Role], tuple[tuple[RoleKey, VerifyKey], ...]] = {}
    for domain, manifest in manifests.items():
        for key in manifest.keys:
            entry = (domain, key.role)
            table[entry] = (*table.get(entry, ()), (key, VerifyKey.from_jwk(key.jwk)))
    return table
