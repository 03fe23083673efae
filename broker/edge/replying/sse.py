"""Server-sent events: OpenAI's chunks, the `comity` member last, and no `[DONE]` unless it is done.

A finish reason is held back until dispatch has verified the end of the run: a chunk that says `stop`
would let a client take a cut answer for a complete one.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring
from typing import Any, Final

from broker.edge.exchange import Accepted, Choices, Finished, Started, Text
from broker.edge.replying.completion import comity_member, usage_json
from broker.problems import RequestProblem
from schemas.canonical import Json

DONE: Final = b"data: [DONE]\n\n"
_TEXT_END: Final = b'},"finish_reason":null}]}\n\n'
MEDIA_TYPE: Final = "text/event-stream; charset=utf-8"


class Chunks:
    """Writes one stream's events as bytes. Belongs to one request."""

    def __init__(self, accepted: Accepted, started: Started, created: int) -> None:
        self._accepted = accepted
        self._started = started
        self._created = created
        self._head = self._open(accepted.descriptor.capability)
        self._text = self._head + b'{"index":0,"delta":{"content":'  # most chunks are text
        self._first = True
        self._reasons: dict[int, str] = {}
        """Finish reasons that wait for the end, by choice."""

    def _open(self, model: str) -> bytes:
        return (
            f'data: {{"id":"chatcmpl-{self._accepted.request_id}","object":"chat.completion.chunk",'
            f'"created":{self._created},"model":{_dumps(model)},"choices":['
        ).encode()

    def piece(self, event: Text | Choices) -> bytes:
        """The chunk of one event."""
        if isinstance(event, Text) and not self._first:
            return b"%b%b%b" % (self._text, encode_basestring(event.delta).encode(), _TEXT_END)
        if isinstance(event, Text):
            return self._choice(0, {"content": event.delta}, None)
        self._first = False
        # Engines' own words may hold half a surrogate pair: escaped, it can still be sent.
        choices = json.dumps([self._without_reason(choice) for choice in event.choices])
        return b"%b%b}\n\n" % (self._head, choices[1:].encode())

    def _choice(self, index: int, delta: dict[str, str], reason: str | None) -> bytes:
        if self._first:
            self._first, delta = False, {"role": "assistant", **delta}
        choice = _dumps({"index": index, "delta": delta, "finish_reason": reason})
        return b"%b%b]}\n\n" % (self._head, choice.encode())

    def _without_reason(self, choice: Json) -> Json:
        if not isinstance(choice, dict) or choice.get("finish_reason") is None:
            return choice
        index = choice.get("index", 0)
        if isinstance(index, int):
            self._reasons[index] = str(choice["finish_reason"])
        return {**choice, "finish_reason": None}

    def end(self, finished: Finished) -> bytes:
        """Finish reasons, then usage where it was asked for and the member `comity`, then `[DONE]`."""
        reasons = self._reasons or {0: finished.finish_reason}
        ends = b"".join(self._choice(index, {}, reason) for index, reason in sorted(reasons.items()))
        last: dict[str, Any] = {"comity": comity_member(self._accepted, self._started, finished)}
        if self._accepted.include_usage:
            last["usage"] = usage_json(finished.usage)
        tail = b"%b],%b\n\n" % (self._open(finished.model), _dumps(last)[1:].encode())
        return ends + tail + DONE


def error_event(problem: RequestProblem, request_id: str) -> bytes:
    """How a stream ends that failed: the error, and nothing after it."""
    return f"data: {_dumps(problem.body(request_id))}\n\n".encode()


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
