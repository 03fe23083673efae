"""Which models bound everything that they hold, so that strict reading could refuse nothing of it.

Such a model has texts, words, bounded integers, and lists and objects of these: no fraction, no integer
that JSON readers disagree on, nothing of any kind or depth. What is not known here counts as unbounded.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

MAX_DEPTH: Final = 32  # levels; our deepest object has 9
MAX_INTEGER: Final = 2**53 - 1  # beyond it JavaScript readers see another number

_PLAIN: Final = (str, bytes, bool, types.NoneType)


@cache
def is_bounded(model: type[BaseModel]) -> bool:
    """Whether a value of this model never holds what `schemas.canonical.read_json` refuses."""
    return _fits(model, (), MAX_DEPTH)


def _fits(annotation: Any, bounds: Iterable[Any], levels: int) -> bool:
    """Whether what is annotated so is bounded, and at most so many levels deep."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _fits(inner[0], [*bounds, *inner[1:]], levels)
    if origin in (Union, types.UnionType):
        return all(_fits(each, bounds, levels) for each in inner)
    if origin is Literal:
        return all(
            isinstance(each, str) or (isinstance(each, int) and abs(each) <= MAX_INTEGER) for each in inner
        )
    if annotation is int:
        return _is_exact(bounds)
    if origin in (list, tuple, dict) and inner:
        return levels > 0 and all(_fits(each, (), levels - 1) for each in inner if each is not ...)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return levels > 0 and all(_fits(each.annotation, each.metadata, levels - 1) for each in fields)
    return annotation in _PLAIN


def _is_small(word: object) -> bool:
    return isinstance(word, int) and abs(word) <= MAX_INTEGER


def _is_exact(bounds: Iterable[Any]) -> bool:
    """Whether every integer within these bounds is the same to all readers."""
    least, most = -MAX_INTEGER - 1, MAX_INTEGER + 1
    for each in _flat(bounds):
        match each:
            case annotated_types.Ge(ge=int(bound)) | annotated_types.Gt(gt=int(bound)):
                least = max(least, bound)
            case annotated_types.Le(le=int(bound)) | annotated_types.Lt(lt=int(bound)):
                most = min(most, bound)
    return least >= -MAX_INTEGER and most <= MAX_INTEGER


def _flat(bounds: Iterable[Any]) -> Iterable[Any]:
    """Bounds, also those inside a `Field`."""
    for each in bounds:
        yield from _flat(each.metadata) if isinstance(each, FieldInfo) else (each,)
