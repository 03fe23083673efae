"""Is this an order that this node must obey? Decided before anything of it is decapsulated (session.md 6).

The border's word is not enough: the header must be signed by the consumer's own registered key,
name this node's living keys, a model that lies here, and not have been run before. Pure: bytes,
keys and times in, a value or a typed refusal out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from domain_agent.node.keys import NodeKeys, SealEpoch
from schemas import envelope, seal
from schemas.canonical import length_prefixed, read_json, sha256
from schemas.errors import Refused, Unreadable
from schemas.messages.execute import MAX_HEADER_BYTES, MAX_REQUEST_CHUNKS, Execute, unpack
from schemas.messages.message import Received, receive
from schemas.papers.trust import FederationTrust


@dataclass(frozen=True, slots=True)
class Order:
    """An authenticated header with the secret that was sealed under it. Its owner is one run."""

    header: Execute
    digest: bytes
    """DSSE digest of the header: HPKE info, associated data, and the statement's subject."""
    sealed_secret: bytes = field(repr=False)
    secret: bytes = field(repr=False)


def read_order(
    head: bytes,
    *,
    trust: FederationTrust,
    domain: str,
    keys: NodeKeys,
    models: Mapping[str, str],
    now: datetime,
    clock: float,
) -> Order:
    """Verify a head and open its secret; from then on the same order is refused.

    models: capability → digest, as this node hashed them. now, clock: wall clock for the header's
    times, the node's monotonic clock for its keys. Raises `Unreadable`, or `Refused` with the codes
    of `schemas.messages.message.receive`, `trust.*`, `node.sign_key`, `node.seal_key`, `node.model`,
    `node.duplicate`, `seal.secret_invalid`.
    """
    header, sealed_secret = unpack(head)
    received = _authenticate(header, trust, domain, now)
    execute = received.body
    if execute.node_sign != keys.sign.thumbprint:
        raise Refused("node.sign_key", "the order names another node")
    epoch = keys.named(execute.node_seal, clock)
    _check_model(execute, models)
    names = _names(execute, received.digest, sealed_secret)
    epoch.check_fresh(*names)
    secret = _open(epoch, sealed_secret, received.digest)
    epoch.remember(*names)
    return Order(execute, received.digest, sealed_secret, secret)


def open_body(order: Order, chunks: tuple[bytes, ...]) -> bytes:
    """The request body, complete and as the header commits to it. Raises `Unreadable` or `Refused`."""
    if len(chunks) > MAX_REQUEST_CHUNKS:
        raise Refused("node.body_chunks", f"{len(chunks)} chunks, at most {MAX_REQUEST_CHUNKS}")
    opener = seal.request_opener(order.secret, order.digest)
    body = bytearray()
    for chunk in chunks:
        body += opener.open(chunk)
        if len(body) > order.header.limits.body_bytes:
            raise Refused("node.body_bytes", "the body is longer than the header allows")
    if not opener.done:
        raise Refused("node.body_incomplete", "the final chunk of the body is missing")
    if seal.input_commitment(order.secret, bytes(body)).hex() != order.header.input_commitment:
        raise Refused("node.input_commitment", "the body is not the one that the header commits to")
    return bytes(body)


def _authenticate(header: bytes, trust: FederationTrust, domain: str, now: datetime) -> Received[Execute]:
    """The claimed issuer only chooses whose pinned keys must have signed."""
    claimed = read_json(envelope.read(header, limit=MAX_HEADER_BYTES).payload)
    consumer = claimed.get("iss") if isinstance(claimed, dict) else None
    if not isinstance(consumer, str):
        raise Unreadable("node.header", "the header names no consumer")
    return receive(
        header,
        Execute,
        keys=trust.keys(consumer, "message", now),
        sender=consumer,
        audience=domain,
        federation=trust.federation,
        now=now,
    )


def _check_model(execute: Execute, models: Mapping[str, str]) -> None:
    for capability, digest in models.items():
        same_class = capability == execute.capability or capability.startswith(execute.capability + "/")
        if same_class and digest == execute.model_digest:
            return
    raise Refused("node.model", "the model that the order names does not lie here")


def _names(execute: Execute, digest: bytes, sealed_secret: bytes) -> tuple[bytes, ...]:
    """What makes two orders the same: the header, the sealed secret, or the attempt that it states."""
    attempt = length_prefixed(
        b"comity attempt v1",
        execute.iss.encode(),
        execute.request_id.encode(),
        execute.attempt.to_bytes(8, "big"),
    )
    return digest, sha256(sealed_secret), sha256(attempt)


def _open(epoch: SealEpoch, sealed_secret: bytes, digest: bytes) -> bytes:
    return epoch.key.open_secret(sealed_secret, digest)
