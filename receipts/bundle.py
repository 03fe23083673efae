"""The auditor's bundle: everything about one request in one file (receipts.md 16.1).

A zip with sorted names and fixed times, or the same files as one JSON object. Nothing in it is
trusted: the pinned root comes from the verifier, and each part is named by what it is, not by
where it lies. The reader is guarded against oversize, traversal, duplicates and zip bombs.
"""

from __future__ import annotations

import base64
import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Field

from receipts.disclosure import MAX_DISCLOSURE
from receipts.statements.fields import MAX_LISTED, Camel
from schemas import envelope
from schemas.canonical import Json, read_json, sha256, write_json
from schemas.errors import ComityError, Unreadable
from schemas.primitives import Digest, DomainName, TimeText, decode_base64
from schemas.proof.collateral import MAX_PIECES

MAX_BUNDLE_BYTES: Final = 32 * 1024 * 1024  # packed; evidence with collateral of 16 nodes stays below
MAX_UNPACKED_BYTES: Final = 64 * 1024 * 1024  # all files together
MAX_FILES: Final = 2048  # a request leaves some dozens
MAX_ADVERTS: Final = 1024  # behind one decision: members of a federation
MAX_RATIO: Final = 200  # unpacked to packed bytes of one file; JSON full of base64 compresses below 20
_ENTRY: Final = b"PK\x01\x02"  # how each entry of a zip's directory begins (APPNOTE 4.3.12)
_PACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Other ways of packing name their own memory, up to 4 GiB, before a byte is unpacked."""
_FIXED_TIME: Final = (2000, 1, 1, 0, 0, 0)  # the same content gives the same bytes
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,253}(/[a-z0-9][a-z0-9._-]{0,253}){0,3}")


class ChallengeDisclosure(Camel):
    """A challenge that the consumer issued and that the evidence answers (session.md 2)."""

    domain: DomainName
    value: Digest
    """32 bytes in hex: once the run is over it is no secret."""
    issued_at: TimeText


class OpenedCommitment(Camel):
    """The key of one commitment, and what was committed to: the counterparty's own to give."""

    field: Literal["request", "response"]
    key: Digest
    """32 bytes in hex, of this field alone."""
    value: Digest
    """SHA-256 of the value, which lies among the bundle's blobs."""


class Disclosures(Camel):
    """What goes with a receipt so that `attested` can be judged again. Self-reported by its issuer."""

    challenges: list[ChallengeDisclosure] = Field(default_factory=list, max_length=MAX_LISTED)
    collateral: list[Digest] = Field(default_factory=list, max_length=MAX_PIECES)
    """Blobs of the bundle that the appraisal used beside what the evidence itself carries."""
    opened: list[OpenedCommitment] = Field(default_factory=list, max_length=2)
    shown: list[Annotated[str, Field(max_length=MAX_DISCLOSURE)]] = Field(
        default_factory=list, max_length=MAX_LISTED
    )
    """Salted fields of `sd` that are revealed (receipts.disclosure)."""
    considered: Digest | None = None
    """SHA-256 of the salted list of candidates behind a Placement; an explained bundle holds the list."""
    adverts: list[Digest] = Field(default_factory=list, max_length=MAX_ADVERTS)
    """SHA-256 of every advert behind a refusal; an explained bundle holds them."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's parts. Digests are recomputed on reading, never taken from a name."""

    envelopes: Mapping[bytes, bytes] = field(repr=False)
    """DSSE digest → statement envelope, in the order of their digests."""
    proofs: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    """Receipt digest → tlog-proof text. The pairing is a claim of the bundle; the proof itself decides."""
    charter: bytes | None = field(default=None, repr=False)
    manifests: tuple[bytes, ...] = field(default=(), repr=False)
    reference_values: tuple[bytes, ...] = field(default=(), repr=False)
    blobs: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    """SHA-256 → evidence or collateral."""
    equivocations: tuple[bytes, ...] = field(default=(), repr=False)
    """Documents that convict a log or an issuer (receipts.witnessing.equivocation)."""
    policies: tuple[bytes, ...] = field(default=(), repr=False)
    """Texts of policy sets that the receipts name by digest."""
    disclosures: Mapping[str, Disclosures] = field(default_factory=dict)
    """Receipt id → what its issuer discloses."""


def write(bundle: Bundle) -> bytes:
    """The zip form: sorted names, fixed times, an index for people."""
    files = to_files(bundle)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _FIXED_TIME), files[name], zipfile.ZIP_DEFLATED)
    return out.getvalue()


def write_json_form(bundle: Bundle) -> bytes:
    """The same files in one JSON object: name → base64."""
    files = to_files(bundle)
    return write_json({name: base64.b64encode(files[name]).decode("ascii") for name in sorted(files)})


def read(data: bytes) -> Bundle:
    """Read either form. Raises `Unreadable` and nothing else."""
    if len(data) > MAX_BUNDLE_BYTES:
        raise Unreadable("bundle.too_long", f"{len(data)} bytes, at most {MAX_BUNDLE_BYTES}")
    files = _json_files(data) if data[:1] == b"{" else _zip_files(data)
    try:
        return from_files(files)
    except Unreadable:
        raise
    except ComityError as error:
        raise Unreadable("bundle.part", str(error)) from None


