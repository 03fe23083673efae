"""`--trust FILE`: what an auditor holds as true before looking at a bundle. TOML, complete or refused.

Reading the file itself is the caller's part; here are only bytes. The pinned root is always the
auditor's own: the bundle brings charter and manifests, this file says which ones to believe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from attestation.expected import Expectations
from receipts.makers.choice import judge
from receipts.model_signature import SignedModel
from receipts.verify.claim import CLAIMS, ClaimName
from receipts.witnessing.quorum import NONE, Policy
from receipts.witnessing.quorum import read as read_policy
from schemas.errors import ConfigurationError, Refused, Unreadable
from schemas.papers.manifest import Roots
from schemas.toml import Table, parse_toml

MAX_TRUST_BYTES: Final = 1024 * 1024  # a file that people write
MAX_MODELS: Final = 256  # signatures that one auditor brings
MAX_OPERATORS: Final = 64  # of a quorum by number
_KEYS: Final = frozenset(
    {
        "federation",
        "charter",
        "roots",
        "quorum",
        "single_operator",
        "profile",
        "expectations",
        "audience",
        "models",
    }
)
ANY: Final = "any"
_FILE: Final = r"[^\0]{1,4096}"

_MINIMAL: Final[tuple[ClaimName, ...]] = ("signature", "schema", "issuer-key", "logged")
_STANDARD: Final = (*_MINIMAL, "placement-link", "execution-link", "ack-link", "attested")
_WITNESSED: Final = ("standard", "strict")  # with a quorum in the trust file, these require `witnessed`
_STRICT: Final = (*_STANDARD, "policy", "plan-choice", "capability", "usage", "sequence", "time")
PROFILES: Final[Mapping[str, frozenset[ClaimName]]] = {
    "minimal": frozenset(_MINIMAL),
    "standard": frozenset(_STANDARD),
    "strict": frozenset(_STRICT),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """Which claims must be proved for exit code 0. Printed with every report."""

    name: str
    requires: frozenset[ClaimName]


@dataclass(frozen=True, slots=True)
class TrustFile:
    """A parsed trust file."""

    source: str
    federation: str
    charter: bytes | None
    """Pinned DSSE digest of the charter; None when root keys are pinned instead."""
    roots: Mapping[str, Roots] = field(repr=False)
    profile: Profile
    expectations: Expectations | None
    """None when waived: then `attested` is not checked, and not required."""
    audience: str | None
    """The domain that relies on the receipts; None for an auditor, who is no party."""
    waived: tuple[str, ...]
    quorum: int | Policy | None = None
    """How many operators, or a tlog-policy; None when waived."""
    models: tuple[SignedModel, ...] = ()
    """Models whose signatures the auditor verified under keys of its own choice."""
    single_operator: bool = False
    """A quorum that one operator could meet alone is accepted, and named as such."""


def parse(data: bytes, *, source: str, read: Callable[[str], bytes]) -> TrustFile:
    """Read a trust file. `read` gives the bytes of a file that it names, relative to its own place.

    Raises `ConfigurationError`, naming file, key and what to write.
    """
    top = parse_toml(data, source, limit=MAX_TRUST_BYTES, area="trust_file")
    for key in top:
        if key not in _KEYS:
            raise _error(source, key, "is not a key", f"one of {', '.join(sorted(_KEYS))}")
    charter, roots = _pins(top, source)
    quorum = _quorum(top, source, read)
    expectations = _expectations(top, source, read)
    profile = _profile(top, source, read)
    if quorum is not None and profile.name in _WITNESSED:
        profile = Profile(profile.name, profile.requires | {"witnessed"})
    if expectations is None:
        profile = Profile(profile.name, profile.requires - {"attested"})
    return TrustFile(
        source=source,
        federation=_text(top, source, "federation", r"[\x21-\x7e]{1,128}", 'federation = "<name>"'),
        charter=charter,
        roots=roots,
        profile=profile,
        expectations=expectations,
        audience=_audience(top, source),
        quorum=quorum,
        models=_models(top, source, read),
        single_operator="single_operator" in top,
        waived=_waived(top, expectations),
    )


def _pins(top: Mapping[str, Any], source: str) -> tuple[bytes | None, dict[str, Roots]]:
    if ("charter" in top) == ("roots" in top):
        write = 'charter = "<64 hex digits>", or a table [roots."<domain>"] with threshold and keys'
        raise _error(source, "charter", "or roots must be set, and only one of them", write)
    if "charter" in top:
        write = 'charter = "<64 hex digits: the fingerprint that the members agreed>"'
        return bytes.fromhex(_text(top, source, "charter", r"[0-9a-f]{64}", write)), {}
    tables = top["roots"]
    if not isinstance(tables, dict) or not tables:
        raise _error(source, "roots", "is no table", '[roots."<domain>"]')
    return None, {domain: _roots(domain, table, source) for domain, table in tables.items()}


def _roots(domain: str, table: object, source: str) -> Roots:
    try:
        roots = Roots.model_validate(table, strict=True)
    except ValidationError:
        write = 'threshold = 1 and keys = [{kty = "EC", crv = "P-256", x = "…", y = "…"}]'
        raise _error(source, f'roots."{domain}"', "is not a set of root keys", write) from None
    if roots.threshold > len(roots.keys):
        raise _error(source, f'roots."{domain}".threshold', "exceeds the number of keys", "a smaller one")
    return roots


def _quorum(top: Mapping[str, Any], source: str, read: Callable[[str], bytes]) -> int | Policy | None:
    """How many operators besides the log's own must have seen its tree. Unset is an error (DESIGN 14)."""
    write = 'quorum = 2 (operators), quorum = "<tlog-policy file>", or quorum = "none"'
    if top.get("single_operator", ANY) != ANY:
        raise _error(
            source, "single_operator", "has the wrong form", 'single_operator = "any", or leave it out'
        )
    match top.get("quorum"):
        case None:
            raise _error(source, "quorum", "is not set", write)
        case "none":
            return None
        case bool():
            raise _error(source, "quorum", "has the wrong form", write)
        case int(needed) if 1 <= needed <= MAX_OPERATORS:
            if needed == 1 and "single_operator" not in top:
                more = 'a larger one, or single_operator = "any" to accept that one operator decides alone'
                raise _error(source, "quorum", "could be met by a single operator", more)
            return needed
        case str(name) if 0 < len(name) <= 4096 and "\0" not in name:
            return _policy_file(name, read)
    raise _error(source, "quorum", "has the wrong form", write)


