"""Which members a chat body may have, and what each may hold: an application's broker names what is wrong
before anybody is called, and the node that runs it judges again by the same words.

What no engine understands would be ignored in silence; what reaches out of a node is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas.descriptors.extension import InvalidField

FORWARDED: Final = frozenset(
    {"messages", "temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias"}
    | {"logprobs", "top_logprobs", "response_format", "seed", "stop", "reasoning_effort"}
    | {"tools", "tool_choice", "parallel_tool_calls"}
)
"""Members of OpenAI's chat completions that change the answer."""
NOT_FOR_THE_ENGINE: Final = frozenset(
    {"model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"}
    | {"user", "metadata", "store", "service_tier", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_retention"}
)
"""Known members that the node itself answers for, or that serve the application's books only."""
PART_TYPES: Final = frozenset({"text", "refusal", "image_url", "input_audio"})
REFERENCES: Final = frozenset({"url", "image_url", "audio_url", "video_url", "file_url"})
"""Keys under which a content part may name data; only `data:` URLs are data."""
FORMATS: Final = frozenset({"text", "json_object", "json_schema"})
MAX_CHOICES: Final = 8  # generated one after the other on the one slot that was sold
MAX_MESSAGES: Final = 4096
MAX_STOPS: Final = 16  # OpenAI takes 4, engines some more
MAX_TOOLS: Final = 256  # OpenAI takes 128
MAX_TOP_LOGPROBS: Final = 20
MAX_WALK_DEPTH: Final = 16  # levels of a content part
MAX_NAME_CHARS: Final = 64  # of an unknown member, in an error

Check = Callable[[Any], bool]


def check_members(body: Mapping[str, Any]) -> None:
    """Every member is known and holds what it may. Raises `InvalidField`: `body.field`, `body.value`."""
    for name, value in body.items():
        if name not in FORWARDED and name not in NOT_FOR_THE_ENGINE:
            raise InvalidField(name[:MAX_NAME_CHARS], "no such field", code="body.field")
        expected = _EXPECTED.get(name)
        if expected is not None and value is not None and not expected[0](value):
            raise InvalidField(name, f"{expected[1]} is expected", code="body.value")


def check_contents(messages: Any) -> None:
    """A conversation whose turns are text or parts of known types, and point nowhere.

    Raises `InvalidField`: `body.messages`, `body.part`, `body.remote_url`.
    """
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        text = f"a list of 1 to {MAX_MESSAGES} messages is expected"
        raise InvalidField("messages", text, code="body.messages")
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidField(f"messages.{at}", "an object is expected", code="body.messages")
        if not isinstance(message.get("role"), str):
            raise InvalidField(f"messages.{at}.role", "a role is expected", code="body.messages")
        _check_content(message.get("content"), f"messages.{at}.content")


def _check_content(content: Any, field: str) -> None:
    if isinstance(content, list):
        for at, part in enumerate(content):
            _check_part(part, f"{field}.{at}")
    elif content is not None and not isinstance(content, str):
        raise InvalidField(field, "text or a list of parts is expected", code="body.messages")


def _check_part(part: Any, field: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in PART_TYPES:
        known = ", ".join(sorted(PART_TYPES))
        raise InvalidField(field, f"a part of type {known} is expected", code="body.part")
    _check_references(part, field, MAX_WALK_DEPTH)


def _check_references(value: Any, field: str, depth: int) -> None:
    """Refuse everything by which an engine would fetch something (session.md 4)."""
    if depth == 0:
        raise InvalidField(field, "nested too deeply", code="body.part")
    if isinstance(value, list):
        for entry in value:
            _check_references(entry, field, depth - 1)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if key in REFERENCES and isinstance(entry, str) and not entry.startswith("data:"):
                raise InvalidField(
                    field, "points elsewhere; only data: URLs are data", code="body.remote_url"
                )
            _check_references(entry, field, depth - 1)


def _number(low: float, high: float) -> tuple[Check, str]:
    def within(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return within, f"a number from {low:g} to {high:g}"


def _whole(low: int, high: int) -> tuple[Check, str]:
    def within(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return within, f"a whole number from {low} to {high}"


def _of(kind: type, text: str) -> tuple[Check, str]:
    return lambda value: isinstance(value, kind), text


def _list_of(kind: type, most: int) -> Check:
    return lambda value: (
        isinstance(value, list) and len(value) <= most and all(isinstance(each, kind) for each in value)
    )


_FLAG, _TEXT, _OBJECT = _of(bool, "true or false"), _of(str, "a text"), _of(dict, "an object")
_EXPECTED: Final[Mapping[str, tuple[Check, str]]] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    **dict.fromkeys(("frequency_penalty", "presence_penalty"), _number(-2, 2)),
    **dict.fromkeys(("logit_bias", "metadata"), _OBJECT),
    **dict.fromkeys(("stream", "store", "logprobs", "parallel_tool_calls"), _FLAG),
    **dict.fromkeys(("user", "service_tier", "safety_identifier", "reasoning_effort"), _TEXT),
    **dict.fromkeys(("prompt_cache_key", "prompt_cache_retention"), _TEXT),
    "top_logprobs": _whole(0, MAX_TOP_LOGPROBS),
    "seed": _whole(-(2**63), 2**63 - 1),
    "n": _whole(1, MAX_CHOICES),
    "stop": (
        lambda value: isinstance(value, str) or _list_of(str, MAX_STOPS)(value),
        f"a text or a list of at most {MAX_STOPS} texts",
    ),
    "tools": (_list_of(dict, MAX_TOOLS), f"a list of at most {MAX_TOOLS} objects"),
    "tool_choice": (lambda value: isinstance(value, str | dict), "a text or an object"),
    "response_format": (
        lambda value: isinstance(value, dict) and value.get("type") in sorted(FORMATS),
        f"an object whose type is one of {', '.join(sorted(FORMATS))}",
    ),
}
"""What a member holds unless it is null; the rest is judged where it is used."""

MEMBERS: Final[Mapping[str, str]] = {
    name: _EXPECTED[name][1] if name in _EXPECTED else "" for name in sorted(FORWARDED | NOT_FOR_THE_ENGINE)
}
"""Every member that a body may have, and in words what it holds where that is judged here."""
