"""Azure confidential VMs: a boot-time report, runtime data that names a vTPM key, and its quote.

The report is made once at boot; its REPORT_DATA is the hash of the runtime data, which holds the
vTPM's attestation key. Only the quote by that key is fresh. MEASUREMENT is then the paravisor's,
and PCRs speak for what runs above it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from attestation.result import Check, compared, failed, not_evaluated, passed, undecided
from attestation.snp.report import REPORT_BYTES
from schemas.canonical import Json, read_json
from schemas.errors import Refused, Unreadable

MAGIC: Final = b"HCLA"
HEADER_BYTES: Final = 0x20
RUNTIME_OFFSET: Final = HEADER_BYTES + REPORT_BYTES  # 0x4C0
RUNTIME_HEADER: Final = struct.Struct("<5I")  # size, version, report type, hash type, length of the JSON
MAX_HCL_BYTES: Final = 64 * 1024  # real ones are 2,600
MAX_QUOTE_BYTES: Final = 4096  # real ones are under 200
VERSIONS: Final = (1, 2)
SNP_REPORT: Final = 2
TDX_REPORT: Final = 4  # OpenHCL, IgvmHwReportType
HARDWARE_REQUEST: Final = 2
SHA256: Final = 1  # 2 and 3 are said to be SHA-384 and SHA-512; nobody has shown one
AK_NAME: Final = "HCLAkPub"
AK_BITS: Final = 2048
PCRS: Final = 24
_TPM_SHA256: Final = 0x000B
_GENERATED: Final = b"\xff\x54\x43\x47"
_QUOTE: Final = 0x8018

_RUNTIME = "Azure guest attestation, runtime data"
_CLAUSE = "TPM 2.0 Part 2, 10.12.12 TPMS_ATTEST"

NAMES: Final = (
    "snp.azure.runtime_data",
    "snp.azure.key",
    "snp.azure.quote",
    "snp.azure.nonce",
    "snp.azure.pcrs",
)


@dataclass(frozen=True, slots=True)
class AzureParts:
    """What stands beside the report."""

    runtime_data: bytes
    """The JSON, exactly as hashed."""
    hash_type: int = SHA256
    quote: bytes | None = None
    """TPMS_ATTEST bytes."""
    quote_signature: bytes | None = None
    """Raw RSA signature."""
    pcrs: tuple[bytes, ...] | None = None
    """All 24 values of the SHA-256 bank."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A parsed TPMS_ATTEST of type quote."""

    extra_data: bytes
    selected: tuple[int, ...]
    """PCR numbers of the SHA-256 bank, ascending."""
    pcr_digest: bytes


def read_hcl(data: bytes, of: int = SNP_REPORT) -> tuple[bytes, AzureParts]:
    """(report, parts) of an HCL blob of this kind. Raises `Unreadable` (`snp.azure.malformed`)."""
    if not RUNTIME_OFFSET + RUNTIME_HEADER.size <= len(data) <= MAX_HCL_BYTES or data[:4] != MAGIC:
        raise _malformed("no HCL blob")
    version, total, request = struct.unpack_from("<3I", data, 4)
    size, runtime_version, report_type, hash_type, length = RUNTIME_HEADER.unpack_from(data, RUNTIME_OFFSET)
    end = RUNTIME_OFFSET + RUNTIME_HEADER.size + length
    if version not in VERSIONS or runtime_version != 1 or request != HARDWARE_REQUEST or report_type != of:
        raise _malformed("an unknown version, or not the report of such a guest")
    if size != RUNTIME_HEADER.size + length or total != RUNTIME_OFFSET + size or end > len(data):
        raise _malformed("its lengths disagree")
    if any(data[16:HEADER_BYTES]) or any(data[end:]):
        raise _malformed("something stands where nothing may")
    start = RUNTIME_OFFSET + RUNTIME_HEADER.size
    return data[HEADER_BYTES:RUNTIME_OFFSET], AzureParts(data[start:end], hash_type)


def _malformed(why: str) -> Unreadable:
    return Unreadable("snp.azure.malformed", why)


