"""CBOR as COSE signs it: written only, in its one deterministic form (RFC 8949 4.2.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Cbor: TypeAlias = "int | bytes | str | Sequence[Cbor] | Mapping[int | str, Cbor] | Tagged | None"


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value under a tag."""

    tag: int
    value: Cbor


def write(value: Cbor) -> bytes:
    """The value's bytes: shortest heads, definite lengths, map keys in the order of their bytes."""
    match value:
        case None:
            return b"\xf6"
        case int():
            return _head(0, value) if value >= 0 else _head(1, -1 - value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            text = value.encode()
            return _head(3, len(text)) + text
        case Tagged():
            return _head(6, value.tag) + write(value.value)
        case Mapping():
            entries = sorted((write(key), write(each)) for key, each in value.items())
            return _head(5, len(entries)) + b"".join(key + each for key, each in entries)
    return _head(4, len(value)) + b"".join(map(write, value))


def _head(major: int, number: int) -> bytes:
    """Major type and argument, the argument in as few bytes as hold it (RFC 8949 3)."""
    if number < 24:
        return bytes([major << 5 | number])
    width = next(each for each in range(4) if number < 1 << (8 << each))
    return bytes([major << 5 | 24 + width]) + number.to_bytes(1 << width)
