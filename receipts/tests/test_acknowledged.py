"""What the domain that asked for a run says of it: agreed, disputed, or never arrived whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from receipts.log import Draft, Keep
from receipts.statements.fields import Commitment
from receipts.statements.receipt import Dispute
from receipts.tests.conftest import verdict
from receipts.tests.world import CLINIC, Federation, Run, acknowledgement, usage


async def test_an_acknowledgement_agrees_or_not(federation: Federation, tmp_path: Path) -> None:
    report = federation.verify(await federation.play(tmp_path, more=acknowledge))
    assert verdict(report, "acknowledgement", "ack-link") == ("proved", None)
    assert verdict(report, "execution", "usage") == ("proved", None)
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("changes", "claim", "code"),
    [
        ({"response": Commitment(commitment="3" * 64)}, "ack-link", "verify.response"),
        ({"usage_agreed": usage(output_tokens=1)}, "usage", "verify.usage"),
    ],
)
async def test_a_disagreement_shows(
    federation: Federation, tmp_path: Path, changes: dict[str, Any], claim: str, code: str
) -> None:
    report = federation.verify(await federation.play(tmp_path, more=partial(acknowledge, **changes)))
    kind = "acknowledgement" if claim == "ack-link" else "execution"
    assert verdict(report, kind, claim) == ("failed", code)


async def acknowledge(run: Run, clinic: Any, cloud: Any, **changes: Any) -> None:
    await clinic.issue([Draft(acknowledgement(request=run.request, links=run.both, **changes))])


async def test_a_dispute_proves_nothing_and_is_told(federation: Federation, tmp_path: Path) -> None:
    said: dict[str, Any] = {"status": "disputed", "dispute": Dispute(code="ack.price"), "usage_agreed": None}
    report = federation.verify(await federation.play(tmp_path, more=partial(acknowledge, **said)))
    assert verdict(report, "acknowledgement", "ack-link") == ("asserted-by(clinic.de)", None)
    (usage,) = [each for each in report.claims if each.name == "usage" and "disputed" in each.text]
    assert verdict(report, "execution", "usage") == ("asserted-by(cloud.fr)", None)
    assert usage.text.endswith("disputed by clinic.de: ack.price")
    assert report.exit_code == 3


async def test_an_answer_that_never_arrived_whole_is_linked_and_not_agreed(
    federation: Federation, tmp_path: Path
) -> None:
    said: dict[str, Any] = {"status": "timeout", "response": None, "usage_agreed": None}
    report = federation.verify(await federation.play(tmp_path, more=partial(acknowledge, **said)))
    assert verdict(report, "acknowledgement", "ack-link") == ("proved", None)
    assert verdict(report, "execution", "usage") == ("asserted-by(cloud.fr)", None)
    assert report.exit_code == 0


async def applaud_oneself(run: Run, clinic: Any, cloud: Any) -> None:
    """The executing domain acknowledges its own Execution, and hands that over."""
    (issued,) = await cloud.issue([Draft(acknowledgement(CLINIC, request=run.request, links=run.both))])
    await cloud.checkpoint()
    proofs = {issued.digest: await cloud.proof(issued.receipt_id)}
    await clinic.keep(Keep(run.request.id, envelopes=[issued.envelope], proofs=proofs))


async def test_nobody_acknowledges_its_own_run(federation: Federation, tmp_path: Path) -> None:
    report = federation.verify(await federation.play(tmp_path, more=applaud_oneself))
    assert verdict(report, "execution", "usage") == ("asserted-by(cloud.fr)", None)
    for kind in ("placement", "execution"):
        assert verdict(report, kind, "ack-link") == ("not-checked", None)
    for claim in ("placement-link", "execution-link", "ack-link"):
        assert verdict(report, "acknowledgement", claim) == ("failed", "verify.link_requester")
    assert report.exit_code == 1


@pytest.mark.parametrize("outputs", [(34, 1), (1, 34)])
async def test_counters_are_agreed_when_no_acknowledgement_says_others(
    federation: Federation, tmp_path: Path, outputs: tuple[int, int]
) -> None:
    async def twice(run: Run, clinic: Any, cloud: Any) -> None:
        for number in outputs:
            await acknowledge(run, clinic, cloud, usage_agreed=usage(output_tokens=number))

    report = federation.verify(await federation.play(tmp_path, more=twice))
    assert verdict(report, "execution", "usage") == ("failed", "verify.usage")


async def test_an_acknowledgement_without_counters_agrees_to_none(
    federation: Federation, tmp_path: Path
) -> None:
    silent = partial(acknowledge, usage_agreed=None)
    report = federation.verify(await federation.play(tmp_path, more=silent))
    assert verdict(report, "execution", "usage") == ("asserted-by(cloud.fr)", None)
    assert report.exit_code == 0
