"""Receipts in the very spelling that Comity writes, read by one regular expression for each kind.

The expression is made from the receipt's own model, never written beside it. It names every member once, in
the model's order, and bounds each value as the model does or tighter: what it matches has no second key, no
blank, no escape, no other form of a number, and holds under the model too. It takes a fifth of the time.
Everything else is for `statement.parse_receipt`, which decides.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from types import SimpleNamespace
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, Union, get_args, get_origin

import annotated_types
from pydantic import AfterValidator, BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from receipts.statements.fields import Camel
from receipts.statements.receipt import FIRST, MODELS, Receipt
from receipts.statements.statement import STATEMENT_TYPE, commitment_file
from schemas.bounded import MAX_INTEGER
from schemas.canonical import MAX_JSON_BYTES, sha256
from schemas.primitives import time_text

_DAY: Final = (
    r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
_CLOCK: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z"
TIME: Final = rf"(?:20[0-9]{{2}}|2100)-{_DAY}T{_CLOCK}"
"""Moments that `parse_time` accepts; of those it accepts, only 29 February is missing."""

_ANY: Final = r'[^"\\\x00-\x1f]'  # what JSON may hold between quotes as it stands (RFC 8259 7)
_QUOTABLE: Final = {r"^[\x21-\x7e]{1,128}$": r"[\x21\x23-\x5b\x5d-\x7e]{1,128}"}
"""Patterns that would allow quote or backslash → the same without them."""
_PLAIN: Final = re.compile(r"\^[A-Za-z0-9_()\[\]{}?+*|,.\\^-]+\$")
"""Patterns that can allow neither: of these signs, `\\` may stand before a dot alone."""
MAX_WORD: Final = (
    32  # characters of a member that a rule may compare; of longer ones it sees that they are there
)
_LOOKED_AT: Final = frozenset({
    "receipt_id", "issuer", "federation", "peer", "seq", "prev", "crit",
    "request__commitment", "times__issued",
})  # fmt: skip
"""Members that are taken out, inner ones behind their outer one; those that a rule names come on top."""


class Essence(NamedTuple):
    """What a walk through a log needs of a receipt."""

    receipt_id: str
    issuer: str
    federation: str
    peer: str
    seq: int
    prev: str
    issued: str

    @classmethod
    def of(cls, body: Receipt) -> Self:
        return cls(
            body.receipt_id, body.issuer, body.federation, body.peer, body.seq, body.prev, body.times.issued
        )


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """How one kind of receipt is read fast. One for each kind, so that it is its own key: to hash its
    expression would take as long as to check a row (measured)."""

    pattern: re.Pattern[str]
    rules: tuple[Callable[[Any], Any], ...]
    """What the model checks between members."""
    asked: tuple[str, ...]
    """Members that the rules look at."""


def read_written(payload: bytes, predicate_type: str) -> Essence | None:
    """The essence of a receipt, or None: then it must be read the long way.

    Checks all that `parse_receipt` checks: what comes back here would have come back from there.
    """
    shape = shape_of(predicate_type)
    try:
        match = shape.pattern.fullmatch(payload.decode("utf-8")) if len(payload) <= MAX_JSON_BYTES else None
    except UnicodeDecodeError:
        return None
    if match is None or match["crit"] != "[]" or not _follows_rules(match, shape):
        return None
    commitment, seq, prev = match["request__commitment"], int(match["seq"]), match["prev"]
    if (match["name"], match["subject"]) != (
        match["receipt_id"], f'"{sha256(commitment_file(commitment[1:-1])).hex()}"',
    ):  # fmt: skip
        return None
    if (seq == 0) != (prev[1:-1] == FIRST):
        return None
    return Essence(
        match["receipt_id"][1:-1], match["issuer"][1:-1], match["federation"][1:-1], match["peer"][1:-1],
        seq, prev[1:-1], match["times__issued"][1:-1],
    )  # fmt: skip


def _follows_rules(match: re.Match[str], shape: Shape) -> bool:
    """Whether the model's own rules hold, asked over the members as far as rules look at them."""
    return not shape.rules or _hold(shape, tuple(_value(match[name]) for name in shape.asked))


