"""What comes back from a node: frames that a border passes on, and the parts sealed inside them.

Frames (one kind byte, then bytes) are visible to the border; parts are what the sealed chunks hold.
The NodeStatement travels twice: sealed in the last part, where it is the end marker, and in the
clear to the node's own domain, which signs its Execution over it (session.md 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from schemas.canonical import Wire
from schemas.errors import Unreadable
from schemas.primitives import Count, Token

RUN: Final = b"R"  # the node's 32 random bytes; first of all
CHUNK: Final = b"C"  # a sealed chunk
STATEMENT: Final = b"S"  # NodeStatement envelope, node → own border only
EXECUTION: Final = b"E"  # JSON ReceiptDelivery, provider's border → consumer
PROBLEM: Final = b"P"  # JSON Problem, unsealed: something failed before or beside the node

TEXT: Final = b"t"  # part: UTF-8 delta of the only choice
CHOICES: Final = b"j"  # part: JSON list of OpenAI choices, for anything that is not plain text
KEEPALIVE: Final = b"k"  # part: empty
END: Final = b"e"  # part: JSON EndOfRun; always in the final chunk

KEEPALIVE_S: Final = 10.0  # seconds of silence before the node says that it lives
COALESCE_MS: Final = 20  # milliseconds that later deltas may wait for company


class Problem(Wire):
    """A typed failure that a border or node reports in the clear. It quotes nothing of the request."""

    code: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,64}$")]
    text: Annotated[str, Field(max_length=512)]
    retry_after_ms: Count | None = None


class Usage(Wire):
    """Token counts as the engine reported them, and milliseconds as the node measured them."""

    input_tokens: Count
    output_tokens: Count
    cached_tokens: Count
    queue_ms: Count
    compute_ms: Count


class EndOfRun(Wire):
    """The end marker: without it, an answer is not complete."""

    statement: str
    """The NodeStatement envelope as JSON text."""
    usage: Usage
    finish_reason: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")]


class ReceiptDelivery(Wire):
    """The provider's Execution receipt with its log's promise, as envelopes in JSON text."""

    receipt_id: Token
    execution: str
    promise: str
    proof: str | None = None
    """tlog-proof text, once a checkpoint covers the receipt."""
    statement: str | None = None
    """The node's own statement: to a consumer that comes for the Execution, having lost the answer's end."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """One kind byte and what follows it."""

    kind: bytes
    content: bytes


def tag(kind: bytes, content: bytes) -> bytes:
    """kind ‖ content"""
    return kind + content


def untag(data: bytes, allowed: bytes) -> Tagged:
    """Split a frame or part. Raises `Unreadable` for an empty one or a kind outside `allowed`."""
    if not data or data[0] not in allowed:
        raise Unreadable("answer.kind", "an unknown kind of frame")
    return Tagged(data[:1], data[1:])