def check_azure(
    parts: AzureParts,
    report_data: bytes,
    *,
    nonce: bytes | None,
    wanted: Mapping[int, frozenset[bytes] | None],
) -> list[Check]:
    """From REPORT_DATA to the vTPM key to the quote to the PCRs, each link held."""
    checks = [_runtime(parts, report_data)]
    if parts.quote is None or parts.quote_signature is None:
        return [*checks, *_without_quote(nonce, wanted)]
    try:
        key = _attestation_key(parts.runtime_data)
        checks.append(passed("snp.azure.key", f"one {AK_NAME}", f"exactly one {AK_NAME}", _RUNTIME))
        quote = _verify_quote(key, parts.quote, parts.quote_signature)
    except Refused as error:
        name = "snp.azure.key" if error.code == "snp.azure.key_missing" else "snp.azure.quote"
        checks.append(failed(name, error.code, error.text, "a quote by the key in the runtime data", _CLAUSE))
        return [*checks, *(not_evaluated(each, "not reached", _CLAUSE) for each in NAMES[3:])]
    checks.append(passed("snp.azure.quote", "verifies", "a quote by the key in the runtime data", _CLAUSE))
    return [*checks, _nonce(quote, nonce), *_pcrs(quote, parts.pcrs, wanted)]


def check_no_vtpm(wanted: Mapping[int, object]) -> Check:
    """PCRs that are demanded of a report beside which there is no vTPM: nothing vouches for them."""
    seen = "no vTPM quote beside the report"
    return undecided(NAMES[4], "snp.azure.quote_missing", seen, f"{sorted(wanted)}", _CLAUSE)


def _without_quote(nonce: bytes | None, wanted: Mapping[int, object]) -> list[Check]:
    """The report alone was made at boot: it answers no challenge and vouches for no PCR."""
    seen, code = "no quote was given", "snp.azure.quote_missing"
    checks = [
        not_evaluated(NAMES[1], seen, _RUNTIME),
        not_evaluated(NAMES[2], f"{seen}: nothing is fresh", _CLAUSE),
    ]
    for name, demanded in ((NAMES[3], nonce is not None), (NAMES[4], bool(wanted))):
        checks.append(
            undecided(name, code, seen, "a quote", _CLAUSE)
            if demanded
            else not_evaluated(name, seen, _CLAUSE)
        )
    return checks


def _runtime(parts: AzureParts, report_data: bytes) -> Check:
    """REPORT_DATA is SHA-256 of the JSON *bytes*, then 32 zero bytes."""
    code = "snp.azure.runtime_hash_mismatch"
    if parts.hash_type != SHA256:
        return failed(NAMES[0], code, f"hash type {parts.hash_type}", "1 (SHA-256)", _RUNTIME)
    expected = hashlib.sha256(parts.runtime_data).digest() + bytes(32)
    return compared(NAMES[0], code, report_data == expected, report_data.hex(), expected.hex(), _RUNTIME)


def _attestation_key(runtime_data: bytes) -> rsa.RSAPublicKey:
    """The one HCLAkPub. Strict JSON: a repeated key must not let two readers see two keys."""
    try:
        stated = read_json(runtime_data)
    except Unreadable as error:
        raise Refused("snp.azure.key_missing", f"the runtime data: {error.text}") from None
    keys = stated.get("keys") if isinstance(stated, dict) else None
    named = (
        [key for key in keys if isinstance(key, dict) and key.get("kid") == AK_NAME]
        if isinstance(keys, list)
        else []
    )
    if len(named) != 1:
        raise Refused("snp.azure.key_missing", f"{len(named)} keys named {AK_NAME}")
    return _rsa_key(named[0])


def _rsa_key(jwk: dict[str, Json]) -> rsa.RSAPublicKey:
    match jwk:
        case {"kty": "RSA", "e": "AQAB", "n": str(modulus)}:
            try:
                n = int.from_bytes(
                    base64.b64decode(modulus + "=" * (-len(modulus) % 4), b"-_", validate=True)
                )
                key = rsa.RSAPublicNumbers(65537, n).public_key()
            except (binascii.Error, ValueError):
                raise Refused("snp.azure.key_missing", "its modulus cannot be read") from None
            if key.key_size == AK_BITS:
                return key
    raise Refused("snp.azure.key_missing", f"{AK_NAME} is not an RSA-{AK_BITS} key")


