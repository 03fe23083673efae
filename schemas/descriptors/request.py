"""`RequestDescriptor` (Q): what an application asks for, derived from an OpenAI body and its tags.

It holds everything that filtering, ranking and agreement need, and no content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal, cast

from pydantic import Field

from schemas.canonical import Wire
from schemas.descriptors.chat import MAX_CHOICES
from schemas.descriptors.extension import Budget, Extension, InvalidField, Quality, Slo, parse_tags
from schemas.descriptors.tags import (
    DATA_CLASSES,
    DataClass,
    Effective,
    Home,
    PolicyTags,
    TagFloor,
    effective,
    effective_digest,
)
from schemas.primitives import Count, Label, TimeText, Token

__all__ = [
    "DATA_CLASSES",
    "Budget",
    "DataClass",
    "Effective",
    "Extension",
    "Home",
    "InvalidField",
    "PolicyTags",
    "Quality",
    "RequestDescriptor",
    "Slo",
    "TagFloor",
    "describe",
    "effective",
    "effective_digest",
    "estimate_tokens",
    "parse_tags",
]

DEFAULT_OUTPUT_TOKENS: Final = 1024  # for a body that states no limit
MAX_OUTPUT_TOKENS: Final = 1_000_000  # the bound of an Execute header
BYTES_PER_TOKEN: Final = 3  # UTF-8 bytes; English has about 4, so that an estimate errs upwards
TOKENS_PER_MESSAGE: Final = 8  # role, separators and template around one message
TOKENS_PER_PART: Final = 1_024  # an image or audio part whose true cost only the engine knows


class RequestDescriptor(Wire):
    """Q: one request, everything that filtering, ranking and agreement need; no content."""

    v: Literal[1] = 1
    request_id: Token
    task: Literal["chat", "completion", "embedding"]
    capability: Label
    """Class, `class/variant`, or either with `@version`."""
    quality: Quality
    slo: Slo
    policy: PolicyTags
    """Effective tags, complete."""
    overridden: list[Label]
    """Tags in which the caller asked for less than its tenant allows."""
    affinity: str | None = None
    budget: Budget
    priority: int
    service_class: Literal["interactive", "standard", "batch"] = Field(alias="class")
    deadline: TimeText | None = None
    input_tokens: Count
    """Estimate that errs upwards."""
    max_output_tokens: Count
    stream: bool
    body_bytes: Count

    @property
    def capability_class(self) -> str:
        return self.capability.partition("@")[0].partition("/")[0]

    @property
    def variant(self) -> str | None:
        return self.capability.partition("@")[0].partition("/")[2] or None

    @property
    def version(self) -> str | None:
        return self.capability.partition("@")[2] or None

    def lowered(self) -> tuple[RequestDescriptor, tuple[str, ...]]:
        """This request without its floors of quality and its pin of a variant, and which of them it had."""
        stated = [f"quality.{name}" for name, value in self.quality if value is not None]
        pin = ["capability"] if self.capability != self.capability_class else []
        freed = self.model_copy(update={"capability": self.capability_class, "quality": Quality()})
        return freed, tuple(pin + stated)

    @cached_property
    def policy_digest(self) -> bytes:
        """The effective tags' digest (32 bytes)."""
        return effective_digest(self.policy)


def describe(
    body: Mapping[str, Any],
    extension: Extension,
    *,
    floor: PolicyTags | None,
    home: Home,
    request_id: str,
    body_bytes: int,
    task: Literal["chat", "completion", "embedding"] = "chat",
) -> RequestDescriptor:
    """The descriptor of an OpenAI-style body. `request_id` is used when the caller gave none.

    Raises `InvalidField` for `model`, `stream`, `n`, `max_tokens`, `max_completion_tokens`.
    """
    counted = effective(floor, extension.policy, home)
    return RequestDescriptor(
        request_id=extension.request_id or request_id,
        task=task,
        capability=_capability(body, extension),
        quality=extension.quality,
        slo=extension.slo,
        policy=counted.tags,
        overridden=list(counted.overridden),
        budget=extension.budget,
        priority=extension.priority,
        service_class=extension.service_class,
        deadline=extension.deadline,
        input_tokens=_input_tokens(body),
        max_output_tokens=0 if task == "embedding" else _output_tokens(body),
        stream=_flag(body, "stream"),
        body_bytes=body_bytes,
    )


def _capability(body: Mapping[str, Any], extension: Extension) -> str:
    name = extension.capability or body.get("model")
    if not isinstance(name, str) or not re.fullmatch(r"[\x21-\x7e]{1,128}", name):
        raise InvalidField("model", "a capability class is expected, such as chat.small")
    return name


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidField(name, "true or false is expected")
    return bool(value)


def _number(body: Mapping[str, Any], name: str, limit: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        raise InvalidField(name, f"a whole number from 1 to {limit} is expected")
    return value


def _output_tokens(body: Mapping[str, Any]) -> int:
    newer = _number(body, "max_completion_tokens", MAX_OUTPUT_TOKENS)
    older = _number(body, "max_tokens", MAX_OUTPUT_TOKENS)
    choices = _number(body, "n", MAX_CHOICES) or 1
    return min(MAX_OUTPUT_TOKENS, (newer or older or DEFAULT_OUTPUT_TOKENS) * choices)


def estimate_tokens(text_bytes: int) -> int:
    """Tokens in a text of that many UTF-8 bytes; errs upwards."""
    return -(-text_bytes // BYTES_PER_TOKEN)


def _input_tokens(body: Mapping[str, Any]) -> int:
    total = 0
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else []:
        total += TOKENS_PER_MESSAGE
        if isinstance(message, dict):
            said = cast(dict[str, Any], message)
            rest = {name: value for name, value in said.items() if name not in ("role", "content")}
            total += _content_tokens(said.get("content")) + _spelled_tokens(rest)
    total += sum(_spelled_tokens(body.get(name)) for name in ("tools", "response_format"))
    return total + _content_tokens(body.get("prompt")) + _content_tokens(body.get("input"))


def _spelled_tokens(value: Any) -> int:
    """What an engine's template spells out for the model: tools, calls of them, a schema."""
    if not value:
        return 0
    return estimate_tokens(len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")))


def _content_tokens(content: Any) -> int:
    if isinstance(content, str):
        return estimate_tokens(len(content.encode("utf-8", "replace")))
    if isinstance(content, dict):
        text = content.get("text")
        return _content_tokens(text) if isinstance(text, str) else TOKENS_PER_PART
    if isinstance(content, list):
        tokens = sum(isinstance(part, int) for part in content)  # a prompt may be given as token ids
        return tokens + sum(_content_tokens(part) for part in content if not isinstance(part, int))
    return 0
