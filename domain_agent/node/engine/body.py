"""What of a request body reaches the engine: an allow-list, and nothing that reaches out.

The body is the application's own bytes (session.md 7), so it is read as ordinary JSON, floats and
all. Which slot runs it and what it may share is decided by the signed header alone (session.md 4).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.descriptors.chat import FORWARDED, MAX_CHOICES, check_contents, check_members
from schemas.descriptors.extension import InvalidField
from schemas.errors import Refused, Unreadable


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A body that was judged."""

    fields: Mapping[str, Any] = field(repr=False)
    """Allow-listed fields, as the application wrote them."""
    choices: int
    max_tokens: int | None
    """What the application asked for; the header's limit holds besides."""
    plain: bool
    """One choice of text alone: its deltas travel as text, and a lost run can be continued."""
    seed: int | None


def read_body(data: bytes) -> EngineRequest:
    """Judge a body. Raises `Unreadable` or `Refused`; the texts name fields, never content."""
    body = _object(data)
    try:
        check_members(body)
        check_contents(body.get("messages"))
    except InvalidField as error:  # its text may quote a name that the application chose
        raise Refused(error.code, "the body is not one that an engine gets") from None
    choices = _integer(body, "n", 1, MAX_CHOICES) or 1
    limits = [_integer(body, name, 1, 10**9) for name in ("max_tokens", "max_completion_tokens")]
    fields = {name: body[name] for name in FORWARDED & body.keys() if body[name] is not None}
    return EngineRequest(
        fields=fields,
        choices=choices,
        max_tokens=min((limit for limit in limits if limit), default=None),
        plain=choices == 1 and not fields.get("tools") and not fields.get("logprobs"),
        seed=_integer(body, "seed", -(2**63), 2**63 - 1),
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data.decode("utf-8"), object_pairs_hook=_pairs)
    except (ValueError, RecursionError):
        raise Unreadable("body.json", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Unreadable("body.json", "the body is no JSON object")
    return body


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _integer(body: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Refused("body.value", f"{name} is not a whole number from {low} to {high}")
    return value
