"""`CapabilityDescriptor` (C): one variant of a capability class, as its domain offers it.

Class → variant → realization: a request names a class, the router picks a variant, the domain agent
picks the realization. Version and digest are mandatory (ruling E22).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.canonical import Wire
from schemas.descriptors.profile import Place
from schemas.errors import Refused
from schemas.primitives import Count, Digest, Label

MAX_CONTEXT: Final = 16_777_216  # tokens; far beyond any model, so that sums stay small
PER_TOKENS: Final = 1_000  # rates are per this many tokens

MAX_RATE: Final = 10**12  # micro-units per PER_TOKENS: a million of any currency, so that totals stay exact

MAX_MICRO: Final = 2**53 - 1
Micro = Annotated[int, Field(ge=0, le=MAX_MICRO)]
"""Millionths of the charter's currency."""
ClassName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""E.g. `chat.small`."""
VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""E.g. `smollm2-135m-q4_1`."""
Tier = Annotated[int, Field(ge=0, le=10)]
"""Quality tier inside a class, higher is better."""
Context = Annotated[int, Field(ge=1, le=MAX_CONTEXT)]


Rate = Annotated[int, Field(ge=0, le=MAX_RATE)]


class Rates(Wire):
    """A price book entry: micro-units per 1,000 tokens."""

    input: Rate
    output: Rate
    cached: Rate

    def total(self, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """Price in micro-units, rounded up once: the amount that budget and policy bound (DESIGN 19)."""
        fresh = max(0, input_tokens - cached_tokens)
        thousandths = fresh * self.input + cached_tokens * self.cached + output_tokens * self.output
        return -(-thousandths // PER_TOKENS)


def check_price(micro: int) -> int:
    """A total that a message or receipt can state. Raises `Refused`: its counters were a stranger's."""
    if micro > MAX_MICRO:
        raise Refused("price.beyond_count", f"more than {MAX_MICRO} millionths of the currency")
    return micro


class CapabilityQuality(Wire):
    """What the variant can do; a request's quality is a floor over these."""

    tier: Tier
    context_limit: Context
    params_m: Count = 0
    """Millions of parameters."""
    evals: dict[Label, Count] = Field(default_factory=dict, max_length=32)


class Security(Wire):
    isolation: Literal["none", "process", "vm", "tee"] = "none"
    min_assurance: Annotated[int, Field(ge=0, le=4)] = 0


class Lineage(Wire):
    """One step of how the variant came to be."""

    base: Label
    method: Literal["distill", "quantize", "adapter", "prune", "finetune"]
    digest: Digest
    licence: Label


class LatencyProfile(Wire):
    """A characteristic of the variant; the requirement lives in the request."""

    prefill_tps: Count
    decode_tps: Count
    cold_start_ms: Count


class ResourceNeed(Wire):
    memory_mb: Count
    accelerators: list[Label] = Field(default_factory=list, max_length=16)
    storage_mb: Count = 0


class CapabilityDescriptor(Wire):
    """One variant, published by its domain."""

    v: Literal[1] = 1
    name: ClassName
    variant: VariantName
    version: Label
    digest: Digest
    """SHA-256 of the model file, or of the list of its files."""
    model_signing: Digest | None = None
    """SHA-256 of the model's signature, where the domain verified one before it offered the variant."""
    task: Literal["chat", "completion", "embedding", "other"]
    quality: CapabilityQuality
    rates: Rates
    security: Security = Security()
    latency_profile: LatencyProfile | None = None
    resource: ResourceNeed | None = None
    lineage: list[Lineage] = Field(default_factory=list, max_length=16)
    allowed_jurisdictions: list[Place] = Field(default_factory=list, max_length=64)
    """Where the licence or export rules allow it to run; none listed means anywhere."""
    scope: Literal["public", "federation", "domain"] = "federation"

    @property
    def label(self) -> str:
        """`class/variant`, the name that messages use."""
        return f"{self.name}/{self.variant}"
