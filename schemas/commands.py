"""`comity schema [NAME]`: the JSON Schemas of what crosses a border between domains."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Final

from schemas.canonical import Wire
from schemas.descriptors.capability import CapabilityDescriptor
from schemas.descriptors.extension import Extension
from schemas.descriptors.profile import DomainProfile
from schemas.descriptors.request import RequestDescriptor
from schemas.descriptors.summary import CapabilitySummary
from schemas.descriptors.tags import PolicyTags
from schemas.errors import ConfigurationError
from schemas.messages import answer, negotiation
from schemas.messages.execute import Execute
from schemas.papers.charter import Charter, ReferenceValues
from schemas.papers.manifest import DomainManifest
from schemas.proof.evidence import NodeEvidence

_PUBLISHED: Final[tuple[type[Wire], ...]] = (
    Extension,
    PolicyTags,
    RequestDescriptor,
    DomainProfile,
    CapabilityDescriptor,
    CapabilitySummary,
    NodeEvidence,
    Charter,
    DomainManifest,
    ReferenceValues,
    negotiation.CallForOffers,
    negotiation.Offer,
    negotiation.Refuse,
    negotiation.Release,
    negotiation.Cancel,
    negotiation.Status,
    negotiation.StatusReply,
    negotiation.Revoke,
    negotiation.FetchEvidence,
    negotiation.FetchReceipt,
    negotiation.ReceiptAck,
    negotiation.FetchSnapshot,
    Execute,
    answer.EndOfRun,
    answer.Problem,
)

SCHEMAS: Final[dict[str, type[Wire]]] = {model.__name__: model for model in _PUBLISHED}
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def main(argv: Sequence[str], *, more: Sequence[type[Wire]] = ()) -> int:
    """Print one schema, or the names of all with what each is. Raises `ConfigurationError`.

    `more`: what other rooms publish.
    """
    parser = argparse.ArgumentParser(
        prog="comity schema", description="Print the JSON Schema of a value that crosses a border."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="which one; without it, the names of all")
    try:
        name = parser.parse_args(argv).name
    except SystemExit as stop:  # argparse has printed why
        return stop.code if isinstance(stop.code, int) else 2
    known = SCHEMAS | {model.__name__: model for model in more}
    print(listing(known) if name is None else schema(name, known))  # noqa: T201
    return 0


def listing(known: Mapping[str, type[Wire]] = SCHEMAS) -> str:
    """One line per schema: its name and the first line of its meaning."""
    lines = ((name, (model.__doc__ or "").strip().splitlines()[0]) for name, model in known.items())
    return "\n".join(f"{name:<21} {text}" for name, text in lines)


def schema(name: str, known: Mapping[str, type[Wire]] = SCHEMAS) -> str:
    """The JSON Schema (2020-12) as indented text. Raises `ConfigurationError` for an unknown name."""
    model = known.get(name)
    if model is None:
        raise ConfigurationError("schema.unknown", f"no schema {name!r}; `comity schema` lists them")
    stated = {"$schema": DIALECT} | model.model_json_schema(by_alias=True)
    return json.dumps(stated, indent=2, ensure_ascii=False)
