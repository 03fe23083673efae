"""`PolicySet`: one owner's rules, and the gate they pass before they may decide anything.

A set is activated only if it parses, validates strictly against the schema, names every rule, keeps
to one family of permits that asks nothing of the request, uses known words only, and gives every
canary the outcome that was written down for it (A3).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from typing import Any, Final, Literal

import cedarpy
from pydantic import TypeAdapter, ValidationError

from schemas.canonical import jcs, sha256
from schemas.descriptors.tags import DATA_CLASSES
from schemas.errors import ComityError, Refused, Unreadable
from schemas.policy import cedar
from schemas.policy import jurisdictions as words
from schemas.policy.facts import BINDING_MODES, RequestContext, Subject
from schemas.primitives import DomainName

MAX_POLICY_BYTES: Final = 256 * 1024  # one owner's rules are a few pages
MAX_RULES: Final = 256
MAX_NESTING: Final = 32  # brackets inside each other; a rule that is written by hand has five
MAX_OPERATORS: Final = 256  # that nest terms, in one rule; the engine takes some sixty in a row
RULE_ID: Final = re.compile(r"[A-Z]{3}-[0-9]{3}-[a-z0-9-]+")
PERMIT_FAMILIES: Final = frozenset({"MEM", "ENT"})
"""Membership and entitlement: who may be asked at all. Every requirement is a `forbid`."""

_DEEPENING: Final = re.compile(
    r""""(?:[^"\\]++|\\.)*+"|//[^\n]*+|[(\[{]|[)\]}]|;|&&|\|\||[.+*-]|\b(?:if|has)\b""", re.DOTALL
)
"""What nests terms, beside the strings and comments in which nothing does."""

_VOCABULARIES: Final[Mapping[str, frozenset[str]]] = {
    "dataClass": frozenset(DATA_CLASSES),
    "status": frozenset({"active", "suspended"}),
    "keyControl": frozenset({"customer", "domain", "third-party", "unknown"}),
    "transferBasis": words.TRANSFER_BASES,
    "bindingMode": BINDING_MODES,
}
"""Text attributes with a closed vocabulary: a misspelt word would make a rule silently useless."""


_PARTS: Final = {"Participant": 1, "Domain": 1, "Tenant": 2, "Application": 3}
"""How many parts, with slashes between them, the name of an asker or a server has; a domain comes first."""
_DOMAIN_NAME: Final[TypeAdapter[str]] = TypeAdapter(DomainName)


@dataclass(frozen=True, slots=True)
class Canary:
    """A case whose outcome under this set alone is known beforehand."""

    name: str
    request: RequestContext
    subject: Subject
    expect: Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Rules that passed the gate. Immutable; a changed file is a new value with a new digest."""

    name: str
    digest: str
    """SHA-256 of the canonical JSON of the rules by id, hex: reformatting does not change it."""
    rules: Mapping[str, Any] = field(repr=False, compare=False)
    """Rule id → the rule in Cedar's JSON form."""
    text: str = field(repr=False, compare=False)
    """As its owner wrote it; what a record keeps for a replay."""
    overrides: tuple[str, ...] = ()
    """Canaries whose outcome changed and whose change was recorded as intended."""

    @classmethod
    def load(
        cls, text: str, name: str, canaries: Iterable[Canary] = (), *, overrides: Iterable[str] = ()
    ) -> PolicySet:
        """The set, if it passes the gate.

        `overrides` names canaries whose changed outcome the owner records as intended. Raises `Unreadable`
        (`policy.syntax`, `.too_long`, `.too_deep`) or `Refused`.
        """
        rules = _parse(text)
        _validate(text)
        handle = _compiled(rules)
        for rule, body in rules.items():
            _check_words(rule, body)
        _check_permits(rules)
        changed = _check_canaries(handle, canaries, frozenset(overrides))
        return cls(name, sha256(jcs(rules)).hex(), rules, text, changed)

    def rule_digest(self, rule: str) -> str | None:
        """SHA-256 of one rule's canonical form, hex; None when the set has no such rule."""
        body = self.rules.get(rule)
        return None if body is None else sha256(jcs(body)).hex()

    @property
    def permits(self) -> frozenset[str]:
        return frozenset(rule for rule, body in self.rules.items() if body["effect"] == "permit")


