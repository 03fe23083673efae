"""The Execute header: the consumer's signed order for one attempt, verified by the node itself.

The border's word is not enough for the node, and the node obeys only the header (session.md 6).
The header's digest is the HPKE `info` and the associated data of every chunk, so that model, scope,
retention or node cannot be altered around the ciphertext.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.canonical import Wire
from schemas.errors import Unreadable
from schemas.messages.message import Message
from schemas.primitives import Count, Digest, Label, Thumbprint, Token
from schemas.seal import CHUNK_OVERHEAD, MAX_CHUNK_TEXT, PADDING_BUCKETS, SEALED_SECRET_BYTES

MAX_HEADER_BYTES: Final = 16 * 1024  # envelope bytes; a header has no open-ended field
MAX_BODY_BYTES: Final = 4 * 1024 * 1024  # what an application may send
MAX_SEALED_CHUNK: Final = PADDING_BUCKETS[-1] + CHUNK_OVERHEAD
MAX_REQUEST_CHUNKS: Final = -(-MAX_BODY_BYTES // MAX_CHUNK_TEXT)


class Limits(Wire):
    """What the run may cost; the node stops at the first that is reached."""

    output_tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    body_bytes: Annotated[int, Field(ge=1, le=MAX_BODY_BYTES)]
    time_ms: Annotated[int, Field(ge=1, le=3_600_000)]


class Execute(Message):
    """One attempt. `iss` is the consumer, `aud` the provider; `nid` ties it to call and offer."""

    node_sign: Thumbprint
    node_seal: Digest
    offer: Digest
    """Digest of the offer that this accepts."""
    hold_id: Token
    placement: Digest
    """Receipt digest of the consumer's Placement, durable before this was sent."""
    request_id: Token
    attempt: Count
    parent: Digest | None = None
    """Header digest of the attempt that this continues."""
    tags_digest: Digest
    capability: Label
    model_digest: Digest
    model_signing: Digest | None = None
    """As offered: the run's receipts name it."""
    cache_scope: Literal["none", "tenant", "session", "public"]
    cache_key: Digest | None = None
    """Keyed name of the scope's owner: equal keys may share engine state, others never."""
    retention_s: Count
    input_commitment: Digest
    limits: Limits


def pack(header: bytes, sealed_secret: bytes) -> bytes:
    """The head of an execute stream: u32 length ‖ header envelope ‖ sealed secret. Chunks follow it."""
    return len(header).to_bytes(4, "big") + header + sealed_secret


def unpack(head: bytes) -> tuple[bytes, bytes]:
    """(header envelope, sealed secret). Raises `Unreadable`."""
    size = int.from_bytes(head[:4], "big")
    if not 0 < size <= MAX_HEADER_BYTES or len(head) != 4 + size + SEALED_SECRET_BYTES:
        raise Unreadable("execute.head", "not the head of an execute stream")
    return head[4 : 4 + size], head[4 + size :]


def chunk_body(body: bytes) -> list[bytes]:
    """Cut a request body into pieces that a chunk can hold; at least one, even if empty."""
    if len(body) > MAX_BODY_BYTES:
        raise Unreadable("execute.body_too_long", f"{len(body)} bytes, at most {MAX_BODY_BYTES}")
    return [body[at : at + MAX_CHUNK_TEXT] for at in range(0, max(len(body), 1), MAX_CHUNK_TEXT)]
