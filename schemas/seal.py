"""The one place that seals: nobody but the application's broker and the attested node reads a prompt.

A fresh 32-byte secret travels to the node under HPKE (X-Wing, HKDF-SHA256, AES-256-GCM) with the
signed Execute header's digest as `info`. Request key, answer key and commitment keys all derive
from it; the two directions never share a key (session.md 7). Chunks are counted and bound to the
header, so that reordered, dropped, repeated and foreign ones are refused, and padded, so that only
a rough size shows.

What Python cannot do: erase keys from memory for certain. The process boundary (the TEE) stands for that.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from schemas.canonical import length_prefixed, sha256
from schemas.errors import Refused, Unreadable

SECRET_BYTES: Final = 32
RUN_NONCE_BYTES: Final = 32  # drawn by the node for each run and sent first
SEAL_KEY_BYTES: Final = 1184 + 32  # ML-KEM-768 ‖ X25519
SEALED_SECRET_BYTES: Final = 1088 + 32 + SECRET_BYTES + 16
PADDING_BUCKETS: Final = (256, 1024, 4096, 16384, 65536)  # bytes of plaintext, length prefix included
MAX_CHUNK_TEXT: Final = PADDING_BUCKETS[-1] - 4  # bytes of content in one chunk
CHUNK_OVERHEAD: Final = 1 + 16  # final flag, tag
MAX_CHUNKS: Final = 2**32 - 1

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

Direction = Literal[b"req", b"ans"]


@dataclass(frozen=True, slots=True)
class SealKey:
    """A node's HPKE private key. It lives in memory only and dies with its key epoch."""

    private: MLKEM768X25519PrivateKey = field(repr=False, compare=False)
    public: bytes
    """ML-KEM-768 ‖ X25519 public keys, 1,216 bytes."""

    @classmethod
    def generate(cls) -> SealKey:
        kem, curve = mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
        public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        return cls(MLKEM768X25519PrivateKey(kem, curve), public)

    def open_secret(self, sealed: bytes, header_digest: bytes) -> bytes:
        """The secret inside. Raises `Refused` when it was sealed to another key or under another header."""
        if len(sealed) != SEALED_SECRET_BYTES:
            raise Unreadable("seal.secret_length", f"a sealed secret is {SEALED_SECRET_BYTES} bytes")
        try:
            secret = _SUITE.decrypt(sealed, self.private, info=header_digest)
        except (InvalidTag, ValueError):
            raise Refused("seal.secret_invalid", "not sealed to this key under this header") from None
        if len(secret) != SECRET_BYTES:
            raise Refused("seal.secret_length", "the secret is not 32 bytes")
        return secret


def new_secret() -> bytes:
    """A fresh secret for one attempt."""
    return secrets.token_bytes(SECRET_BYTES)


def seal_secret(secret: bytes, seal_key: bytes, header_digest: bytes) -> bytes:
    """Seal `secret` to a node's public key with the header's digest as HPKE info. Raises `Refused`."""
    if len(seal_key) != SEAL_KEY_BYTES:
        raise Refused("seal.key_length", f"a seal key is {SEAL_KEY_BYTES} bytes")
    try:
        public = MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(seal_key[:1184]),
            x25519.X25519PublicKey.from_public_bytes(seal_key[1184:]),
        )
        return _SUITE.encrypt(secret, public, info=header_digest)
    except ValueError:
        raise Refused("seal.key_invalid", "not a valid X-Wing public key") from None


def input_commitment(secret: bytes, body: bytes) -> bytes:
    """Keyed commitment to a request body (32 bytes), from the secret alone: it stands in the header."""
    return hmac.digest(_derive(secret, b"", b"comity commit in"), body, "sha256")


def output_commitment(secret: bytes, output: bytes) -> bytes:
    """Keyed commitment to an answer (32 bytes)."""
    return hmac.digest(_derive(secret, b"", b"comity commit out"), output, "sha256")


def request_sealer(secret: bytes, header_digest: bytes) -> ChunkSealer:
    """Seals the request body, at the consumer."""
    return ChunkSealer(_derive(secret, header_digest, b"comity req"), header_digest, b"req")


def request_opener(secret: bytes, header_digest: bytes) -> ChunkOpener:
    """Opens the request body, at the node."""
    return ChunkOpener(_derive(secret, header_digest, b"comity req"), header_digest, b"req")