def _policy_file(name: str, read: Callable[[str], bytes]) -> Policy | None:
    try:
        policy = read_policy(read(name))
    except (Unreadable, Refused) as error:
        raise ConfigurationError("trust_file.quorum", f"{name}: {error.text}") from None
    return None if policy.quorum == NONE else policy


def _waived(top: Mapping[str, Any], expectations: Expectations | None) -> tuple[str, ...]:
    found = {"expectations": expectations is None, "single_operator": "single_operator" in top}
    return tuple(name for name, waived in found.items() if waived)


def _expectations(top: Mapping[str, Any], source: str, read: Callable[[str], bytes]) -> Expectations | None:
    write = 'expectations = "expected.toml" (what you demand of nodes), or expectations = "any"'
    name = _text(top, source, "expectations", _FILE, write)
    return None if name == ANY else Expectations.parse(read(name), source=name)


class _Models(Table):
    UNSET = INVALID = UNKNOWN = "trust_file.models"


def _models(top: Mapping[str, Any], source: str, read: Callable[[str], bytes]) -> tuple[SignedModel, ...]:
    """`[[models]]`: signatures of models, each with whom it must be by."""
    write = '[[models]] with signature = "<file>" and signer'
    listed = top.get("models", [])
    if not isinstance(listed, list) or len(listed) > MAX_MODELS:
        raise _error(source, "models", "is no list of tables", write)
    found: list[SignedModel] = []
    for number, entry in enumerate(listed):
        if not isinstance(entry, dict):
            raise _error(source, "models", "has the wrong form", write)
        table = _Models(source, f"models.{number}", entry)
        signature = table.text("signature", _FILE, write='signature = "<file>"')
        try:
            found.append(judge(table, "signer", read)(read(signature)))
        except (Unreadable, Refused) as error:
            raise ConfigurationError("trust_file.models", f"{signature}: {error.text}") from None
        table.finish()
    return tuple(found)


def _profile(top: Mapping[str, Any], source: str, read: Callable[[str], bytes]) -> Profile:
    name = top.get("profile", "standard")
    if not isinstance(name, str) or not re.fullmatch(_FILE, name):
        raise _error(source, "profile", "is no name of one, nor of a file", 'profile = "standard"')
    if name in PROFILES:
        return Profile(name, PROFILES[name])
    own = parse_toml(read(name), name, limit=MAX_TRUST_BYTES, area="trust_file")
    requires = own.get("requires")
    if set(own) != {"requires"} or not isinstance(requires, list) or not requires:
        raise _error(name, "requires", "is no list of claims", 'requires = ["signature", "schema"]')
    if unknown := [claim for claim in requires if claim not in CLAIMS]:
        raise _error(name, "requires", f"names {unknown[0]!r:.40}, no claim", f"some of {', '.join(CLAIMS)}")
    return Profile(name, frozenset(claim for claim in CLAIMS if claim in requires))


def _audience(top: Mapping[str, Any], source: str) -> str | None:
    if "audience" not in top:
        return None
    return _text(top, source, "audience", _DOMAIN, 'audience = "<domain>"')


_DOMAIN: Final = r"[a-z0-9.-]{3,253}"


def _text(top: Mapping[str, Any], source: str, key: str, pattern: str, write: str) -> str:
    value = top.get(key)
    if value is None:
        raise _error(source, key, "is not set", write)
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise _error(source, key, "has the wrong form", write)
    return value


def _error(source: str, key: str, problem: str, write: str) -> ConfigurationError:
    return ConfigurationError("trust_file.key", f"{source}: {key} {problem}; write {write}")
