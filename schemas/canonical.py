"""Strict JSON in, exact bytes out.

Everything that crosses a border is read by `read_json` or by a `Wire` model, which refuse what
other parsers let pass silently: duplicate keys (a deny followed by a permit must not read as a
permit), floats, big integers, lone surrogates, deep nesting. Signed bytes are stored and compared
as they came; `jcs` serves only digests that someone recomputes from a value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, Self, TypeAlias, cast

import rfc8785
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.bounded import MAX_DEPTH, MAX_INTEGER, is_bounded
from schemas.errors import Unreadable

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"

MAX_JSON_BYTES = 128 * 1024  # in base64 it still fits one NATS message of 256 KiB


def _pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Unreadable("json.duplicate_key", "an object names a key twice")
    return result


def _integer(text: str) -> int:
    if len(text) > 17 or abs(value := int(text)) > MAX_INTEGER:
        raise Unreadable("json.integer_range", "an integer is beyond ±(2^53−1)")
    return value


def _no_float(_text: str) -> NoReturn:
    raise Unreadable("json.float", "a number has a fraction, an exponent, or is not finite")


_ALIKE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS_OR_QUOTES = bytes(each for each in range(256) if each not in b'[]{}"')


def _check_depth(data: bytes) -> None:
    """Bound nesting before parsing, so that the parser's own stack is never the limit.

    Outside strings only brackets are looked at, and innermost pairs are taken away level by level.
    """
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    plain = data.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in data else data
    left = plain.translate(_ALIKE, _NO_BRACKETS_OR_QUOTES).replace(b'""', b"")
    if b'"' in left:  # a string holds brackets
        left = b"".join(left.split(b'"')[::2])
    for _ in range(MAX_DEPTH):
        if not left:
            return
        left = left.replace(b"[]", b"")
    if left.count(b"[") > MAX_DEPTH or b"[]" in left:
        raise Unreadable("json.depth", f"nested deeper than {MAX_DEPTH} levels")


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_sorting = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
_MAYBE_NUMBER = re.compile(r"\d{16}|(?:^|[\[:,])-?\d+[.eE]")  # too long for 2^53−1 to be sure, or no integer
_decoder = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_no_float, parse_constant=_no_float
)


def read_json(data: bytes, *, limit: int = MAX_JSON_BYTES) -> Json:
    """Parse strictly (receipts.md 4). Raises `Unreadable` and nothing else."""
    if len(data) > limit:
        raise Unreadable("json.too_long", f"{len(data)} bytes, at most {limit} allowed")
    _check_depth(data)
    try:
        text = data.decode("utf-8")
        value = cast(Json, _decoder.decode(text))
        if "\\u" in text:
            # An escaped lone surrogate survives decoding but is not text.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Unreadable("json.syntax", f"not strict JSON: {type(error).__name__}") from None
    return value


def write_json(value: Json) -> bytes:
    """Compact JSON in the order given: for bytes that are written once and then kept as they are."""
    return _compact.encode(value).encode("utf-8")


def jcs(value: Json) -> bytes:
    """RFC 8785 bytes of a value: only where a digest is recomputed from a value."""
    plain = _sorted_ascii(value)
    if plain is not None:
        return plain
    try:
        return rfc8785.dumps(cast(Any, value))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise Unreadable("json.not_canonical", f"no canonical form: {error}") from None


def _sorted_ascii(value: Json) -> bytes | None:
    """The same bytes from the standard library's encoder, in a tenth of the time; None when unsure.

    Where all is ASCII, sorting by code point is RFC 8785 3.2.3's sorting by UTF-16 unit, and both escape
    alike (3.2.2.2). Anything that may be a float or a big integer, even inside a string, is left to the
    library, which refuses it or writes it as 3.2.2.3 says.
    """
    try:
        text = _sorting.encode(value)
    except (TypeError, ValueError, RecursionError):
        return None
    return text.encode("ascii") if text.isascii() and not _MAYBE_NUMBER.search(text) else None


def sha256(*parts: bytes) -> bytes:
    """SHA-256 over the parts, one after the other (32 bytes)."""
    return hashlib.sha256(b"".join(parts)).digest()


def length_prefixed(label: bytes, *parts: bytes) -> bytes:
    """A domain-separated, unambiguous encoding: label, zero byte, then each part behind its u32 length."""
    return label + b"\0" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class Wire(BaseModel):
    """A frozen value that crosses a border. Unknown fields, loose types and repeated keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_by_name=True, validate_by_alias=True
    )

    @classmethod
    def read(cls, data: bytes, *, limit: int = MAX_JSON_BYTES) -> Self:
        """The value that these bytes state. Raises `Unreadable` (code `schema.<class>`) and nothing else."""
        value = cls.read_written(data) if len(data) <= limit else None
        return cls.from_json(read_json(data, limit=limit)) if value is None else value

    @classmethod
    def read_written(cls, data: bytes) -> Self | None:
        """What `read` gives for bytes as `write` makes them; None for any other, which `read` decides.

        A compiled reader that is not believed (docs/decisions/0010): what comes out as the very bytes that
        went in had no second key and no unknown one, and a bounded model holds nothing else that strict
        reading refuses.
        """
        if not is_bounded(cls):
            return None
        try:
            value = cls._parsed(data)
        except ValidationError:
            return None
        return value if value.write() == data else None

    @classmethod
    def _parsed(cls, data: bytes) -> Self:
        return cls.model_validate_json(data, strict=True)

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """As `read`, from JSON that was parsed strictly already."""
        return cls._validated(lambda: cls._parsed(write_json(value)))

    @classmethod
    def _validated(cls, make: Callable[[], Self]) -> Self:
        try:
            return make()
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "(whole)"
            raise Unreadable(f"schema.{cls.__name__}", f"{where}: {first['msg']}") from None

    def write(self) -> bytes:
        """Compact JSON bytes; absent optional fields are left out."""
        return self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_none=True)

    def as_json(self) -> dict[str, Json]:
        """The same value as plain JSON objects."""
        return cast(dict[str, Json], self.model_dump(mode="json", by_alias=True, exclude_none=True))

    def value_digest(self) -> bytes:
        """SHA-256 of the RFC 8785 form (32 bytes): the value's name, independent of who wrote it."""
        return sha256(jcs(self.as_json()))
