"""From a pin to the keys that may speak: the bundle's charter and manifests under the auditor's own pin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from receipts.bundle import Bundle
from receipts.checkpoint import SignedCheckpoint
from receipts.cosignature import CosignerKey
from receipts.note import NoteKey
from receipts.verify.trust_file import TrustFile
from schemas import envelope
from schemas.descriptors.profile import DomainProfile
from schemas.errors import Refused, Undecided
from schemas.keys import VerifyKey
from schemas.papers.charter import Charter
from schemas.papers.manifest import DomainManifest, RevokedKey, Role, RoleKey, verify_manifest
from schemas.papers.trust import FederationTrust


@dataclass(frozen=True, slots=True)
class Registered:
    """A key with its owner, as a manifest under the pin registers it."""

    domain: str
    entry: RoleKey
    key: VerifyKey
    revoked: RevokedKey | None


@dataclass(frozen=True, slots=True)
class PinnedTrust:
    """Everything that hangs on the pin. Times are judged by the caller."""

    federation: str
    pin: str
    """What was pinned, for the report."""
    manifests: Mapping[str, DomainManifest]
    digests: Mapping[str, bytes]
    """Domain → DSSE digest of the manifest that is held."""
    charter: Charter | None = field(default=None, repr=False)
    """None when root keys were pinned."""
    silenced: frozenset[bytes] = frozenset()
    """Raw keys of witnesses that cosigned two histories: they have no voice."""
    profiles: Mapping[str, DomainProfile] = field(init=False, repr=False)
    """What the charter endorses of each member; none when root keys were pinned."""
    _registered: Mapping[Role, tuple[Registered, ...]] = field(init=False, repr=False)
    _witnesses: Mapping[str, tuple[CosignerKey, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        members = self.charter.members if self.charter else []
        profiles = {member.domain: member.endorsed.profile for member in members}
        object.__setattr__(self, "profiles", profiles)
        object.__setattr__(self, "_registered", _register(self.manifests))
        witnesses = {
            domain: [CosignerKey.read(each.vkey) for each in manifest.witnesses]
            for domain, manifest in self.manifests.items()
        }
        heard = {
            domain: tuple(key for key in keys if key.raw not in self.silenced)
            for domain, keys in witnesses.items()
        }
        object.__setattr__(self, "_witnesses", {domain: keys for domain, keys in heard.items() if keys})

    def registered(self, role: Role) -> tuple[Registered, ...]:
        """Every key of a role, whenever it was valid: expiry and revocation are claims of their own."""
        return self._registered.get(role, ())

    def log_keys(self, domain: str, origin: str) -> list[NoteKey]:
        """Verifier keys of a log that the domain registered. Raises `Refused` for another origin."""
        keys = [NoteKey.read(log.vkey) for log in self.manifests[domain].logs if log.origin == origin]
        if not keys:
            raise Refused("verify.log_unknown", f"{domain} registers no log {origin}")
        return keys

    def witnesses(self) -> Mapping[str, tuple[CosignerKey, ...]]:
        """Operator → its witnesses that have a voice. An operator is the domain that registers them."""
        return self._witnesses

    def beside(self, domain: str, signed: SignedCheckpoint) -> list[CosignerKey]:
        """The ML-DSA keys that must stand under a checkpoint: those beside the note keys that signed it.

        While a log's keys overlap, each key's checkpoints need what was registered beside that key.
        """
        origin, signers = signed.checkpoint.origin, {each.key_id for each in signed.note.signatures}
        logs = [log for log in self.manifests[domain].logs if log.origin == origin and log.beside]
        return [
            CosignerKey.read(log.beside or "") for log in logs if NoteKey.read(log.vkey).key_id in signers
        ]

    def enrolments(self) -> dict[str, frozenset[str]]:
        return {domain: frozenset(manifest.platforms) for domain, manifest in self.manifests.items()}

    def stale(self, domain: str, at: datetime) -> str | None:
        """Why charter or manifest are no longer current; None while they are."""
        ends = [("the charter", self.charter.expires)] if self.charter else []
        ends += [(f"the manifest of {domain}", self.manifests[domain].expires)]
        for what, seconds in ends:
            if seconds <= at.timestamp():
                return f"{what} expired on {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
        return None


def _register(manifests: Mapping[str, DomainManifest]) -> dict[Role, tuple[Registered, ...]]:
    """Decode every key once."""
    found: dict[Role, tuple[Registered, ...]] = {}
    for domain, manifest in manifests.items():
        revoked = {entry.thumbprint: entry for entry in manifest.revoked}
        for entry in manifest.keys:
            key = VerifyKey.from_jwk(entry.jwk)
            one = Registered(domain, entry, key, revoked.get(entry.thumbprint))
            found[entry.role] = (*found.get(entry.role, ()), one)
    return found


def establish(bundle: Bundle, trust: TrustFile) -> PinnedTrust:
    """Follow the pin to the bundle's manifests.

    Raises `Undecided` when the bundle lacks what was pinned, `Refused` when what it has is not that.
    """
    if trust.charter is None:
        return _from_roots(bundle.manifests, trust)
    if bundle.charter is None:
        raise Undecided("verify.charter_missing", "the bundle holds no charter")
    held = FederationTrust.load(
        bundle.charter, pin=trust.charter, manifests=bundle.manifests, reference_values=()
    )
    if held.federation != trust.federation:
        raise Refused("verify.federation", f"the pinned charter is of {held.federation}")
    return under_charter(held)


def under_charter(held: FederationTrust) -> PinnedTrust:
    """What hangs on a charter that was checked against its pin."""
    return PinnedTrust(
        held.federation,
        f"charter {held.charter_digest.hex()}",
        held.manifests,
        {domain: held.manifest_digests[domain] for domain in held.manifests},
        held.charter,
    )


def _from_roots(manifests: Sequence[bytes], trust: TrustFile) -> PinnedTrust:
    """Manifests signed by pinned roots; of several versions the newest counts, never an older one."""
    held: dict[str, DomainManifest] = {}
    digests: dict[str, bytes] = {}
    for data in manifests:
        for domain, roots in trust.roots.items():
            try:
                manifest = verify_manifest(data, roots=roots)
            except Refused:
                continue  # another domain's manifest, or one that nobody here vouches for
            if (manifest.domain, manifest.federation) != (domain, trust.federation):
                continue
            if domain not in held or held[domain].version < manifest.version:
                held[domain], digests[domain] = manifest, envelope.read(data).digest
    if not held:
        raise Undecided("verify.manifest_missing", "the bundle holds no manifest under the pinned roots")
    return PinnedTrust(trust.federation, f"roots of {', '.join(sorted(trust.roots))}", held, digests)
