"""The body of an OpenAI request: bounded while it is read, and parsed so that it has one meaning.

Numbers may have fractions here (temperature is one); otherwise the rules of `schemas.canonical` hold:
no key twice, nothing that is not finite, no lone surrogate, bounded nesting.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NoReturn, cast

from broker.problems import Invalid
from schemas.messages.execute import MAX_BODY_BYTES

MAX_DISCARDED_BYTES: Final = 16 * 1024 * 1024  # of a body that is too long, read on so that the 400 is seen
MAX_DEPTH: Final = 64  # levels; a tool's JSON Schema nests about 20
MAX_INTEGER_DIGITS: Final = 19  # digits; a 64-bit seed fits

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class CallerLeft(Exception):
    """The caller closed the connection; nobody is there to be answered."""


_TOKENS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_body(receive: Receive, content_length: str | None) -> bytes:
    """The whole body, at most `MAX_BODY_BYTES`. Raises `Invalid` (`body`) or `CallerLeft`.

    A body that says beforehand that it is far too long is not read at all.
    """
    stated = int(content_length) if content_length and content_length.isdecimal() else 0
    if stated > MAX_BODY_BYTES + MAX_DISCARDED_BYTES:
        raise _too_long()
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        if not message.get("more_body", False) or size > MAX_BODY_BYTES + MAX_DISCARDED_BYTES:
            break
    if size > MAX_BODY_BYTES:
        raise _too_long()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_long() -> Invalid:
    return Invalid("request.body_too_long", f"the body has more than {MAX_BODY_BYTES} bytes", param="body")


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object that these bytes state. Raises `Invalid` (`body`) and nothing else."""
    _check_depth(data)
    try:
        text = data.decode("utf-8")
        value = _DECODER.decode(text)
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise _unreadable("not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        at = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise _unreadable(f"not JSON{at}") from None
    if not isinstance(value, dict):
        raise _unreadable("a JSON object is expected")
    return cast(dict[str, Any], value)


def write_object(value: dict[str, Any]) -> bytes:
    """Compact JSON with all members in their order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def _unreadable(text: str) -> Invalid:
    return Invalid("request.body", f"body: {text}", param="body")


def _check_depth(data: bytes) -> None:
    """Bound nesting before anything recurses over it. Strings are skipped at the speed of the scanner."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.finditer(data):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _unreadable(f"nested deeper than {MAX_DEPTH} levels")
        elif first in b"]}":
            depth -= 1


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _unreadable("an object names a key twice")
    return result


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _unreadable("a number is not finite")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_INTEGER_DIGITS + 1:
        raise _unreadable("an integer is too large")
    return int(text)


def _not_a_number(text: str) -> NoReturn:
    raise _unreadable(f"{text} is not a JSON number")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=_float, parse_int=_integer, parse_constant=_not_a_number
)
