"""The consumer's end of one attempt: make the order, seal the body, open and check the answer.

Nothing here knows the road. An attempt is complete only when the node's own signed statement
arrived inside the final sealed chunk and says of the answer what we saw of it (session.md 8).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final, cast

from attestation.appraise import NodeAppraisal
from broker.peers import Peers
from broker.placing.negotiate import Offered
from receipts.statements.node import NodeStatement, verify_node_statement
from receipts.statements.statement import Statement
from schemas import envelope, seal
from schemas.canonical import Json
from schemas.errors import Refused, Unreadable
from schemas.messages import answer
from schemas.messages.execute import Execute, chunk_body, pack

MAX_COUNTED: Final = 2**40  # tokens, or milliseconds (35 years), of one run: sums over runs stay exact
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024  # what one answer may hold before we stop reading


@dataclass(frozen=True, slots=True)
class Sealed:
    """What goes on the wire for one attempt."""

    header: Execute
    header_digest: bytes
    head: bytes = field(repr=False)
    chunks: tuple[bytes, ...] = field(repr=False)
    sealed_secret: bytes = field(repr=False)
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delta:
    """Something for the application: plain text, or OpenAI choices as the engine gave them."""

    text: str | None
    choices: list[Json] | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The verified end of a run."""

    statement: Statement[NodeStatement] = field(repr=False)
    end: answer.EndOfRun


def new_commitment(body: bytes) -> tuple[bytes, str]:
    """A fresh secret for one attempt, and the commitment to the body that derives from it (hex)."""
    secret = seal.new_secret()
    return secret, seal.input_commitment(secret, body).hex()


def check_node(offered: Offered, appraisal: NodeAppraisal) -> NodeAppraisal:
    """The appraisal, if it is of the node that was offered. Raises `Refused` (`attempt.node_swapped`)."""
    offer, seal_digest = offered.body, hashlib.sha256(appraisal.seal_key).hexdigest()
    if (offer.node_sign, offer.node_seal) != (appraisal.sign_key.thumbprint, seal_digest):
        raise Refused("attempt.node_swapped", "the offer's node key is not the one the evidence proves")
    return appraisal


def seal_attempt(
    peers: Peers, offered: Offered, appraisal: NodeAppraisal, *, secret: bytes, body: bytes, **order: Any
) -> Sealed:
    """Sign the Execute header for this offer's node and seal `body` to the key that *we* appraised.

    Raises `Refused` (`attempt.node_swapped`) when the offer names another node than the evidence proves.
    """
    check_node(offered, appraisal)
    offer = offered.body
    header = peers.compose(
        Execute,
        offered.domain,
        nid=offer.nid,
        seq=2,
        prev=offered.offer.digest.hex(),
        node_sign=offer.node_sign,
        node_seal=offer.node_seal,
        offer=offered.offer.digest.hex(),
        hold_id=offer.hold_id,
        model_digest=offer.model_digest,
        model_signing=offer.model_signing,
        capability=offer.capability,
        input_commitment=seal.input_commitment(secret, body).hex(),
        **order,
    )
    signed = peers.sign(header)
    digest = envelope.read(signed).digest
    sealed = seal.seal_secret(secret, appraisal.seal_key, digest)
    sealer = seal.request_sealer(secret, digest)
    pieces = chunk_body(body)
    chunks = tuple(sealer.seal(piece, final=at == len(pieces) - 1) for at, piece in enumerate(pieces))
    return Sealed(header, digest, pack(signed, sealed), chunks, sealed, secret)


@dataclass(slots=True)
class AnswerReader:
    """Opens an answer frame by frame. The first wrong frame ends it; nothing is skipped."""

    sealed: Sealed
    appraisal: NodeAppraisal
    ended: Ended | None = None
    output: bytearray = field(default_factory=bytearray, repr=False)
    _opener: seal.ChunkOpener | None = None

    def read(self, frame: answer.Tagged) -> Delta | None:
        """The next RUN or CHUNK frame. None for what the application does not see.

        Raises `Unreadable` or `Refused` for anything that is not exactly the next part of this run.
        """
        if frame.kind == answer.RUN:
            self._start(frame.content)
            return None
        if self._opener is None:
            raise Refused("attempt.no_run", "a chunk before the run's nonce")
        content = self._opener.open(frame.content)
        part = answer.untag(content, answer.TEXT + answer.CHOICES + answer.KEEPALIVE + answer.END)
        if self._opener.done != (part.kind == answer.END):
            raise Refused("attempt.end_marker", "the final chunk and the end marker do not coincide")
        if part.kind == answer.END:
            self.ended = self._finish(part.content)
            return None
        return self._delta(part)

    def _start(self, nonce: bytes) -> None:
        if self._opener is not None:
            raise Refused("attempt.second_run", "the node's nonce came twice")
        sealed = self.sealed
        self._opener = seal.answer_opener(sealed.secret, sealed.header_digest, sealed.sealed_secret, nonce)

    def _delta(self, part: answer.Tagged) -> Delta | None:
        if part.kind == answer.KEEPALIVE:
            return None
        self.output += part.content
        if len(self.output) > MAX_ANSWER_BYTES:
            raise Refused("attempt.answer_too_long", f"more than {MAX_ANSWER_BYTES} bytes of answer")
        try:
            text = part.content.decode("utf-8")
            return Delta(text) if part.kind == answer.TEXT else Delta(None, _choices(text))
        except (ValueError, RecursionError):
            raise Unreadable("attempt.part", "a part is not what its kind says") from None

    def _finish(self, content: bytes) -> Ended:
        """The end marker: the node's own word about this very run (session.md 8)."""
        end = answer.EndOfRun.read(content)
        statement = verify_node_statement(end.statement.encode("utf-8"), self.appraisal.sign_key)
        said, ordered = statement.body, self.sealed.header
        if said.header != self.sealed.header_digest.hex():
            raise Refused("attempt.statement_header", "the statement is about another order")
        ran = (said.capability.artifact_digest, said.capability.model_signing_digest)
        if ran != (ordered.model_digest, ordered.model_signing):
            raise Refused("attempt.statement_model", "another model ran than was ordered")
        if said.response.commitment != seal.output_commitment(self.sealed.secret, bytes(self.output)).hex():
            raise Refused("attempt.statement_output", "the answer is not the one the node states")
        if max(end.usage.model_dump().values()) > MAX_COUNTED:
            raise Refused("attempt.usage", f"no run counts more than {MAX_COUNTED}")
        return Ended(statement, end)


def _choices(text: str) -> list[Json]:
    choices = json.loads(text)
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError("not a list of choices")
    return cast(list[Json], choices)