def to_files(bundle: Bundle) -> dict[str, bytes]:
    """The bundle as files by path."""
    files = {f"envelopes/{digest.hex()}.dsse.json": data for digest, data in bundle.envelopes.items()}
    files |= {f"proofs/{digest.hex()}.tlog-proof": data for digest, data in bundle.proofs.items()}
    if bundle.charter is not None:
        files["charter.dsse.json"] = bundle.charter
    for kind, documents in (("manifests", bundle.manifests), ("reference-values", bundle.reference_values)):
        files |= {f"{kind}/{envelope.read(data).digest.hex()}.dsse.json": data for data in documents}
    files |= {f"evidence/{digest.hex()}": data for digest, data in bundle.blobs.items()}
    files |= {f"equivocations/{sha256(data).hex()}.json": data for data in bundle.equivocations}
    files |= {f"policies/{sha256(data).hex()}.cedar": data for data in bundle.policies}
    if bundle.disclosures:
        files["disclosures.json"] = write_json(
            {name: disclosed.as_json() for name, disclosed in bundle.disclosures.items()}
        )
    listed: dict[str, Json] = {name: sha256(files[name]).hex() for name in sorted(files)}
    return files | {"index.json": write_json(listed)}


def from_files(files: Mapping[str, bytes]) -> Bundle:
    """The parts behind the paths. Raises `Unreadable` for a file that has no place in a bundle."""
    proofs: dict[bytes, bytes] = {}
    grouped: dict[str, list[bytes]] = {
        "envelopes": [],
        "manifests": [],
        "reference-values": [],
        "evidence": [],
        "policies": [],
        "equivocations": [],
    }
    disclosures: dict[str, Disclosures] = {}
    charter: bytes | None = None
    for name, data in files.items():
        folder, _, rest = name.partition("/")
        if folder == "proofs" and (match := re.fullmatch(r"([0-9a-f]{64})\.tlog-proof", rest)):
            proofs[bytes.fromhex(match[1])] = data
        elif folder in grouped and rest:
            grouped[folder].append(data)
        elif name == "charter.dsse.json":
            charter = data
        elif name == "disclosures.json":
            disclosures = _disclosures(data)
        elif name != "index.json":  # a list for people: never read
            raise Unreadable("bundle.file", f"{name:.80} has no place in a bundle")
    return Bundle(
        envelopes=dict(sorted((envelope.read(data).digest, data) for data in grouped["envelopes"])),
        proofs=proofs,
        charter=charter,
        manifests=tuple(grouped["manifests"]),
        reference_values=tuple(grouped["reference-values"]),
        blobs={sha256(data): data for data in grouped["evidence"]},
        policies=tuple(grouped["policies"]),
        equivocations=tuple(grouped["equivocations"]),
        disclosures=disclosures,
    )


def _disclosures(data: bytes) -> dict[str, Disclosures]:
    match read_json(data):
        case dict(entries):
            return {name: Disclosures.from_json(value) for name, value in entries.items()}
    raise Unreadable("bundle.disclosures", "disclosures are an object by receipt id")


def _check_count(data: bytes, mark: bytes, most: int) -> bytes:
    """Return the data if the mark that parts its files stands there at most so often. Raises `Unreadable`.

    Before it is parsed: 32 MiB of empty entries become some hundred MiB of objects. Neither a name nor base64
    has a comma; packed content has the beginning of an entry by chance, once in 4 GiB.
    """
    if data.count(mark) > most:
        raise Unreadable("bundle.count", f"more than {MAX_FILES} files")
    return data


def _json_files(data: bytes) -> dict[str, bytes]:
    match read_json(_check_count(data, b",", MAX_FILES - 1), limit=MAX_BUNDLE_BYTES):
        case dict(entries):
            return {_checked(name): decode_base64(_text(value)) for name, value in entries.items()}
    raise Unreadable("bundle.json", "not the JSON form of a bundle")


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    raise Unreadable("bundle.json", "a file is base64 text")


def _zip_files(data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(_check_count(data, _ENTRY, MAX_FILES))) as archive:
            return _unpack(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError, OSError):
        # zipfile's ways of saying that an archive is broken, encrypted, or packed in an unknown way
        raise Unreadable("bundle.zip", "not a readable zip") from None


def _unpack(archive: zipfile.ZipFile) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    total = 0
    for entry in archive.infolist():
        name = _checked(entry.filename)
        if name in files:
            raise Unreadable("bundle.duplicate", f"{name} stands twice in the bundle")
        total += entry.file_size
        if total > MAX_UNPACKED_BYTES:
            raise Unreadable("bundle.size", f"more than {MAX_UNPACKED_BYTES} bytes unpacked")
        if entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            raise Unreadable("bundle.ratio", f"{name} unpacks to more than {MAX_RATIO} times its size")
        if entry.compress_type not in _PACKED:
            raise Unreadable("bundle.zip", f"{name} is neither stored nor deflated")
        with archive.open(entry) as file:
            files[name] = file.read(entry.file_size + 1)
        if len(files[name]) != entry.file_size:
            raise Unreadable("bundle.size", f"{name} is not as long as it says")
    return files


def _checked(name: str) -> str:
    """A plain relative path of plain names: no `..`, no root, no drive, no second spelling."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise Unreadable("bundle.path", f"not a plain path: {name!r:.80}")
    return name