def _value(text: str | None) -> Any:
    """A member as a rule sees it: a short text, whether a list holds anything, or only that it is there."""
    if text is None or text == "[]":
        return text and ()
    if len(text) > MAX_WORD:
        return True
    return text[1:-1] if text[0] == '"' else text


@lru_cache(maxsize=256)
def _hold(shape: Shape, values: tuple[Any, ...]) -> bool:
    """The rules over these values: a log's receipts differ little in them."""
    body = SimpleNamespace()
    for name, value in zip(shape.asked, values, strict=True):
        outer, _, inner = name.partition("__")
        setattr(body, outer, SimpleNamespace(**{inner: value}) if inner else value)
    try:
        for rule in shape.rules:
            rule(body)
    except ValueError:
        return False
    return True


@cache
def shape_of(predicate_type: str) -> Shape:
    """The shape of one kind of receipt, made from its model. Raises `TypeError` for what it cannot say."""
    model: type[Receipt] = MODELS[predicate_type]
    decorators = model.__pydantic_decorators__
    rules = tuple(each.func for each in decorators.model_validators.values() if each.info.mode == "after")
    if len(rules) != len(decorators.model_validators) or decorators.field_validators:
        raise TypeError(f"{model.__name__} checks more than its shape can say")
    asked = _asked(model, rules)
    subject = r'\[\{"name":(?P<name>"[^"]*"),"digest":\{"sha256":(?P<subject>"[0-9a-f]{64}")\}\}\]'
    pattern = (
        rf'\{{"_type":"{re.escape(STATEMENT_TYPE)}","subject":{subject},'
        rf'"predicateType":"{re.escape(predicate_type)}","predicate":{_object(model, _LOOKED_AT | asked)}\}}'
    )
    return Shape(re.compile(pattern), rules, tuple(sorted(asked)))


def _asked(model: type[BaseModel], rules: Iterable[Any]) -> frozenset[str]:
    """Members by which the rules' code knows them: outer ones, or inner ones behind their outer one."""
    names = {name for rule in rules for name in rule.__code__.co_names}
    found: set[str] = set()
    for name in names & model.model_fields.keys():
        annotation = model.model_fields[name].annotation
        inner = annotation.model_fields if isinstance(annotation, type(BaseModel)) else {}
        found |= {f"{name}__{part}" for part in inner.keys() & names} or {name}
    return frozenset(found)


def _object(model: type[BaseModel], looked_at: frozenset[str], within: str = "") -> str:
    """All members in the model's order; one that may be absent is left out, never null."""
    members: list[tuple[str, bool]] = []
    for name, info in model.model_fields.items():
        group = f"{within}__{name}" if within else name
        value = _member(info.annotation, info.metadata, looked_at, group)
        if group in looked_at:
            value = f"(?P<{group}>{value})"
        optional = info.default is None and not info.is_required()
        members.append((f'"{re.escape(info.alias or name)}":{value}', optional))
    return r"\{" + _sequence(members) + r"\}"


def _sequence(members: list[tuple[str, bool]]) -> str:
    """Members with commas between those that are there."""
    pivot = next((at for at, (_, optional) in enumerate(members) if not optional), None)
    if pivot is not None:
        before = "".join(f"(?:{text},)?" for text, _ in members[:pivot])
        return before + members[pivot][0] + _behind(members[pivot + 1 :])
    firsts = [text + _behind(members[at + 1 :]) for at, (text, _) in enumerate(members)]
    return f"(?:{'|'.join(firsts)})?"


def _behind(members: Iterable[tuple[str, bool]]) -> str:
    return "".join(f"(?:,{text})?" if optional else f",{text}" for text, optional in members)


