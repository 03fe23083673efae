"""What a relying party asks of a SEV-SNP guest, per product line (`[snp]` of expected.toml).

Values in `[snp]` hold for every product line; `[snp.Milan]` overrides them for one. Identities and
floors have no default: they are stated, or waived with "any".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from attestation.snp.products import PRODUCTS, Product
from attestation.snp.report import PLATFORM_BITS, POLICY_BITS
from attestation.toml import ANY, Table
from schemas.toml import is_integer

Floor = Mapping[str, int] | None
Digests = frozenset[bytes] | None

_PCR_KEYS: Final = frozenset(map(str, range(24)))
TCB_NAMES: Final = ("reported", "committed", "current", "launch")


@dataclass(frozen=True, slots=True, eq=False)
class SnpPolicy:
    """Everything that is asked of a guest on one product line. None = waived. Compared by identity."""

    report_versions: frozenset[int] | None
    vmpl: frozenset[int] | None
    measurement: Digests
    report_data: Digests
    host_data: Digests
    id_key_digest: Digests
    author_key_digest: Digests
    family_id: Digests
    image_id: Digests
    guest_svn_min: int | None
    tcb_min: Mapping[str, Floor]
    """Per TCB name, the least of each part."""
    firmware_min: tuple[int, ...] | None
    committed_firmware_min: tuple[int, ...] | None
    abi_min: tuple[int, ...] | None
    debug: str
    migration: str
    policy_required: frozenset[str]
    policy_forbidden: frozenset[str]
    platform_required: frozenset[str]
    platform_forbidden: frozenset[str]
    unknown_platform_bits: str
    alias_check: str
    provisional: str
    launch_mitigation_required: int
    current_mitigation_required: int
    csp_ids: frozenset[str] | None
    """Cloud providers whose VLEK is accepted; empty = none is."""
    revocation: str
    pcrs: Mapping[int, Digests]
    """vTPM PCRs that a quote must cover, with their allowed values; None = any value."""


def read_snp(table: Table) -> dict[str, SnpPolicy]:
    """A policy for each product line that is accepted. Raises `ConfigurationError`."""
    accepted = table.names("products", list(PRODUCTS))
    policies: dict[str, SnpPolicy] = {}
    for product in PRODUCTS.values():
        override = table.child(product.name)
        for key in override.values:
            if key == "products" or key in PRODUCTS:
                raise override.error(key, "stands inside one product line", f"it in [{table.name}]")
        wanted = accepted is None or product.name in accepted
        merged = table.overridden(override, table.waived if wanted else [])
        if wanted or override.values:  # an override that is not in force is still held to its form
            policy = _policy(merged, product)
            merged.finish(except_for={"products", *PRODUCTS})
        if wanted:
            policies[product.name] = policy
    return policies


def _policy(table: Table, product: Product) -> SnpPolicy:
    return SnpPolicy(
        report_versions=table.integers("report_versions", 2, 5, [2, 3, 4, 5]),
        vmpl=table.integers("vmpl", 0, 3),
        measurement=table.digests("measurement", 48),
        report_data=table.digests("report_data", 64),
        host_data=table.digests("host_data", 32),
        id_key_digest=table.digests("id_key_digest", 48),
        author_key_digest=table.digests("author_key_digest", 48),
        family_id=table.digests("family_id", 16),
        image_id=table.digests("image_id", 16),
        guest_svn_min=table.integer("guest_svn_min", 0, 2**32 - 1),
        tcb_min={name: _floor(table, f"{name}_tcb_min", product) for name in TCB_NAMES},
        firmware_min=table.version("firmware_min", 3),
        committed_firmware_min=table.version("committed_firmware_min", 3),
        abi_min=table.version("abi_min", 2, None),
        debug=table.choice("debug", ("refuse", ANY), "refuse"),
        migration=table.choice("migration", ("refuse", ANY), "refuse"),
        policy_required=_bits(table, "policy_required", POLICY_BITS),
        policy_forbidden=_bits(table, "policy_forbidden", POLICY_BITS),
        platform_required=_bits(table, "platform_required", PLATFORM_BITS),
        platform_forbidden=_bits(table, "platform_forbidden", PLATFORM_BITS),
        unknown_platform_bits=table.choice("unknown_platform_bits", ("keep", "refuse"), "keep"),
        alias_check=table.choice(
            "alias_check", ("required-from-v3", "required", "advisory"), "required-from-v3"
        ),
        provisional=table.choice("provisional", ("advisory", "warning", "refuse"), "advisory"),
        launch_mitigation_required=_mask(table, "launch_mitigation_required"),
        current_mitigation_required=_mask(table, "current_mitigation_required"),
        csp_ids=table.texts("csp_ids", [], write='csp_ids = ["CN=cc-us-east-2.amazonaws.com"]'),
        revocation=table.choice("revocation", ("required", ANY), "required"),
        pcrs=_pcrs(table),
    )


def _floor(table: Table, key: str, product: Product) -> Floor:
    parts = [part for part, _ in product.layout.parts]
    write = f"{key} = {{ {', '.join(f'{part} = 0' for part in parts)} }}"
    value: Any = table.demand(key, write=write)
    if table.is_any(key, value):
        return None
    if not isinstance(value, dict) or sorted(value) != sorted(parts):
        raise table.error(key, f"must state exactly {', '.join(parts)} on {product.name}", write)
    if not all(is_integer(level, 0, 255) for level in value.values()):
        raise table.error(key, "has a level outside 0..255", write)
    return {part: int(value[part]) for part in parts}


def _pcrs(table: Table) -> dict[int, Digests]:
    inside = table.child("pcrs")
    found: dict[int, Digests] = {}
    for key in inside.values:
        if key not in _PCR_KEYS:
            raise inside.error(key, "is no PCR", '0 to 23 as a key, e.g. 7 = ["<64 hex digits>"]')
        found[int(key)] = inside.digests(key, 32)
    return found


def _bits(table: Table, key: str, known: Mapping[str, int]) -> frozenset[str]:
    return table.names(key, list(known), []) or frozenset()


def _mask(table: Table, key: str) -> int:
    return table.integer(key, 0, 2**63 - 1, 0) or 0
