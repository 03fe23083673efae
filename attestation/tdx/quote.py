"""DCAP quotes, versions 3 (SGX), 4 and 5 (TDX, SGX), read exactly (Intel DCAP quote formats).

Every nested length must be consumed to the byte: slack inside a container refuses. What stands
behind the quote is kept apart, because drivers pad with zeros. Neither a tail nor the sign of an
ECDSA `s` is protected, so a quote's identity is the hash of what is signed, never of its bytes.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from attestation.result import Check, compared
from attestation.tdx.body import (
    SGX_BYTES,
    TD10_BYTES,
    TD15_BYTES,
    TD15_EX_BYTES,
    SgxReport,
    TdReport,
    read_sgx,
    read_td,
)
from schemas.canonical import sha256
from schemas.errors import Unreadable

Tee: TypeAlias = Literal["sgx", "tdx"]

HEADER_BYTES: Final = 48
MAX_QUOTE_BYTES: Final = 256 * 1024  # authentication data may take 64 KiB, a PEM chain 4 KiB, a tail 16 KiB
MAX_TAIL_BYTES: Final = 16 * 1024  # zeros with which drivers fill their buffers; 8,000 in the field
MAX_CERTIFICATION_BYTES: Final = 64 * 1024  # a chain of three certificates in PEM has under 4 KiB
SIGNATURE_BYTES: Final = 64
CACHED_ENCLAVES: Final = 1024
REMEMBERED_BYTES: Final = 16 * 1024  # per entry; 4 to 5 KiB in the field
QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""Intel's quoting enclave (DCAP quote format, QE Vendor ID)."""

_HEADER: Final = struct.Struct("<HHI4s16s20s")
_V5_BODY: Final = struct.Struct("<HI")  # body type, size
_SIGNATURE: Final = struct.Struct("<I64s")  # length of the signature data, which opens with the signature
_LENGTH_BYTES: Final = _SIGNATURE.size - SIGNATURE_BYTES
_DATA: Final = struct.Struct("<HI")  # certification data: type, size
_QE: Final = struct.Struct("<384s64sH")  # QE report, its signature, size of the authentication data
_ECDSA_P256: Final = 2
_TEES: Final[dict[int, Tee]] = {0: "sgx", 0x81: "tdx"}
_V5_BODIES: Final[dict[int, tuple[Tee, int]]] = {
    1: ("sgx", SGX_BYTES),
    2: ("tdx", TD10_BYTES),
    3: ("tdx", TD15_BYTES),
    4: ("tdx", TD15_EX_BYTES),
}
_QE_REPORT_CERTIFICATION: Final = 6
assert _HEADER.size == HEADER_BYTES
assert _QE.size == SGX_BYTES + 64 + 2


class Quote(NamedTuple):
    """One quote, taken apart. Nothing in it is verified. A tuple: one is made for every verification."""

    version: int
    tee: Tee
    tee_type: int
    qe_vendor: bytes
    user_data: bytes
    """20 bytes; the first 16 name the platform's quoting enclave."""
    body: SgxReport | TdReport
    signed: bytes
    """Header and body (in version 5 with type and size): what the attestation key signed."""
    signature: bytes
    """r ‖ s, big endian, 64 bytes."""
    attestation_key: bytes
    """x ‖ y, big endian, 64 bytes."""
    qe: SgxReport
    qe_signature: bytes
    auth_data: bytes
    certification_type: int
    certification: bytes
    tail: bytes

    @property
    def identity(self) -> bytes:
        """SHA-256 of the signed bytes: the quote's name for replay, caching and receipts."""
        return sha256(self.signed)

    @property
    def td(self) -> TdReport | None:
        return self.body if isinstance(self.body, TdReport) else None


class _Reader:
    """Cuts pieces off one container, which `finish` holds to be used up."""

    __slots__ = ("_at", "_code", "_data")

    def __init__(self, data: bytes, code: str) -> None:
        self._data, self._at, self._code = data, 0, code

    def take(self, size: int, what: str) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Unreadable(self._code, f"{what} reaches beyond its container")
        piece, self._at = self._data[self._at : end], end
        return piece

    def unpack(self, layout: struct.Struct, what: str) -> tuple[Any, ...]:
        start = self._at
        end = start + layout.size
        if end > len(self._data):
            raise Unreadable(self._code, f"{what} reaches beyond its container")
        self._at = end
        return layout.unpack_from(self._data, start)

    def finish(self) -> None:
        if self._at != len(self._data):
            raise Unreadable(self._code, f"{len(self._data) - self._at} bytes too many in a container")


def read_quote(data: bytes) -> Quote:
    """Take a quote apart. Raises `Unreadable` (`tdx.*`) and nothing else."""
    if len(data) > MAX_QUOTE_BYTES:
        raise Unreadable("tdx.sig_data_malformed", f"more than {MAX_QUOTE_BYTES} bytes")
    version, key_type, tee_type, _, vendor, user_data = _at(data, 0, _HEADER, "the header")
    if version not in (3, 4, 5):
        raise Unreadable("tdx.quote_version_unsupported", f"version {version}; 3, 4 and 5 are read")
    if key_type != _ECDSA_P256:
        raise Unreadable("tdx.att_key_type_unsupported", f"attestation key type {key_type}, not ECDSA P-256")
    tee, start, end = _body_place(version, tee_type, data)
    length, signature = _at(data, end, _SIGNATURE, "the signature")
    if length < SIGNATURE_BYTES:
        raise Unreadable("tdx.sig_data_malformed", f"signature data of {length} bytes")
    last = end + _LENGTH_BYTES + length
    if last > len(data):
        raise _truncated("the signature data")
    vouched = _vouched(version, data[end + _SIGNATURE.size : last])
    report = read_sgx(data[start:end]) if tee == "sgx" else read_td(data[start:end])
    return Quote(
        version, tee, tee_type, vendor, user_data, report, data[:end], signature, *vouched, data[last:]
    )  # fmt: skip