def _member(annotation: Any, metadata: list[Any], looked_at: frozenset[str], group: str) -> str:
    """The expression of a value, with every bound that its model sets. `group`: the member that it is."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _member(inner, [*more, *metadata], looked_at, group)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in get_args(annotation) if each is not types.NoneType)
        return _member(inner, metadata, looked_at, group)
    bounds = _bounds(metadata)
    if origin is list:
        return _list(_member(get_args(annotation)[0], [], frozenset(), group), **bounds)
    if origin is Literal:
        return _words(get_args(annotation), **bounds)
    if annotation is str:
        return _text(**bounds)
    if annotation is int:
        return _integer(**bounds)
    if annotation is bool:
        return "(?:true|false)"
    return _nested(annotation, looked_at, group, **bounds)


def _nested(annotation: Any, looked_at: frozenset[str], group: str) -> str:
    if not (isinstance(annotation, type) and issubclass(annotation, Camel)):
        raise TypeError(f"no shape for {annotation}")
    decorators = annotation.__pydantic_decorators__
    if decorators.model_validators or decorators.field_validators:
        raise TypeError(f"{annotation.__name__} checks more than its shape can say")
    return _object(annotation, looked_at, group)


def _list(item: str, *, max_length: int, min_length: int = 0) -> str:
    if min_length > 1:
        raise TypeError("no shape for a list of at least two")
    items = f"{item}(?:,{item}){{0,{max_length - 1}}}"
    return rf"\[{items}\]" if min_length else rf"\[(?:{items})?\]"


def _words(words: tuple[Any, ...]) -> str:
    if not all(isinstance(word, str) and re.fullmatch(r"[ !#-\[\]-~]+", word) for word in words):
        raise TypeError(f"no shape for {words}")
    return f'"(?:{"|".join(re.escape(word) for word in words)})"'


def _text(*, pattern: str | None = None, min_length: int = 0, max_length: int | None = None) -> str:
    """`$` of the model's engine is the very end, and so is the quote here."""
    longest = "" if max_length is None else str(max_length)
    if pattern is None:
        return f'"{_ANY}{{{min_length},{longest}}}"'
    if pattern in _QUOTABLE:
        plain = _QUOTABLE[pattern]
    elif pattern == TIME or (_PLAIN.fullmatch(pattern) and not re.search(r"\\[^.]|\[\^", pattern)):
        plain = re.sub(r"\((?!\?)", "(?:", pattern.removeprefix("^").removesuffix("$"))
    else:
        raise TypeError(f"no shape for the pattern {pattern!r}")
    ahead = "" if min_length == 0 and max_length is None else f'(?={_ANY}{{{min_length},{longest}}}")'
    return f'"{ahead}(?:{plain})"'


def _integer(*, ge: int, le: int) -> str:
    """Numbers between the bounds, by length and first digit: those near a bound are left to the long way."""
    if not -MAX_INTEGER <= ge <= le <= MAX_INTEGER:
        raise TypeError("an integer beyond what JSON readers agree on")

    def firsts(more: int) -> list[int]:
        """First digits that `more` digits may follow, whichever they are."""
        unit = 10**more
        return [first for first in range(1, 10) if ge <= first * unit and (first + 1) * unit - 1 <= le]

    found = ["0"] if ge <= 0 else []
    for first, lengths in groupby(range(len(str(le))), firsts):
        more = list(lengths)
        if first:
            found.append(f"[{first[0]}-{first[-1]}][0-9]{{{more[0]},{more[-1]}}}")
    return f"(?:{'|'.join(found)})"


def _bounds(metadata: list[Any]) -> dict[str, Any]:
    """Every bound by name. Raises `TypeError` for a kind of rule that is not known here."""
    found: dict[str, Any] = {}
    for each in metadata:
        match each:
            case FieldInfo():
                found |= _bounds(each.metadata)
            case StringConstraints(pattern=pattern, min_length=shortest, max_length=longest):
                given = {"pattern": pattern, "min_length": shortest, "max_length": longest}
                found |= {name: value for name, value in given.items() if value is not None}
            case AfterValidator(func=check) if check is time_text:
                found["pattern"] = TIME
            case annotated_types.MinLen(min_length=shortest):
                found["min_length"] = shortest
            case annotated_types.MaxLen(max_length=longest):
                found["max_length"] = longest
            case annotated_types.Ge(ge=least):
                found["ge"] = least
            case annotated_types.Le(le=most):
                found["le"] = most
            case _ if isinstance(getattr(each, "pattern", None), str) and each.__dict__.keys() == {"pattern"}:
                found["pattern"] = each.pattern
            case _:
                raise TypeError(f"no shape for the rule {each!r}")
    return found