def _parse(text: str) -> dict[str, Any]:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_POLICY_BYTES:
        raise Unreadable("policy.too_long", f"at most {MAX_POLICY_BYTES} bytes of policy text")
    _check_depth(text)
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except (ValueError, RecursionError) as error:
        raise Unreadable("policy.syntax", f"not Cedar: {_first_line(error)}") from None
    if parsed["templates"] or parsed["templateLinks"]:
        raise Refused("policy.template", "templates are not used here: write each rule out")
    listed = list(parsed["staticPolicies"].values())
    if not 1 <= len(listed) <= MAX_RULES:
        raise Refused("policy.rule_count", f"{len(listed)} rules, between 1 and {MAX_RULES} allowed")
    rules: dict[str, Any] = {}
    for body in listed:
        rule = _rule_id(body)
        if rule in rules:
            raise Refused("policy.id_duplicate", f"two rules are called {rule}")
        rules[rule] = body
    return rules


def _check_depth(text: str) -> None:
    """Bound what the engine's parser recurses over: it ends the process where its stack ends.

    Texts come from strangers too: a receipt's bundle brings the rules that it was decided under.
    """
    depth = operators = 0
    for token in _DEEPENING.finditer(text):
        first = token[0][0]
        if first == ";":
            operators = 0
        elif first in "([{":
            depth += 1
        elif first in ")]}":
            depth -= 1
        elif first not in '"/':
            operators += 1
        if depth > MAX_NESTING or operators > MAX_OPERATORS:
            raise _too_deep()


def _too_deep() -> Unreadable:
    return Unreadable(
        "policy.too_deep",
        f"at most {MAX_NESTING} brackets inside each other and some sixty terms in a row: divide the rule",
    )


def _rule_id(body: Mapping[str, Any]) -> str:
    rule = body.get("annotations", {}).get("id")
    if not isinstance(rule, str):
        raise Refused("policy.id_missing", "a rule has no @id: its refusals could not be named")
    if not RULE_ID.fullmatch(rule) or len(rule) > 128:
        raise Refused("policy.id_pattern", f"{rule!r} is not of the form ABC-001-what-it-asks")
    return rule


def _validate(text: str) -> None:
    result = cedarpy.validate_policies(text, cedar.schema())
    if not result.validation_passed:
        names = result.id_annotations_by_policy_id
        error = result.errors[0]
        raise Refused("policy.invalid", f"{names.get(error.policy_id, error.policy_id)}: {error.error}")


def _check_permits(rules: Mapping[str, Any]) -> None:
    permits = {rule: body for rule, body in rules.items() if body["effect"] == "permit"}
    families = {rule[:3] for rule in permits}
    if not permits:
        raise Refused("policy.no_permit", "a set without a permit denies everything by default")
    if len(families) > 1 or not families <= PERMIT_FAMILIES:
        raise Refused(
            "policy.permit_family",
            f"permits belong to one family, MEM or ENT, not {', '.join(sorted(families))}",
        )
    for rule, body in permits.items():
        if any(node.get("Var") == "context" for node in _nodes(body) if isinstance(node, dict)):
            raise Refused("policy.permit_asks", f"{rule}: what the request must fulfil is a forbid")


def _check_words(rule: str, body: Mapping[str, Any]) -> None:
    """Every literal place, regime, certificate and class is a word we know. Raises `Refused`."""
    for node in _nodes(body):
        if isinstance(node, dict):
            for kind, name in _entity_literals(node):
                _check_entity(rule, kind, name)
            _check_text(rule, node)


