"""A node of CPU and GPU: asked for by a tag, proved by the asking domain, named in every receipt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attestation.gpu.node.binding import OWN_MODE
from examples.demo.audit import hardware
from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.receipts import proved_bundle, verify, verify_as_program
from federation_tests.world import World, ask
from receipts import bundle as bundles
from schemas import envelope

CONFIDENTIAL = {"data_class": "public", "confidential_gpu": True}


async def placed(world: World, policy: dict[str, Any]) -> tuple[str, bytes]:
    """The domain that answers, and the bundle of its receipts."""
    answer = await world.client().chat.completions.create(**ask("one two three", policy=policy))
    assert answer.model_extra
    member = answer.model_extra["comity"]
    return str(member["domain"]), await proved_bundle(world.http(), member["receipt"])


def attestations(data: bytes) -> list[dict[str, Any]]:
    """What every receipt of the bundle states of its node's appraisal."""
    predicates = [json.loads(envelope.read(each).payload) for each in bundles.read(data).envelopes.values()]
    nodes = [node for each in predicates for node in each.get("predicate", {}).get("nodes", [])]
    return [node["attestation"] for node in nodes if "attestation" in node]


async def test_who_asks_for_a_confidential_gpu_gets_one_and_the_receipt_says_how_it_is_bound(
    calm: World, tmp_path: Path
) -> None:
    domain, bundle = await placed(calm, CONFIDENTIAL)
    assert domain == CLOUD
    stated = attestations(bundle)
    assert len(stated) == 2  # the consumer's Placement and the provider's Execution
    assert {(each["bindingMode"], each["simulated"]) for each in stated} == {(OWN_MODE, True)}
    found = await verify_as_program(calm, bundle, tmp_path)
    assert found.exit_code == 0, found.report
    for kind in ("placement", "execution"):
        (claim,) = found.claims(kind, "attested")
        assert claim["verdict"] == "proved"
        assert f"1 device bound by {OWN_MODE} (SIMULATED hardware)" in claim["text"]
    assert found.verdicts("placement", "policy") == ["proved"]
    (said,) = hardware([found.report])  # what the demo's auditor prints
    assert (
        said
        == f"simulated-snp-milan of {CLOUD}: affirming, 1 device bound by {OWN_MODE} (SIMULATED hardware)"
    )


async def test_a_node_without_devices_says_so(calm: World) -> None:
    domain, bundle = await placed(calm, {"data_class": "public"})
    assert domain == HYPER
    assert {each["bindingMode"] for each in attestations(bundle)} == {"cpu-only"}
    (claim,) = verify(calm, bundle).claims("placement", "attested")
    assert "no devices" in claim["text"]


async def test_a_domain_without_such_nodes_is_rejected_by_the_rule(calm: World) -> None:
    body = {
        "model": "chat.small", "max_tokens": 8, "messages": [{"role": "user", "content": "who could"}],
        "comity": {"policy": CONFIDENTIAL},
    }  # fmt: skip
    explained = (await calm.http().post("/explain", json=body)).json()
    lacking = {
        plan["domain"] for plan in explained["rejected"] if "TEE-002-confidential-gpu" in plan["rules"]
    }
    assert lacking == {CLINIC, HYPER}


async def test_an_auditor_who_asks_nothing_of_devices_does_not_call_them_proved(
    calm: World, tmp_path: Path
) -> None:
    _, bundle = await placed(calm, CONFIDENTIAL)
    folder = calm.founded.domain(CLINIC)
    text = (folder / "expectations.toml").read_text("utf-8")
    (tmp_path / "expectations.toml").write_text(text.partition("\n[nvidia]")[0] + "\n", "utf-8")
    (tmp_path / "trust.toml").write_bytes((folder / "trust.toml").read_bytes())
    found = verify(calm, bundle, trust=tmp_path / "trust.toml")
    assert found.exit_code == 3
    for kind in ("placement", "execution"):
        (claim,) = found.claims(kind, "attested")
        assert (claim["verdict"], claim["code"]) == ("not-checked", "verify.devices_unset")
