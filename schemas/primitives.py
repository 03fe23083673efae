"""The small types that wire models are made of: names, digests, bytes, times."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, StringConstraints, WithJsonSchema

from schemas.errors import Unreadable

_DOMAIN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$"

DomainName = Annotated[str, StringConstraints(pattern=_DOMAIN, max_length=253)]
"""A lower-case DNS name. It never holds an underscore, so `subject_token` cannot collide."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in lower-case hex."""

Thumbprint = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
"""RFC 7638 JWK thumbprint: base64url without padding."""

Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""An opaque identifier that is safe as one token of a NATS subject."""

Label = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]
"""A visible ASCII name without blanks: classes, variants, schemes."""

Seconds = Annotated[int, Field(ge=946_684_800, le=4_133_980_799)]
"""POSIX seconds UTC, years 2000 to 2100."""

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]


def subject_token(domain: str) -> str:
    """The domain's name as one NATS subject token: dots become underscores (nats.md 3)."""
    return domain.replace(".", "_")


def domain_of_token(token: str) -> str:
    """The inverse of `subject_token`."""
    return token.replace("_", ".")


def decode_base64(text: str) -> bytes:
    """Standard base64 with padding, in its one canonical spelling. Raises `Unreadable`."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("base64.invalid", "not standard base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise Unreadable("base64.not_canonical", "base64 with stray bits")
    return data


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("base64 text expected")
    try:
        return decode_base64(value)
    except Unreadable as error:
        raise ValueError(error.text) from None


Bytes64 = Annotated[
    bytes,
    PlainValidator(_bytes),
    PlainSerializer(lambda data: base64.b64encode(data).decode("ascii"), return_type=str),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""Bytes in memory, canonical standard base64 on the wire."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)


def parse_time(text: str) -> datetime:
    """RFC 3339 in UTC with `Z`, no leap second, years 2000 to 2100. Raises `Unreadable`."""
    if not _RFC3339.fullmatch(text):
        raise Unreadable("time.format", "a time must look like 2026-01-31T12:00:00Z")
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Unreadable("time.range", "no such moment") from None
    if not 2000 <= time.year <= 2100:
        raise Unreadable("time.range", "outside the years 2000 to 2100")
    return time


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with milliseconds and `Z`."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_text(text: str) -> str:
    """The text, if it is a moment. Raises `ValueError`, as pydantic wants it."""
    try:
        parse_time(text)
    except Unreadable as error:
        raise ValueError(error.text) from None
    return text


TimeText = Annotated[str, AfterValidator(time_text)]
"""An RFC 3339 moment as text, checked."""