def answer_sealer(secret: bytes, header_digest: bytes, sealed_secret: bytes, run_nonce: bytes) -> ChunkSealer:
    """Seals the answer, at the node."""
    return ChunkSealer(_answer_key(secret, sealed_secret, run_nonce), header_digest, b"ans")


def answer_opener(secret: bytes, header_digest: bytes, sealed_secret: bytes, run_nonce: bytes) -> ChunkOpener:
    """Opens the answer, at the consumer."""
    return ChunkOpener(_answer_key(secret, sealed_secret, run_nonce), header_digest, b"ans")


@dataclass(slots=True)
class ChunkSealer:
    """One direction of one attempt, the sealing end. Not safe for several tasks at once."""

    _key: bytes = field(repr=False)
    _header_digest: bytes
    _direction: Direction
    _index: int = 0
    _done: bool = False
    _aead: AESGCM = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._aead = AESGCM(self._key)

    def seal(self, content: bytes, *, final: bool = False) -> bytes:
        """The next chunk: final flag ‖ AES-256-GCM(padded content of at most `MAX_CHUNK_TEXT` bytes)."""
        if self._done:
            raise Refused("seal.after_final", "nothing follows the final chunk")
        associated = _associated(self._header_digest, self._direction, self._index, final)
        sealed = self._aead.encrypt(_nonce(self._index), pad(content), associated)
        self._index += 1
        self._done = final
        return (b"\1" if final else b"\0") + sealed


@dataclass(slots=True)
class ChunkOpener:
    """One direction of one attempt, the opening end. Any wrong chunk ends it for good."""

    _key: bytes = field(repr=False)
    _header_digest: bytes
    _direction: Direction
    _index: int = 0
    _broken: bool = False
    done: bool = False
    """True once the final chunk was opened; until then the content is not complete."""
    _aead: AESGCM = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._aead = AESGCM(self._key)

    def open(self, chunk: bytes) -> bytes:
        """The next chunk's content. Raises `Refused` when it is not exactly the next one of this attempt."""
        if self.done:
            raise Refused("seal.after_final", "a chunk after the final one")
        if self._broken:
            raise Refused("seal.broken", "a wrong chunk came before; nothing after it counts")
        self._broken = True  # until this one is found right
        if len(chunk) < CHUNK_OVERHEAD or chunk[0] > 1:
            raise Unreadable("seal.chunk", "not a sealed chunk")
        final = chunk[0] == 1
        associated = _associated(self._header_digest, self._direction, self._index, final)
        try:
            content = unpad(self._aead.decrypt(_nonce(self._index), chunk[1:], associated))
        except InvalidTag:
            raise Refused("seal.chunk_invalid", f"chunk {self._index} is not what was sealed") from None
        self._index += 1
        self._broken = False
        self.done = final
        return content


def pad(content: bytes) -> bytes:
    """u32 length ‖ content ‖ zeros up to the next bucket. Raises `Refused` beyond the largest."""
    size = len(content) + 4
    for bucket in PADDING_BUCKETS:
        if size <= bucket:
            return len(content).to_bytes(4, "big") + content + bytes(bucket - size)
    raise Refused("seal.chunk_too_long", f"{len(content)} bytes, at most {MAX_CHUNK_TEXT}")


def unpad(padded: bytes) -> bytes:
    """The content of `pad`. Raises `Refused` when length, bucket or zeros are wrong."""
    size = int.from_bytes(padded[:4], "big")
    if len(padded) not in PADDING_BUCKETS or size > len(padded) - 4 or any(padded[4 + size :]):
        raise Refused("seal.padding", "wrong padding")
    return padded[4 : 4 + size]


def _derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)


def _answer_key(secret: bytes, sealed_secret: bytes, run_nonce: bytes) -> bytes:
    if len(run_nonce) != RUN_NONCE_BYTES:
        raise Unreadable("seal.run_nonce", "a run nonce is 32 bytes")
    return _derive(secret, sha256(sealed_secret) + run_nonce, b"comity ans")


def _nonce(index: int) -> bytes:
    if index >= MAX_CHUNKS:
        raise Refused("seal.chunk_count", "too many chunks under one key")
    return index.to_bytes(12, "big")


def _associated(header_digest: bytes, direction: Direction, index: int, final: bool) -> bytes:
    return length_prefixed(
        b"comity chunk v1", header_digest, direction, index.to_bytes(8, "big"), b"\1" if final else b"\0"
    )