def _entity_literals(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("__entity", "entity"):
        match node.get(key):
            case {"type": str(kind), "id": str(name)}:
                yield kind, name


def _check_entity(rule: str, kind: str, name: str) -> None:
    checks = {
        "Jurisdiction": _check_place,
        "Regime": words.check_regime,
        "Certification": words.check_certification,
    }
    try:
        if kind in _PARTS:
            _check_named(name, _PARTS[kind])
        checks.get(kind, str)(name)
    except ComityError as error:
        raise Refused("policy.unknown_word", f"{rule}: {error.text}") from None


def _check_place(code: str) -> str:
    owner = code.removeprefix(f"{words.PREMISES}:")
    return words.check_place(code) if owner == code else _check_named(owner, 1)


def _check_named(name: str, parts: int) -> str:
    """Whether anybody can be called so: a look-alike letter makes a rule silently useless."""
    try:
        _DOMAIN_NAME.validate_python(name.partition("/")[0])
    except ValidationError:
        raise Unreadable("policy.name", f"{name!a} does not begin with a domain's name") from None
    if name.count("/") + 1 != parts:
        raise Unreadable("policy.name", f"{name!a} does not have {parts} parts")
    return name


def _check_text(rule: str, node: Mapping[str, Any]) -> None:
    """In `attribute == "word"`, `["word"].contains(attribute)`, `attribute like "w*"` the word must exist."""
    match node.get("like"):
        case {"left": left, "pattern": list(pattern)} if (asked := _attribute(left) or "") in _VOCABULARIES:
            if not any(fnmatchcase(word, _glob(pattern)) for word in _VOCABULARIES[asked]):
                raise Refused("policy.unknown_word", f"{rule}: {asked} is never like that")
    for operator in ("==", "!=", "contains", "containsAny", "containsAll"):
        sides = node.get(operator)
        if not isinstance(sides, dict):
            continue
        attribute = next(
            (name for side in sides.values() if (name := _attribute(side)) in _VOCABULARIES), None
        )
        if attribute is None:
            continue
        unknown = set(_texts(sides)) - _VOCABULARIES[attribute]
        if unknown:
            raise Refused("policy.unknown_word", f"{rule}: {attribute} is never {sorted(unknown)[0]!r}")


def _glob(pattern: Iterable[Any]) -> str:
    """As `fnmatch` takes it, which tries no word twice, however many asterisks a stranger writes."""
    return "".join("*" if part == "Wildcard" else escape(part["Literal"]) for part in pattern)


def _attribute(node: Any) -> str | None:
    match node:
        case {".": {"left": {"Var": "context" | "resource"}, "attr": str(name)}}:
            return name
    return None


def _texts(sides: Mapping[str, Any]) -> Iterator[str]:
    for node in _nodes(dict(sides)):
        match node:
            case {"Value": str(text)}:
                yield text


def _nodes(root: Any) -> Iterator[Any]:
    """Every object inside a JSON value, itself included."""
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _compiled(rules: Mapping[str, Any]) -> cedarpy.PolicySet:
    try:
        return cedar.compile_policies(rules)
    except ValueError:  # what its parser took nests deeper than its own JSON form may
        raise _too_deep() from None


def _check_canaries(
    handle: cedarpy.PolicySet, canaries: Iterable[Canary], overrides: frozenset[str]
) -> tuple[str, ...]:
    """Those whose outcome changed, each of them meant. Raises `Refused` (`policy.canary`) for any other."""
    changed = set()
    for canary in canaries:
        entities = cedar.compile_entities(canary.request, canary.subject)
        asked = cedar.question(canary.request, canary.subject.domain.domain)
        outcome = cedar.evaluate(handle, entities, [asked])[0]
        allowed = outcome.decision == "Allow" and not outcome.errors
        if allowed == (canary.expect == "allow"):
            continue
        if canary.name not in overrides:
            rules = ", ".join(sorted(outcome.rules)) or "DEFAULT-DENY"
            raise Refused("policy.canary", f"{canary.name}: {canary.expect} was expected; {rules} decided")
        changed.add(canary.name)
    return tuple(sorted(changed))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
