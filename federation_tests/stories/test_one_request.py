"""The first story: one request stays at home, one crosses a border, and both leave receipts that hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.receipts import Verified, proved, proved_bundle, verify_as_program
from federation_tests.world import World, ask

EU = {"data_class": "personal", "residency": ["EU"]}
HOME = {"data_class": "special-category"}


def check(found: Verified, provider: str) -> None:
    """Everything that one auditor can check alone is proved; the rest names whose word it is."""
    assert found.exit_code == 0, found.report
    assert found.failed == []
    signed = {(receipt["kind"], receipt["issuer"]) for receipt in found.report["receipts"]}
    acknowledged = {("acknowledgement", CLINIC)} if provider != CLINIC else set()
    assert signed == {("placement", CLINIC), ("execution", provider), *acknowledged}
    assert len(found.report["receipts"]) == len(signed)
    for kind in ("placement", "execution"):
        for claim in ("signature", "schema", "issuer-key", "logged", "attested"):
            assert found.verdicts(kind, claim) == ["proved"], (kind, claim)
        assert "SIMULATED" in found.claims(kind, "attested")[0]["text"]
    assert found.verdicts("placement", "execution-link") == ["proved"]
    assert found.verdicts("execution", "placement-link") == ["proved"]
    assert found.verdicts("execution", "capability") == ["asserted-by(node)"]
    # At home nobody bills anybody: the counters stay the word of who ran it.
    agreed = "proved" if acknowledged else f"asserted-by({provider})"
    assert found.verdicts("execution", "usage") == [agreed]
    for kind in ("placement", "execution", "acknowledgement") if acknowledged else ():
        assert found.verdicts(kind, "ack-link") == ["proved"], kind
    assert found.verdicts("placement", "policy") == ["proved"]


@pytest.mark.parametrize(
    ("policy", "provider"),
    [({"data_class": "public"}, HYPER), (EU, CLOUD), (HOME, CLINIC)],
    ids=["public goes where it is cheapest", "personal data stays in the EU", "health data stays at home"],
)
async def test_a_request_is_answered_and_its_receipt_holds(
    calm: World, policy: dict[str, object], provider: str
) -> None:
    answer = await calm.client().chat.completions.create(**ask("one two three", policy=policy))
    assert answer.choices[0].message.content == "one two three "
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens == 3
    member = answer.model_extra["comity"] if answer.model_extra else {}
    assert member["domain"] == provider
    assert member["latency"].startswith(f"served by {provider} on cpu/scripted in ")
    check(await proved(calm, calm.http(), member["receipt"]), provider)


async def test_the_command_line_verifies_without_a_network(calm: World, tmp_path: Path) -> None:
    answer = await calm.client().chat.completions.create(**ask("one two three", policy=EU))
    assert answer.model_extra
    bundle = await proved_bundle(calm.http(), answer.model_extra["comity"]["receipt"])
    check(await verify_as_program(calm, bundle, tmp_path), CLOUD)
