"""A consumer's broker as a node meets it: signed orders, sealed bodies, and reading what comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from domain_agent.tests.founding import CAPABILITY, FEDERATION, OURS, PEER
from receipts.statements.node import NodeStatement, read_node_statement
from schemas import envelope, seal
from schemas.canonical import sha256
from schemas.keys import SigningKey, VerifyKey
from schemas.messages import answer
from schemas.messages.execute import Execute, Limits, chunk_body, pack
from schemas.messages.message import FIRST, new_nonce, sign


@dataclass(frozen=True)
class NodeFacts:
    """What an offer and our own appraisal tell of a node."""

    sign: VerifyKey
    seal_key: bytes
    model_digest: str


@dataclass
class Attempt:
    """One sealed order, ready to be sent, and the secret to read its answer with."""

    header: bytes
    sealed_secret: bytes
    chunks: list[bytes]
    secret: bytes
    digest: bytes
    facts: NodeFacts
    text: str = ""
    choices: list[Any] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    end: answer.EndOfRun | None = None
    statement: NodeStatement | None = None
    clear_statement: NodeStatement | None = None
    problem: answer.Problem | None = None
    _output: bytes = b""
    _opener: seal.ChunkOpener | None = None

    @property
    def head(self) -> bytes:
        return pack(self.header, self.sealed_secret)

    def read(self, frames: Iterable[bytes]) -> Attempt:
        for frame in frames:
            self.take(frame)
        return self

    def take(self, frame: bytes) -> None:
        tagged = answer.untag(frame, answer.RUN + answer.CHUNK + answer.STATEMENT + answer.PROBLEM)
        match tagged.kind:
            case answer.RUN:
                assert self._opener is None
                self._opener = seal.answer_opener(
                    self.secret, self.digest, self.sealed_secret, tagged.content
                )
            case answer.CHUNK:
                assert self._opener
                self._take_part(self._opener.open(tagged.content))
            case answer.STATEMENT:
                self.clear_statement = read_node_statement(tagged.content, self.facts.sign)
            case answer.PROBLEM:
                self.problem = answer.Problem.read(tagged.content)

    def _take_part(self, content: bytes) -> None:
        part = answer.untag(content, answer.TEXT + answer.CHOICES + answer.KEEPALIVE + answer.END)
        self.parts.append(part.kind)
        if part.kind == answer.TEXT:
            self._output += part.content
            self.text += part.content.decode()
        elif part.kind == answer.CHOICES:
            self._output += part.content
            self.choices += json.loads(part.content)
        elif part.kind == answer.END:
            self._end(part.content)

    def _end(self, content: bytes) -> None:
        assert self._opener
        assert self._opener.done
        self.end = answer.EndOfRun.read(content)
        self.statement = read_node_statement(self.end.statement.encode(), self.facts.sign)
        assert self.statement.header == self.digest.hex()
        assert self.statement.response.commitment == seal.output_commitment(self.secret, self._output).hex()


@dataclass
class Consumer:
    """Signs as `domain`."""

    key: SigningKey
    domain: str = PEER

    def order(
        self,
        facts: NodeFacts,
        body: dict[str, Any],
        *,
        key: SigningKey | None = None,
        limits: Limits | None = None,
        **changes: Any,
    ) -> Attempt:
        """A good order; `changes` replace fields of the header, `key` signs it instead of ours."""
        secret, raw = seal.new_secret(), json.dumps(body).encode()
        now = int(time.time())
        fields: dict[str, Any] = {
            "typ": "Execute",
            "federation": FEDERATION,
            "iss": self.domain,
            "aud": OURS,
            "nid": new_nonce(),
            "seq": 2,
            "iat": now,
            "exp": now + 60,
            "nonce": new_nonce(),
            "prev": FIRST,
            "node_sign": facts.sign.thumbprint,
            "node_seal": sha256(facts.seal_key).hex(),
            "offer": "1" * 64,
            "hold_id": "hold",
            "placement": "2" * 64,
            "request_id": new_nonce(),
            "attempt": 0,
            "tags_digest": "3" * 64,
            "capability": CAPABILITY,
            "model_digest": facts.model_digest,
            "cache_scope": "none",
            "retention_s": 0,
            "input_commitment": seal.input_commitment(secret, raw).hex(),
            "limits": limits or Limits(output_tokens=64, body_bytes=1 << 20, time_ms=60_000),
        }
        header = sign(Execute(**{**fields, **changes}), key or self.key)
        digest = envelope.read(header).digest
        sealer = seal.request_sealer(secret, digest)
        pieces = chunk_body(raw)
        return Attempt(
            header=header,
            sealed_secret=seal.seal_secret(secret, facts.seal_key, digest),
            chunks=[sealer.seal(piece, final=piece is pieces[-1]) for piece in pieces],
            secret=secret,
            digest=digest,
            facts=facts,
        )


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
