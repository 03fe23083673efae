"""What a configuration says of who must have signed a model: one of three forms, complete or refused.

signer = "maker.pem"                                                  a public key (P-256)
signer = { roots = ["root.pem", "sha256:…"], name = "…", at = "…" }   a certificate under these roots
signer = { sigstore = "root.json", identity = "…", issuer = "…" }     an identity under this Sigstore root
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from cryptography import x509

from receipts.makers.certificate import MAX_PINNED, Certified, read_roots, verify_certified
from receipts.makers.keyless import Keyless, read_root, verify_keyless
from receipts.model_signature import SignedModel, read_signer, verify_model
from schemas.errors import Unreadable
from schemas.primitives import parse_time
from schemas.toml import Table

ANY: Final = "any"
_FILE: Final = r"[^\0]{1,4096}"
_NAME: Final = r"[^\0\n]{1,512}"
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_FORMS: Final = (
    '"<public key, PEM>", { roots = ["…"], name = "…", at = "…" }'
    ' or { sigstore = "…", identity = "…", issuer = "…" }'
)

Judge: TypeAlias = Callable[[bytes], SignedModel]
"""Signature file → the model that it signs, by whom it must be. Raises `Unreadable` or `Refused`."""


def judge(table: Table, key: str, read: Callable[[str], bytes]) -> Judge:
    """Who must have signed, as `key` of this table says. `read` gives the bytes of a file that it names.

    Raises `ConfigurationError` for what is unset or of the wrong form; `Unreadable` or `Refused` for a file
    that is not what it should be.
    """
    value = table.take(key, write=f"{key} = {_FORMS}")
    if isinstance(value, str) and re.fullmatch(_FILE, value):
        keys = [read_signer(read(value))]
        return lambda data: verify_model(data, keys)
    if not isinstance(value, dict):
        raise table.error(key, "has the wrong form", f"{key} = {_FORMS}")
    if ("roots" in value) == ("sigstore" in value):
        raise table.error(key, "names neither or both of roots and sigstore", f"{key} = {_FORMS}")
    return (_certified if "roots" in value else _keyless)(table.child(key), read)


def _certified(table: Table, read: Callable[[str], bytes]) -> Judge:
    write = 'roots = ["<PEM file>" or "sha256:<64 hex digits>", …]'
    listed = table.take("roots", write=write)
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_PINNED:
        raise table.error("roots", "is no list of roots", write)
    name = table.text("name", _NAME, write='name = "<who must have signed>", or name = "any"')
    moment = 'at = "<RFC 3339>": the moment at which the chain must hold, such as when you took the model in'
    at = table.text("at", r"[0-9TZ:.\-]{20,27}", write=moment)
    table.finish()
    try:
        when = parse_time(at)
    except Unreadable:
        raise table.error("at", "is no moment", moment) from None
    roots, digests = _roots(table, listed, read, write)
    demanded = Certified(when, None if name == ANY else name, roots, digests)
    return lambda data: verify_certified(data, demanded)


def _roots(
    table: Table, listed: list[Any], read: Callable[[str], bytes], write: str
) -> tuple[tuple[x509.Certificate, ...], frozenset[bytes]]:
    roots: list[x509.Certificate] = []
    digests: set[bytes] = set()
    for entry in listed:
        if not isinstance(entry, str) or not re.fullmatch(_FILE, entry):
            raise table.error("roots", "is no list of roots", write)
        if found := _DIGEST.fullmatch(entry):
            digests.add(bytes.fromhex(found[1]))
        elif entry.startswith("sha256:"):
            raise table.error("roots", "holds something that is no SHA-256", write)
        else:
            roots += read_roots(read(entry))
    return tuple(roots), frozenset(digests)


def _keyless(table: Table, read: Callable[[str], bytes]) -> Judge:
    root = table.text("sigstore", _FILE, write='sigstore = "<trusted root, JSON>"')
    identity = table.text("identity", _NAME, write='identity = "<the signer\'s address or URI>"')
    issuer = table.text("issuer", _NAME, write='issuer = "<URL of who vouches for that identity>"')
    table.finish()
    demanded = Keyless(read_root(read(root)), identity, issuer)
    return lambda data: verify_keyless(data, demanded)