def _body_place(version: int, tee_type: int, data: bytes) -> tuple[Tee, int, int]:
    """The TEE, and where the body begins and ends; in version 3 the field is reserved and the body SGX's."""
    if version == 3:
        return "sgx", HEADER_BYTES, HEADER_BYTES + SGX_BYTES
    tee = _TEES.get(tee_type)
    if tee is None:
        raise Unreadable("tdx.tee_type_unsupported", f"TEE type 0x{tee_type:x}")
    if version == 4:
        return tee, HEADER_BYTES, HEADER_BYTES + (SGX_BYTES if tee == "sgx" else TD10_BYTES)
    body_type, stated = _at(data, HEADER_BYTES, _V5_BODY, "body type and size")
    if body_type not in _V5_BODIES:
        raise Unreadable("tdx.body_type_unsupported", f"body type {body_type}")
    of, size = _V5_BODIES[body_type]
    if of != tee:
        raise Unreadable("tdx.body_type_unsupported", f"body type {body_type} in a quote of {tee}")
    if stated != size:
        raise Unreadable("tdx.body_size_mismatch", f"{stated} bytes stated, body type {body_type} has {size}")
    start = HEADER_BYTES + _V5_BODY.size
    return tee, start, start + size


def _at(data: bytes, at: int, layout: struct.Struct, what: str) -> tuple[Any, ...]:
    """What stands there in this layout; whatever is in front of it is there as well."""
    if at + layout.size > len(data):
        raise _truncated(what)
    return layout.unpack_from(data, at)


def _truncated(what: str) -> Unreadable:
    return Unreadable("tdx.quote_truncated", f"{what} reaches beyond the quote")


class _Vouched(NamedTuple):
    """What stands behind the quote's signature: the same for every quote of one quoting enclave."""

    key: bytes
    qe: SgxReport
    qe_signature: bytes
    auth_data: bytes
    certification_type: int
    certification: bytes


def _vouched(version: int, data: bytes) -> _Vouched:
    """Read it; small ones are remembered as they were read. Raises `Unreadable`."""
    return (
        _read_vouched(version, data)
        if len(data) <= REMEMBERED_BYTES
        else _read_vouched.__wrapped__(version, data)
    )


@lru_cache(maxsize=CACHED_ENCLAVES)
def _read_vouched(version: int, data: bytes) -> _Vouched:
    """From version 4 on, what follows the key is wrapped once more, as certification data of type 6."""
    reader = _Reader(data, "tdx.sig_data_malformed")
    key = reader.take(64, "the attestation key")
    if version >= 4:
        kind, size = reader.unpack(_DATA, "type and size of the certification data")
        if kind != _QE_REPORT_CERTIFICATION:
            raise Unreadable("tdx.sig_data_malformed", f"certification data of type {kind} instead of 6")
        inside = reader.take(size, "the certification data")
        reader.finish()
        reader = _Reader(inside, "tdx.sig_data_malformed")
    qe, qe_signature, size = reader.unpack(_QE, "the QE report")
    auth_data = reader.take(size, "the authentication data")
    kind, size = reader.unpack(_DATA, "type and size of the certification data")
    if kind == _QE_REPORT_CERTIFICATION or size > MAX_CERTIFICATION_BYTES:
        raise Unreadable("tdx.sig_data_malformed", f"certification data of type {kind}, {size} bytes, inside")
    certification = reader.take(size, "the certification data")
    reader.finish()
    return _Vouched(key, read_sgx(qe), qe_signature, auth_data, kind, certification)


def check_quote(quote: Quote) -> list[Check]:
    """What can be read but must not be so: another QE vendor, a reserved field, a tail that is not zeros."""
    zeros = len(quote.tail) <= MAX_TAIL_BYTES and not any(quote.tail)
    return [
        compared(
            "tdx.parse.qe_vendor", "tdx.qe_vendor_unknown", quote.qe_vendor == QE_VENDOR,
            quote.qe_vendor.hex(), QE_VENDOR.hex(), "DCAP quote header: QE Vendor ID",
        ),
        compared(
            "tdx.parse.reserved", "tdx.reserved_nonzero", quote.version > 3 or quote.tee_type == 0,
            f"0x{quote.tee_type:x}", "zero in version 3", "DCAP quote header version 3: reserved",
        ),
        compared(
            "tdx.parse.tail", "tdx.trailing_bytes", zeros,
            f"{len(quote.tail)} bytes{'' if zeros else ', not all zero or too many'}",
            f"at most {MAX_TAIL_BYTES} zero bytes", "DCAP: lengths state where a quote ends",
        ),
    ]  # fmt: skip
