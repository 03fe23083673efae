"""OpenAI's objects: chunk choices merged into whole messages, usage, and the member `comity`."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from broker.edge.exchange import Accepted, Choices, Finished, Started, Text
from schemas.canonical import Json
from schemas.messages.answer import Usage

MAX_HEADER_CHARS: Final = 256
_REPLACED: Final = ("role", "id", "type", "index", "finish_reason")
"""Members that come whole; all other texts come in pieces."""
_NOT_HEADER: Final = re.compile(r"[^\x20-\x7e]")


def usage_json(usage: Usage) -> dict[str, Json]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def comity_member(accepted: Accepted, started: Started, finished: Finished) -> dict[str, Json]:
    """What Comity adds to an answer; `overrides` and `degraded` only where there is something to say."""
    member: dict[str, Json] = {
        "request": accepted.request_id,
        "domain": finished.latency.domain,
        "receipt": finished.receipt,
        "promise": finished.promise,
        "latency": finished.latency.sentence(),
    }
    if finished.latency.domain != started.domain:
        member["began"] = {"domain": started.domain, "receipt": started.receipt}
    if accepted.overrides:
        member["overrides"] = list(accepted.overrides)
    if finished.lowered:
        member["degraded"] = True
        member["lowered"] = list(finished.lowered)
    return member


def start_headers(accepted: Accepted, started: Started) -> dict[str, str]:
    """The headers that are known when an answer begins."""
    return {
        "X-Comity-Request": accepted.request_id,
        "X-Comity-Domain": header_text(started.domain),
        "X-Comity-Receipt": header_text(started.receipt),
    }


def header_text(text: str) -> str:
    """Visible ASCII of bounded length: other domains' words never break a header."""
    return _NOT_HEADER.sub("?", text)[:MAX_HEADER_CHARS]


class Collector:
    """Builds a whole completion from its pieces, for callers that do not stream."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, event: Text | Choices) -> None:
        if isinstance(event, Text):
            self._text.append(event.delta)
            return
        for choice in event.choices:
            if isinstance(choice, dict) and isinstance(index := choice.get("index", 0), int):
                merge(self._choices.setdefault(index, {}), cast(dict[str, Any], choice))

    def completion(
        self, accepted: Accepted, created: int, finished: Finished, member: dict[str, Json]
    ) -> dict[str, Json]:
        """The `chat.completion` object."""
        return {
            "id": f"chatcmpl-{accepted.request_id}",
            "object": "chat.completion",
            "created": created,
            "model": finished.model,
            "choices": self._whole(finished.finish_reason),
            "usage": usage_json(finished.usage),
            "comity": member,
        }

    def _whole(self, finish_reason: str) -> list[Json]:
        if not self._choices:
            return [_choice(0, {"content": "".join(self._text)}, finish_reason)]
        return [
            _choice(index, parts.get("delta") or {}, parts.get("finish_reason") or finish_reason, parts)
            for index, parts in sorted(self._choices.items())
        ]


def _choice(
    index: int, message: Mapping[str, Any], finish_reason: str, parts: Mapping[str, Any] | None = None
) -> dict[str, Json]:
    whole = {"role": "assistant", "content": None, **message}
    for call in whole.get("tool_calls") or []:
        call.pop("index", None)
    return {
        "index": index,
        "message": whole,
        "logprobs": (parts or {}).get("logprobs"),
        "finish_reason": finish_reason,
    }


def merge(whole: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Add a chunk's piece: texts are joined, lists extended, entries with an `index` merged in place."""
    for name, value in piece.items():
        held = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(value, str) and isinstance(held, str) and name not in _REPLACED:
            whole[name] = held + value
        elif isinstance(value, Mapping):
            inner = whole[name] = held if isinstance(held, dict) else {}
            merge(inner, value)
        elif isinstance(value, list):
            entries = whole[name] = held if isinstance(held, list) else []
            _merge_list(entries, value)
        else:
            whole[name] = value


def _merge_list(whole: list[Any], pieces: list[Any]) -> None:
    for piece in pieces:
        index = piece.get("index") if isinstance(piece, dict) else None
        known = next(
            (entry for entry in whole if isinstance(entry, dict) and entry.get("index") == index), None
        )
        if index is None or known is None:
            whole.append(copy.deepcopy(piece))
        else:
            merge(known, piece)
