"""Expectations that accept a simulated vendor's chips: complete files, ready to be edited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attestation.expected import Expectations
from attestation.testing.forge import MEASUREMENT

SNP_KEYS = {
    "products": '"any"',
    "vmpl": "[0]",
    "measurement": f'["{MEASUREMENT.hex()}"]',
    "report_data": '"any"',
    "host_data": '"any"',
    "id_key_digest": '"any"',
    "author_key_digest": '"any"',
    "family_id": '"any"',
    "image_id": '"any"',
    "guest_svn_min": "0",
    "reported_tcb_min": '"any"',
    "committed_tcb_min": '"any"',
    "current_tcb_min": '"any"',
    "launch_tcb_min": '"any"',
    "firmware_min": '"1.55.0"',
    "committed_firmware_min": '"1.55.0"',
}
"""Every key that `[snp]` must state, as TOML."""


def snp_toml(changes: Mapping[str, str | None] = {}, more: str = "") -> str:
    """A complete `[snp]` table. `changes`: key → TOML, or None to leave the key out."""
    keys = {**SNP_KEYS, **changes}
    return "\n".join(["[snp]", *(f"{key} = {value}" for key, value in keys.items() if value), more, ""])


def node_toml(
    *,
    engine_digests: Iterable[str] | None = None,
    models: Mapping[str, Iterable[str]] | None = None,
    engine: str = "in-tee",
    enrolment: str = "required",
    max_attestation_age: int = 300,
) -> str:
    """A complete `[node]` table. None writes the waiver."""
    lines = ["[node]"]
    lines.append(f"engine_digests = {_list(engine_digests)}")
    lines.append(f'engine = "{engine}"')
    lines.append(f'enrolment = "{enrolment}"')
    lines.append(f"max_attestation_age = {max_attestation_age}")
    if models is None:
        return "\n".join([*lines, 'models = "any"', ""])
    lines.append("[node.models]")
    return "\n".join([*lines, *(f'"{name}" = {_list(digests)}' for name, digests in models.items()), ""])


def _list(values: Iterable[str] | None) -> str:
    return '"any"' if values is None else "[" + ", ".join(f'"{value}"' for value in values) + "]"


def simulated_expectations(
    *root_tomls: str,
    engine_digests: Iterable[str] | None = None,
    models: Mapping[str, Iterable[str]] | None = None,
    enrolment: str = "required",
    max_attestation_age: int = 300,
    snp: Mapping[str, str | None] = {},
) -> Expectations:
    """Expectations under the given roots (`SimulatedVendor.root_toml()`), other things as stated."""
    text = simulated_toml(
        *root_tomls, engine_digests=engine_digests, models=models, enrolment=enrolment,
        max_attestation_age=max_attestation_age, snp=snp,
    )  # fmt: skip
    return Expectations.parse(text.encode())


def simulated_toml(
    *root_tomls: str,
    engine_digests: Iterable[str] | None = None,
    models: Mapping[str, Iterable[str]] | None = None,
    enrolment: str = "required",
    max_attestation_age: int = 300,
    snp: Mapping[str, str | None] = {},
) -> str:
    """The same as the text of an expected.toml, to be written to a file."""
    node = node_toml(
        engine_digests=engine_digests, models=models, enrolment=enrolment,
        max_attestation_age=max_attestation_age,
    )  # fmt: skip
    return "\n".join([snp_toml(snp), node, *root_tomls])
