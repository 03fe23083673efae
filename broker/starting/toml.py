"""A TOML file as frozen settings: unknown keys, wrong values and unreadable files are named, never guessed.

An error says which file, which key, what was wrong and what the key means with its unit. Paths are
relative to the file they stand in. Bare of anything that only a broker has.
"""

from __future__ import annotations

import json
import math
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, PlainValidator, TypeAdapter, ValidationError, ValidationInfo

from schemas.errors import ConfigurationError
from schemas.keys import read_secret
from schemas.toml import load_toml

MAX_FILE_BYTES: Final = 1024 * 1024  # bytes; thousands of tenants fit
SETTINGS: Final = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
"""For every dataclass of settings. The docstring under a field is what an error tells the operator."""

_UNKNOWN: Final = ("unexpected_keyword_argument", "extra_forbidden")

S = TypeVar("S")


def _path(value: object, info: ValidationInfo) -> Path:
    """A text of the file is relative to its folder (the context); code hands paths over as they are."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value or not isinstance(info.context, Path):
        raise ValueError("a path is expected")
    return info.context / Path(value).expanduser()


def _existing_file(value: object, info: ValidationInfo) -> Path:
    path = _path(value, info)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def _existing_folder(value: object, info: ValidationInfo) -> Path:
    path = _path(value, info)
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder")
    return path


def _secret_file(value: object, info: ValidationInfo) -> Path:
    path = _path(value, info)
    try:
        read_secret(path)
    except ConfigurationError as error:
        raise ValueError(error.text) from None
    return path


AnyPath = Annotated[Path, PlainValidator(_path)]
"""A place that need not exist yet."""
ExistingFile = Annotated[Path, PlainValidator(_existing_file)]
ExistingFolder = Annotated[Path, PlainValidator(_existing_folder)]
SecretFile = Annotated[Path, PlainValidator(_secret_file)]
"""A file that exists and that only its owner may read."""


def read_settings(path: Path, settings: type[S]) -> S:
    """The settings that this file states. Raises `ConfigurationError` and nothing else."""
    stated = load_toml(path, limit=MAX_FILE_BYTES, area="config")
    try:
        odd, text = _without_use(stated, ""), json.dumps(stated, default=str)
    except RecursionError:
        raise ConfigurationError("config.value", f"{path}: nested too deeply") from None
    if odd is not None:
        raise ConfigurationError("config.value", f"{path}: {odd}: dates, inf and nan have no use here")
    try:
        return TypeAdapter(settings).validate_json(text, context=path.parent.resolve())
    except ValidationError as error:
        raise _named(path, settings, stated, error) from None


def _without_use(value: Any, name: str) -> str | None:
    """The dotted key of the first value that TOML has and settings do not."""
    inside: dict[Any, Any] = value if isinstance(value, dict) else {}
    if isinstance(value, list):
        inside = dict(enumerate(value))
    elif not isinstance(value, dict | str | int | float) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        return name
    found = (_without_use(each, f"{name}.{key}".lstrip(".")) for key, each in inside.items())
    return next((each for each in found if each is not None), None)


def _named(path: Path, settings: type[Any], stated: Any, error: ValidationError) -> ConfigurationError:
    """The telling error in the operator's words: file, key, what is wrong, what the key means."""
    errors = error.errors(include_url=False, include_input=False)
    # A misspelt key leaves its right spelling missing: the unknown one explains both.
    first = min(errors, key=lambda entry: entry["type"] not in _UNKNOWN)
    key, meaning = _key(stated, first["loc"]), _meaning(settings, first["loc"])
    where = f"{path}: {key or 'the whole file'}"
    if first["type"] in _UNKNOWN:
        return ConfigurationError("config.unknown_key", f"{where}: no such key")
    if first["type"] in ("missing", "missing_argument"):
        return ConfigurationError("config.missing", f"{where} must be written. {meaning}")
    text = first["msg"].removeprefix("Value error, ")
    return ConfigurationError("config.value", f"{where}: {text}. {meaning}".rstrip())


def _key(stated: Any, location: tuple[int | str, ...]) -> str:
    """The dotted key as the file spells it; the names of union members are the validator's own."""
    parts: list[str] = []
    for at, part in enumerate(location):
        inside = isinstance(stated, dict) and part in stated
        if inside or (isinstance(stated, list) and isinstance(part, int) and part < len(stated)):
            stated = stated[part]
        elif at < len(location) - 1 or not isinstance(stated, dict):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _meaning(settings: type[Any], location: tuple[int | str, ...]) -> str:
    """The docstring of the innermost documented field on this path, or of its section."""
    found, current = "", settings
    for part in location:
        fields = getattr(current, "__pydantic_fields__", {})
        if isinstance(part, str) and part in fields:
            inner = _dataclass_in(get_type_hints(current)[part])
            found = fields[part].description or (inner and inner.__doc__) or found
            current = inner or current
    return " ".join(found.split())


def _dataclass_in(hint: Any) -> type[Any] | None:
    """The dataclass that a field's type holds, through `tuple[X, ...]`, `dict[str, X]` and unions."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next((inner for part in get_args(hint) if (inner := _dataclass_in(part))), None)
