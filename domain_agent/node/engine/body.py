"""What of a request body reaches the engine: an allow-list, and nothing that reaches out.

The body is the application's own bytes (session.md 7), so it is read as ordinary JSON, floats and
all. Which slot runs it and what it may share is decided by the signed header alone (session.md 4).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.errors import Refused, Unreadable

FORWARDED: Final = frozenset(
    {"messages", "temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias"}
    | {"logprobs", "top_logprobs", "response_format", "seed", "stop", "reasoning_effort"}
    | {"tools", "tool_choice", "parallel_tool_calls"}
)
"""Fields of OpenAI's chat completions that change the answer."""
NOT_FOR_THE_ENGINE: Final = frozenset(
    {"model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"}
    | {"user", "metadata", "store", "service_tier", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_retention"}
)
"""Known fields that the node itself answers for, or that serve the application's books only."""
PART_TYPES: Final = frozenset({"text", "refusal", "image_url", "input_audio"})
REFERENCES: Final = frozenset({"url", "image_url", "audio_url", "video_url", "file_url"})
"""Keys under which a content part may name data; only `data:` URLs are data."""
MAX_CHOICES: Final = 8  # generated one after the other on the one slot that was sold
MAX_MESSAGES: Final = 4096
MAX_WALK_DEPTH: Final = 16  # levels of a content part


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
    for name in body:
        if name not in FORWARDED and name not in NOT_FOR_THE_ENGINE:
            raise Refused("body.field", "the body has a field that is not forwarded to an engine")
    _check_messages(body.get("messages"))
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


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        raise Refused("body.messages", f"messages is no list of 1 to {MAX_MESSAGES} entries")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused("body.messages", "a message has no role")
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                _check_part(part)
        elif content is not None and not isinstance(content, str):
            raise Refused("body.messages", "a message's content is neither text nor a list of parts")


def _check_part(part: Any) -> None:
    if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
        raise Refused("body.part", "a content part is of a type that no engine gets")
    _check_references(part, MAX_WALK_DEPTH)


def _check_references(value: Any, depth: int) -> None:
    """Refuse everything by which an engine would fetch something (session.md 4)."""
    if depth == 0:
        raise Refused("body.part", "a content part is nested too deeply")
    if isinstance(value, list):
        for entry in value:
            _check_references(entry, depth - 1)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if key in REFERENCES and isinstance(entry, str) and not entry.startswith("data:"):
                raise Refused("body.remote_url", "a content part points elsewhere; only data: URLs are data")
            _check_references(entry, depth - 1)
