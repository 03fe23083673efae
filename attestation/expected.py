"""`expected.toml`: what a relying party demands of evidence, complete or refused (DESIGN 14).

Parsing is pure; only `load` touches a file. The digest of the exact bytes names the expectations in
every result, so that an auditor can ask what was demanded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from attestation.gpu.expected import GpuPolicy, read_nvidia
from attestation.snp.deny import Denial, read_denials
from attestation.snp.expected import SnpPolicy, read_snp
from attestation.snp.origin.chain import AMD_ROOTS, Roots
from attestation.snp.products import PRODUCTS, Pin
from attestation.tdx.expected import QuotePolicy, read_sgx, read_tdx
from attestation.toml import ANY, Table
from schemas.canonical import sha256
from schemas.errors import Refused, Unreadable
from schemas.files import read_up_to
from schemas.keys import VerifyKey
from schemas.primitives import decode_base64
from schemas.toml import parse_toml

MAX_FILE_BYTES: Final = 4 * 1024 * 1024  # ten thousand measurements with room to spare
DEFAULT_MAX_AGE: Final = 300  # seconds, session.md 2
MAX_MAX_AGE: Final = 86_400  # seconds: a day-old challenge proves nothing about now
_DIGEST: Final = r"[0-9a-fA-F]{64}"


@dataclass(frozen=True, slots=True)
class NodeExpectations:
    """What is asked of a node's configuration (`[node]`). None = waived."""

    engine_digests: frozenset[str] | None
    models: Mapping[str, frozenset[str] | None] | None
    """Capability → allowed digests of its model file."""
    engine: str
    """`in-tee`, or `any`."""
    enrolment: str
    """`required`, or `any`."""
    max_attestation_age: int
    """Seconds from the issue of our challenge."""
    published_models: frozenset[str] | None = None
    """Outer bound on every model's digest, set by `narrow` from the charter's publishers."""


@dataclass(frozen=True, slots=True, eq=False)
class Expectations:
    """One relying party's demands, frozen. Compared by identity; `digest` compares what was written."""

    source: str
    digest: bytes
    """SHA-256 of the file's bytes."""
    snp: Mapping[str, SnpPolicy] | None
    """Per accepted product line; None when the file says nothing about SNP."""
    node: NodeExpectations | None
    roots: Roots
    denials: tuple[Denial, ...]
    waived: tuple[str, ...]
    """`table.key` of everything waived with "any"."""
    revocation_waived: frozenset[str]
    """Product lines for which a missing CRL is forgiven."""
    tdx: QuotePolicy | None = None
    sgx: QuotePolicy | None = None
    """What is asked of Intel's quotes; None when the file says nothing about them."""
    nvidia: GpuPolicy | None = None
    """What is asked of NVIDIA's devices; None when the file says nothing about them."""
    signers: Mapping[str, tuple[VerifyKey, ...]] = field(default_factory=dict)
    """Domain → keys under which its collateral bundles are accepted."""

    def signers_of(self, domain: str, at: datetime) -> tuple[VerifyKey, ...]:
        """As `schemas.proof.collateral.Signers`; the file states keys without dates. Raises `Refused`."""
        del at
        if domain not in self.signers:
            raise Refused("collateral.signer", f"{self.source}: no [[collateral.signer]] for {domain}")
        return self.signers[domain]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file. Raises `ConfigurationError`, naming file, key and what to write."""
        return cls.parse(read_up_to(path, MAX_FILE_BYTES, "expected.file"), source=str(path))

    @classmethod
    def parse(cls, data: bytes, *, source: str = "expected.toml") -> Self:
        """Read the bytes of a file. Raises `ConfigurationError`."""
        waived: list[str] = []
        document = parse_toml(data, source, limit=MAX_FILE_BYTES, area="expected")
        top = Table(source, "", document, waived)
        snp = read_snp(top.child("snp")) if "snp" in top.values else None
        node = _node(top.child("node")) if "node" in top.values else None
        simulated = [_simulated_root(table) for table in top.children("simulated_root")]
        denials = read_denials(top.children("deny"))
        tdx = read_tdx(top.child("tdx")) if "tdx" in top.values else None
        sgx = read_sgx(top.child("sgx")) if "sgx" in top.values else None
        nvidia = read_nvidia(top.child("nvidia")) if "nvidia" in top.values else None
        signers = _signers(top.child("collateral"))
        top.finish(except_for={"snp", "node", "tdx", "sgx", "nvidia", "collateral"})
        return cls(
            source=source,
            digest=sha256(data),
            snp=snp,
            node=node,
            roots=Roots.amd(simulated) if simulated else AMD_ROOTS,
            denials=denials,
            waived=tuple(dict.fromkeys(waived)),
            revocation_waived=frozenset(n for n, policy in (snp or {}).items() if policy.revocation == ANY),
            tdx=tdx,
            sgx=sgx,
            nvidia=nvidia,
            signers=signers,
        )


def _simulated_root(table: Table) -> tuple[str, Pin]:
    """A made-up vendor's root that this relying party accepts, by name and digest (DESIGN 15)."""
    name = table.text("name", r"[\x21-\x7e]{1,64}", write='name = "demo"')
    product = table.text("product", "|".join(PRODUCTS), write='product = "Milan"')
    write = 'sha256 = "<SHA-256 of the root\'s DER, 64 hex digits>"'
    digest = table.text("sha256", _DIGEST, write=write).lower()
    table.finish()
    if digest in AMD_ROOTS.pins:
        raise table.error("sha256", "is a root of AMD's", "the digest of the simulated root")
    return product, Pin(digest, None, simulated=True, name=name)


def _signers(table: Table) -> dict[str, tuple[VerifyKey, ...]]:
    """`[[collateral.signer]]`: whose word it is that a bundle is whole. It makes no piece true."""
    found: dict[str, tuple[VerifyKey, ...]] = {}
    for each in table.children("signer"):
        domain = each.text("domain", r"[a-z0-9.-]{1,253}", write='domain = "clinic.example"')
        write = 'key = "<SubjectPublicKeyInfo of its attestation-verifier key, base64>"'
        try:
            key = VerifyKey.from_spki(decode_base64(each.text("key", r"[A-Za-z0-9+/=]{1,512}", write=write)))
        except (Refused, Unreadable) as error:
            raise each.error("key", error.text, write) from None
        each.finish()
        found[domain] = (*found.get(domain, ()), key)
    table.finish()
    return found


def _node(table: Table) -> NodeExpectations:
    node = NodeExpectations(
        engine_digests=_engine_digests(table),
        models=_models(table),
        engine=table.choice("engine", ("in-tee", ANY), "in-tee"),
        enrolment=table.choice("enrolment", ("required", ANY), "required"),
        max_attestation_age=table.integer("max_attestation_age", 1, MAX_MAX_AGE, DEFAULT_MAX_AGE)
        or MAX_MAX_AGE,
    )
    table.finish(except_for={"models"})
    return node


def _engine_digests(table: Table) -> frozenset[str] | None:
    digests = table.digests("engine_digests", 32)
    return None if digests is None else frozenset(digest.hex() for digest in digests)


def _models(table: Table) -> dict[str, frozenset[str] | None] | None:
    value = table.demand("models", write='a table [node.models] with "<capability>" = ["<64 hex digits>"]')
    if table.is_any("models", value):
        return None
    inside = table.child("models")
    models: dict[str, frozenset[str] | None] = {}
    for capability in inside.values:
        digests = inside.digests(capability, 32)
        models[capability] = None if digests is None else frozenset(digest.hex() for digest in digests)
    return models