def _verify_quote(key: rsa.RSAPublicKey, quote: bytes, signature: bytes) -> Quote:
    """PKCS#1 v1.5 with SHA-256 over the bytes as received, then their type and shape."""
    try:
        key.verify(signature, quote, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise Refused("snp.azure.quote_signature_invalid", "not signed by the vTPM's key") from None
    return read_quote(quote)


def read_quote(data: bytes) -> Quote:
    """A TPMS_ATTEST that is a quote. Raises `Refused`: the key may sign other structures, made by anyone."""
    if data[:4] != _GENERATED or data[4:6] != _QUOTE.to_bytes(2) or len(data) > MAX_QUOTE_BYTES:
        raise Refused("snp.azure.quote_type", "not TPM_GENERATED, or not a quote")
    reader = _Reader(data, 6)
    reader.sized()  # qualifiedSigner
    extra_data = reader.sized()
    reader.take(17 + 8)  # clockInfo, firmwareVersion
    selected = _selection(reader)
    digest = reader.sized()
    if reader.at != len(data):
        raise Refused("snp.azure.quote_type", "something stands behind the quote")
    return Quote(extra_data, selected, digest)


@dataclass(slots=True)
class _Reader:
    """Big-endian TPM structures, read in order."""

    data: bytes
    at: int

    def take(self, size: int) -> bytes:
        taken = self.data[self.at : self.at + size]
        if len(taken) != size:
            raise Refused("snp.azure.quote_type", "the quote is cut short")
        self.at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def sized(self) -> bytes:
        return self.take(self.number(2))


def _selection(reader: _Reader) -> tuple[int, ...]:
    """TPML_PCR_SELECTION with exactly one bank, SHA-256."""
    if reader.number(4) != 1 or reader.number(2) != _TPM_SHA256:
        raise Refused("snp.azure.pcr_selection", "not exactly one bank, SHA-256")
    bits = int.from_bytes(reader.take(reader.number(1)), "little")
    if bits >> PCRS:
        raise Refused("snp.azure.pcr_selection", f"a PCR above {PCRS - 1}")
    return tuple(index for index in range(PCRS) if bits >> index & 1)


def _nonce(quote: Quote, nonce: bytes | None) -> Check:
    if nonce is None:
        return not_evaluated("snp.azure.nonce", f"not demanded: {quote.extra_data.hex()}", _CLAUSE)
    return compared(
        "snp.azure.nonce", "snp.azure.nonce_mismatch", quote.extra_data == nonce,
        quote.extra_data.hex(), nonce.hex(), _CLAUSE,
    )  # fmt: skip


def _pcrs(
    quote: Quote, values: Sequence[bytes] | None, wanted: Mapping[int, frozenset[bytes] | None]
) -> list[Check]:
    """The digest covers the selected PCRs in order; those that policy names are among them."""
    name, code = "snp.azure.pcrs", "snp.azure.pcr_digest_mismatch"
    absent = sorted(set(wanted) - set(quote.selected))
    if absent:
        return [failed(name, "snp.azure.pcr_selection", f"lacks {absent}", f"{sorted(wanted)}", _CLAUSE)]
    if values is None:
        if wanted:
            return [undecided(name, "snp.azure.pcrs_missing", "no PCR values", f"{sorted(wanted)}", _CLAUSE)]
        return [not_evaluated(name, f"no PCR values; digest {quote.pcr_digest.hex()}", _CLAUSE)]
    digest = hashlib.sha256(b"".join(values[index] for index in quote.selected)).digest()
    checks = [compared(name, code, digest == quote.pcr_digest, digest.hex(), quote.pcr_digest.hex(), _CLAUSE)]
    for index, allowed in sorted(wanted.items()):
        if allowed is not None and values[index] not in allowed:
            seen = f"PCR {index} {values[index].hex()}"
            checks.append(
                failed(f"{name}.{index}", "snp.azure.pcr_mismatch", seen, "a listed value", _CLAUSE)
            )
    return checks
