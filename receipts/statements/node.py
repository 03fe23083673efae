"""NodeStatement: the attested node's own word about one run, and the end marker of every answer.

Signed by the node key that the hardware evidence vouches for; a border can neither make nor alter
it (session.md 8). It travels sealed in the final chunk and, to its own domain, in the clear.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final

from pydantic import Field

from receipts.statements.fields import Camel, Capability, Commitment, Times, Usage
from receipts.statements.receipt import PREDICATES, Outcome
from receipts.statements.statement import Statement, frame, parse_payload
from schemas import envelope
from schemas.errors import Refused
from schemas.keys import SigningKey, VerifyKey
from schemas.primitives import Count, Digest, DomainName, Label, Thumbprint

REMEMBERED: Final = 64  # statements of about 2 KiB: more than are between a border and its reader
NODE_STATEMENT: Final = f"{PREDICATES}/node-statement/v1"


class NodeStatement(Camel):
    """What the node did under one Execute header."""

    header: Digest
    """Digest of the Execute header, and thereby of everything the consumer ordered."""
    federation: Label
    domain: DomainName
    node_key: Thumbprint
    """Thumbprint of the key that signs this: the one inside the appraised evidence."""
    segment: Count
    """0 for a first run, then one more for each continuation of the same answer."""
    outcome: Outcome
    code: Label
    """Machine-readable reason, e.g. `ok`, `engine.lost`."""
    finish_reason: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")]
    capability: Capability
    """What was run; `artifactDigest` is what the node itself hashed at load."""
    usage: Usage
    response: Commitment
    """Keyed commitment to the output (schemas.seal.output_commitment)."""
    times: Times


def sign_node_statement(statement: NodeStatement, key: SigningKey) -> bytes:
    """The statement's envelope. Raises `Refused` when `key` is not the one that it names."""
    if statement.node_key != key.thumbprint:
        raise Refused("node_statement.key", "the statement names another node key")
    payload = frame(NODE_STATEMENT, statement.header, statement.header, statement.write())
    return envelope.sign(envelope.STATEMENT, payload, key)


def read_node_statement(data: bytes, key: VerifyKey) -> NodeStatement:
    """The statement that this node key signed. Raises `Unreadable` or `Refused`.

    `key` comes from evidence that the caller appraised, never from the statement.
    """
    return verify_node_statement(data, key).body


@lru_cache(maxsize=REMEMBERED)
def verify_node_statement(data: bytes, key: VerifyKey) -> Statement[NodeStatement]:
    """As `read_node_statement`, with the digest that the Execution links to.

    A domain that serves itself meets the same bytes twice, as border and as consumer: what was verified
    under this very key is remembered for a moment, not verified again.
    """
    verified = envelope.verify(data, envelope.STATEMENT, [key])
    statement = parse_node_statement(verified.payload)
    if statement.node_key != key.thumbprint:
        raise Refused("node_statement.key", "signed by another key than it names")
    return Statement(statement, verified.digest, verified.signer, data)


def parse_node_statement(payload: bytes) -> NodeStatement:
    """The payload, unverified. Raises `Unreadable` or `Refused`."""
    name, digest, statement = parse_payload(payload, NODE_STATEMENT, NodeStatement)
    if name != statement.header or digest != statement.header:
        raise Refused("receipt.subject", "the subject is not the header that the statement names")
    return statement
