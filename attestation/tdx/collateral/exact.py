"""JSON read at the speed of a compiled reader, without taking its word for it.

Such a reader passes over members that it does not know and lets a repeated one win. So what it read is
written again: where the same bytes come out, nothing stood in the document but what was read, once and in
its one spelling. Whatever is spelt otherwise is read by `schemas.canonical`, which takes five times as long.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from schemas.canonical import Json
from schemas.errors import Unreadable

_T = TypeVar("_T")
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_exact(data: bytes, decoder: msgspec.json.Decoder[_T]) -> _T | None:
    """What the document says, however it is spaced; None where it must be read strictly."""
    try:
        value = decoder.decode(data)
        again = msgspec.json.encode(value)
        return value if again == data or again == msgspec.json.format(data, indent=-1) else None
    except _UNREADABLE:
        return None


def shaped(stated: Json, shape: type[_T]) -> _T:
    """What strict JSON says in this shape; members beyond it are passed over. Raises `Unreadable`."""
    try:
        return msgspec.convert(stated, shape)
    except msgspec.ValidationError as error:
        raise Unreadable("json.shape", str(error)[:256]) from None
