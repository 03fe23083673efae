"""What a caller states besides the OpenAI body: the `comity` object and the `X-Comity-*` headers.

Nothing is guessed: an unknown tag, an unknown word, a wrong type, or a header that differs from the
body is an `InvalidField` that names the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from schemas.canonical import Json, Wire, write_json
from schemas.descriptors.capability import Context, Micro, Tier
from schemas.descriptors.tags import PolicyTags
from schemas.errors import Unreadable
from schemas.primitives import Count, Label, TimeText, Token

MAX_EXTENSION_BYTES: Final = 32 * 1024  # the `comity` object as JSON
MAX_HEADER_CHARS: Final = 4096

PositiveMs = Annotated[int, Field(ge=1, le=86_400_000)]


class InvalidField(Unreadable):
    """A field of a request that cannot be accepted; `field` is its dotted name."""

    def __init__(self, field: str, text: str, *, code: str = "request.invalid_field") -> None:
        super().__init__(code, f"{field}: {text}")
        self.field = field


class Quality(Wire):
    """A floor, never silently lowered."""

    tier: Tier | None = None
    min_params: Count | None = None
    """Number of parameters."""
    context: Context | None = None
    """Tokens of context that must fit."""


class Slo(Wire):
    """Response-time requirement at a percentile (ruling E16)."""

    ttft_ms: PositiveMs | None = None
    tpot_ms: PositiveMs | None = None
    total_ms: PositiveMs | None = None
    percentile: Annotated[int, Field(ge=1, le=99)] = 95


class Budget(Wire):
    """Cost bound of this one request."""

    max_price: Micro | None = None
    """Micro-units of the charter's currency for the predicted total (DESIGN 19)."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    max_carbon_g: Count | None = None

    def check_currency(self, currency: str) -> None:
        """Raise `InvalidField` when the budget is in another currency than the charter's."""
        if self.currency not in (None, currency):
            raise InvalidField("budget.currency", f"this federation reckons in {currency}")


class Extension(Wire):
    """The `comity` object, merged with the headers: everything as the caller stated it."""

    capability: Label | None = None
    quality: Quality = Quality()
    slo: Slo = Slo()
    policy: PolicyTags = PolicyTags()
    budget: Budget = Budget()
    priority: Annotated[int, Field(ge=1, le=5)] = 3
    service_class: Literal["interactive", "standard", "batch"] = Field(default="standard", alias="class")
    deadline: TimeText | None = None
    request_id: Token | None = None


_LIST, _NUMBER, _FLAG, _TEXT = "list", "number", "flag", "text"
_HEADER_FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(("tier", "min_params", "context"), ("quality", _NUMBER)),
    **dict.fromkeys(("ttft_ms", "tpot_ms", "total_ms", "percentile"), ("slo", _NUMBER)),
    **dict.fromkeys(("residency", "forbid_regimes", "require_certs"), ("policy", _LIST)),
    **dict.fromkeys(("data_class", "origin"), ("policy", _TEXT)),
    **dict.fromkeys(("confidential_gpu", "allow_degraded"), ("policy", _FLAG)),
    **dict.fromkeys(
        ("min_assurance", "max_retention_s", "max_attestation_age_s", "max_carbon_g_kwh"), ("policy", _NUMBER)
    ),
    **dict.fromkeys(("max_price", "max_carbon_g"), ("budget", _NUMBER)),
    "currency": ("budget", _TEXT),
    **dict.fromkeys(("capability", "class", "deadline", "request_id"), ("", _TEXT)),
    "priority": ("", _NUMBER),
}
_PREFIX: Final = "x-comity-"


def parse_tags(body_comity: Json | None, headers: Mapping[str, str]) -> Extension:
    """What the caller states in the body's `comity` object and in `X-Comity-*` headers.

    `X-Comity-Data-Class` is `policy.data_class`; lists are comma-separated. Raises `InvalidField`.
    """
    if body_comity is None:
        body_comity = {}
    if not isinstance(body_comity, dict):
        raise InvalidField("comity", "an object is expected")
    merged: dict[str, Json] = dict(body_comity)
    for name, text in headers.items():
        if name.lower().startswith(_PREFIX):
            _add_header(merged, name.lower().removeprefix(_PREFIX).replace("-", "_"), text)
    extension = _validated(merged)
    if extension.policy.residency == []:
        raise InvalidField("policy.residency", "names no place; write Global to be free of it")
    return extension


def _add_header(merged: dict[str, Json], name: str, text: str) -> None:
    if name not in _HEADER_FIELDS:
        raise InvalidField(f"X-Comity-{name.replace('_', '-').title()}", "no such field")
    group, kind = _HEADER_FIELDS[name]
    field = f"{group}.{name}" if group else name
    value = _header_value(field, kind, text)
    inner = merged.get(group, {}) if group else merged
    if not isinstance(inner, dict):
        raise InvalidField(group, "an object is expected")
    if name in inner and not _same(inner[name], value):
        raise InvalidField(field, "body and header differ")
    target = merged if not group else {**inner}
    target.setdefault(name, value)
    if group:
        merged[group] = target


def _header_value(field: str, kind: str, text: str) -> Json:
    text = text.strip()
    if len(text) > MAX_HEADER_CHARS:
        raise InvalidField(field, f"longer than {MAX_HEADER_CHARS} characters")
    if kind == _LIST:
        return [part.strip() for part in text.split(",")]
    if kind == _TEXT:
        return text
    if kind == _FLAG and text in ("true", "false"):
        return text == "true"
    if kind == _NUMBER and re.fullmatch(r"[0-9]{1,16}", text):
        return int(text)
    raise InvalidField(field, "true or false is expected" if kind == _FLAG else "a whole number is expected")


def _same(left: Json, right: Json) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return sorted(map(str, left)) == sorted(map(str, right))
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _validated(merged: dict[str, Json]) -> Extension:
    try:
        data = write_json(merged)
    except (ValueError, RecursionError):
        raise InvalidField("comity", "not strict JSON") from None
    if len(data) > MAX_EXTENSION_BYTES:
        raise InvalidField("comity", f"{len(data)} bytes, at most {MAX_EXTENSION_BYTES} allowed")
    try:
        return Extension.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        names = [str(part) for part in first["loc"] if isinstance(part, str)]
        text = (
            "no such field"
            if first["type"] == "extra_forbidden"
            else first["msg"].removeprefix("Value error, ")
        )
        raise InvalidField(".".join(names) or "comity", text) from None
