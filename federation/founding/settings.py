"""The TOML files that founding writes for each program. Every path in them is relative to the file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence

from federation.founding.keys import BESIDE_FILE, DomainKeys
from federation.founding.plan import ANY, NVIDIA, NVML, DomainPlan, NodePlan, Plan
from schemas.canonical import Json
from schemas.descriptors.capability import CapabilityDescriptor
from schemas.keys import VerifyKey
from schemas.papers.charter import SimulatedRoot

SNP_WAIVED = (
    "report_data", "host_data", "id_key_digest", "author_key_digest", "family_id", "image_id",
    "reported_tcb_min", "committed_tcb_min", "current_tcb_min", "launch_tcb_min",
    "firmware_min", "committed_firmware_min",
)  # fmt: skip
"""Demands of `[snp]` that founding leaves open and writes out as waived: narrow them per domain."""
NVIDIA_WAIVED = ("driver_min", "vbios", "modes")
"""The same of `[nvidia]`. Confidential mode, revocation and the strongest binding stay demanded."""


def value(data: Json) -> str:
    """A TOML value: text, number, flag, list, or inline table."""
    if isinstance(data, dict):
        return "{ " + ", ".join(f"{key} = {value(entry)}" for key, entry in data.items()) + " }"
    if isinstance(data, list):
        return "[" + ", ".join(value(entry) for entry in data) + "]"
    return json.dumps(data, ensure_ascii=False).replace("\x7f", "\\u007f")


def lines(table: Mapping[str, Json]) -> str:
    """One `key = value` a line; absent values are left out."""
    return "".join(f"{key} = {value(data)}\n" for key, data in table.items() if data is not None)


def table(name: str, entries: Mapping[str, Json]) -> str:
    return f"\n[{name}]\n{lines(entries)}"


def broker(domain: DomainPlan, keys: DomainKeys, *, pin: str, bus_url: str) -> str:
    """broker.toml."""
    tenant_policies = {
        tenant.name: f"policies/tenant-{tenant.name}.cedar"
        for tenant in domain.tenants
        if tenant.policy != ANY
    }
    parts = [
        lines({"domain": domain.name, "database": "state/broker.db"}),
        _federation(pin, {"expectations": "expectations.toml"}),
        table(
            "keys",
            {
                "message": "keys/message.pem",
                "receipt": "keys/receipt.pem",
                "promise": "keys/promise.pem",
                "attestation_verifier": "keys/attestation-verifier.pem",
                "log": "keys/log.pem",
                **({"log_beside": f"keys/{BESIDE_FILE}"} if domain.ml_dsa else {}),
                "witness": "keys/witness.pem",
            },
        ),
        _bus("broker", bus_url),
        table("listen", {"tls": ANY, "port": 0, "port_file": "state/broker.port"}),
        table(
            "policies",
            {
                "charter": "shared/policies/charter.cedar",
                "national": ANY if domain.national == ANY else "policies/national.cedar",
                "provider": ANY if domain.provider == ANY else "policies/provider.cedar",
            },
        ),
        table("policies.tenant", dict(tenant_policies)),
        f"\n[weights.default]\nmoney = {domain.money_weight / 1000:.3f}\n",
        table("observe", {"spans": "state/broker-spans.jsonl"}),
        *(_tenant(domain, keys, index) for index in range(len(domain.tenants))),
    ]
    return "".join(parts)


def _tenant(domain: DomainPlan, keys: DomainKeys, index: int) -> str:
    tenant = domain.tenants[index]
    digest = hashlib.sha256(keys.api[tenant.name].encode()).hexdigest()
    entries: dict[str, Json] = {
        "name": tenant.name,
        "keys": [digest],
        "floor": ANY if tenant.floor == ANY else tenant.floor.as_json(),
        "policy": ANY if tenant.policy == ANY else tenant.name,
    }
    return f"\n[[tenants]]\n{lines(entries)}"


def agent(domain: DomainPlan, *, pin: str, bus_url: str) -> str:
    """agent.toml."""
    return "".join(
        [
            lines({"domain": domain.name, "state": "state/agent"}),
            _federation(pin, {"expectations": "expectations.toml"}),
            table(
                "keys",
                {
                    "advert": "keys/advert.pem",
                    "attestation_verifier": "keys/attestation-verifier.pem",
                },
            ),
            _bus("agent", bus_url),
            table("summary", {"k_min": domain.k_min}),
            table("capacity", {"queue_per_slot": domain.queue_per_slot}),
            *(_capability(entry) for entry in domain.capabilities),
        ]
    )


def _capability(entry: CapabilityDescriptor) -> str:
    stated: dict[str, Json] = {
        "class": entry.name,
        "variant": entry.variant,
        "version": entry.version,
        "digest": entry.digest,
        "tier": entry.quality.tier,
        "context": entry.quality.context_limit,
        "params_m": entry.quality.params_m,
        "rates": entry.rates.as_json(),
    }
    return f"\n[[capabilities]]\n{lines(stated)}"


def node(domain: DomainPlan, each: NodePlan, *, pin: str, bus_url: str) -> str:
    """node-<id>.toml."""
    tee: dict[str, Json] = {"kind": "configfs-tsm"}
    if each.chip is not None:
        tee = {"kind": "simulated", "chip": each.chip}
    engine: dict[str, Json] = {"kind": "llama.cpp", "slots": each.slots, "context": each.context}
    models = {"capability": each.capability, "file": each.model}
    devices: dict[str, Json] = {"kind": "simulated", "board": each.gpus}
    if each.gpus == NVML:
        devices = {"kind": NVML}
    return "".join(
        [
            lines({"domain": domain.name, "node_id": each.id}),
            _federation(pin, {}),
            _bus(f"node.{each.id}", bus_url),
            table("tee", tee),
            table("devices", devices) if each.gpus is not None else "",
            table("engine", engine),
            f"\n[[models]]\n{lines(dict(models))}",
        ]
    )


def expectations(plan: Plan, signers: Mapping[str, VerifyKey]) -> str:
    """expectations.toml: what the charter's publisher vouches for, and not a byte more.

    signers: each domain's key of role attestation-verifier, under which it signs bundles of collateral.
    """
    snp: dict[str, Json] = {"products": ANY, "vmpl": [0], "guest_svn_min": 0}
    snp["measurement"] = [image.measurement for image in plan.images]
    engines = sorted({digest for image in plan.images for digest in image.engine_digests})
    asked: dict[str, Json] = {
        "engine_digests": list(engines),
        "engine": "in-tee",
        "enrolment": "required",
        "max_attestation_age": 300,
    }
    models = {json.dumps(label): _texts(digests) for label, digests in plan.model_digests.items()}
    chips = [root.as_json() for root in plan.simulated_roots if not root.product.startswith(NVIDIA)]
    return "".join(
        [
            "# What a node must prove. Waived demands are written out; narrow them to your machines.\n",
            table("snp", snp | dict.fromkeys(SNP_WAIVED, ANY)),
            table("node", asked),
            table("node.models", models),
            *(f"\n[[simulated_root]]\n{lines(root)}" for root in chips),
            *(_accelerators(plan) if _has_gpus(plan) else ()),
            *(f"\n[[collateral.signer]]\n{lines(_signer(name, key))}" for name, key in signers.items()),
        ]
    )


def _signer(domain: str, key: VerifyKey) -> dict[str, Json]:
    return {"domain": domain, "key": base64.b64encode(key.spki).decode("ascii")}


def _has_gpus(plan: Plan) -> bool:
    return any(node.gpus is not None for domain in plan.domains for node in domain.nodes)


def _accelerators(plan: Plan) -> list[str]:
    """[nvidia]: confidential mode, bound to the CPU in the strongest way, and as many as an image needs."""
    images: dict[str, Json] = {json.dumps(image.measurement): image.gpus for image in plan.images}
    makers = [root for root in plan.simulated_roots if root.product.startswith(NVIDIA)]
    return [
        table("nvidia", dict.fromkeys(NVIDIA_WAIVED, ANY)),
        table("nvidia.images", images),
        *(f"\n[[nvidia.simulated_root]]\n{lines(_anchor(root))}" for root in makers),
    ]


def _anchor(root: SimulatedRoot) -> dict[str, Json]:
    """A maker's root as expectations name it: by its key, and for what it vouches."""
    return {"name": root.name, "anchor": root.product.removeprefix(NVIDIA), "spki_sha256": root.sha256}


def trust(plan: Plan, pin: str) -> str:
    """trust.toml: what an auditor of this federation holds as true (`comity receipt verify --trust`)."""
    return lines(
        {
            "federation": plan.federation,
            "charter": pin,
            "quorum": "none",
            "profile": "standard",
            "expectations": "expectations.toml",
        }
    )


def _federation(pin: str, more: Mapping[str, Json]) -> str:
    entries: dict[str, Json] = {
        "charter": "shared/charter.json",
        "pin": pin,
        "manifests": "shared/manifests",
        "reference_values": "shared/reference-values",
    }
    return table("federation", entries | dict(more))


def _bus(user: str, url: str) -> str:
    return table("bus", {"url": url, "seed": f"keys/{user}.nk", "ca": "shared/bus-ca.pem"})


def _texts(texts: Sequence[str]) -> list[Json]:
    return list(texts)
