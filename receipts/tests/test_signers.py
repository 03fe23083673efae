"""What the signers of receipts may get wrong, or lie about: each lie shows, with its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from receipts import bundle as bundles
from receipts.log import Draft
from receipts.statements.fields import Commitment, Layer, Link
from receipts.statements.receipt import Considered, Executor
from receipts.tests.conftest import verdict
from receipts.tests.touching import joined
from receipts.tests.world import Federation, Node, Run, acknowledgement, digest, placement, policy, usage
from receipts.verify import Report

RUNS: list[tuple[str, Run, str, str, tuple[str, str | None]]] = [
    ("another-executor", Run(placement={"executor": Executor(domain="hyper.us", key="A" * 43)}),
     "execution", "placement-link", ("failed", "verify.link_executor")),
    ("unlinked", Run(links=[]), "execution", "placement-link", ("failed", "verify.link_missing")),
    ("linked-elsewhere", Run(links=[Link(rel="placement", digest="9" * 64)]), "execution", "placement-link",
     ("not-checked", "verify.link_absent")),
    ("ok-without-node", Run(links=[]), "execution", "execution-link", ("failed", "verify.node_link")),
    ("better-usage", Run(execution={"usage": usage(output_tokens=340)}), "execution", "execution-link",
     ("failed", "verify.usage")),
    ("other-output", Run(execution={"response": Commitment(commitment="3" * 64)}), "execution",
     "execution-link", ("failed", "verify.response")),
    ("prettier-outcome", Run(statement={"outcome": "partial"}), "execution", "execution-link",
     ("failed", "verify.outcome")),
    ("other-domain-s-node", Run(node=Node(domain="clinic.de")), "execution", "attested",
     ("failed", "verify.node_domain")),
    ("denied-but-ran", Run(execution={"policy": policy(verdict="deny")}), "execution", "policy",
     ("failed", "verify.policy")),
    ("allowed-against-a-layer",
     Run(placement={"policy": policy(layers=[
         Layer(layer="national", digest=digest(), verdict="deny", rules=["DEU-001-x"])])}),
     "placement", "policy", ("failed", "verify.policy")),
    ("index-outside-the-set",
     Run(placement={"considered": Considered(root="0" * 64, count=1, selected_index=1)}),
     "placement", "plan-choice", ("failed", "verify.considered")),
]  # fmt: skip


@pytest.mark.parametrize("case", RUNS, ids=[case[0] for case in RUNS])
async def test_a_signer_s_lie_shows(
    federation: Federation, tmp_path: Path, case: tuple[str, Run, str, str, tuple[str, str | None]]
) -> None:
    _, run, kind, claim, wanted = case
    report = federation.verify(await federation.play(tmp_path, replace(run, request=Run().request)))
    assert (verdict(report, kind, claim), report.exit_code) == (wanted, 1)


async def test_two_receipts_with_one_number_convict(federation: Federation, tmp_path: Path) -> None:
    """An issuer that keeps two logs: both receipts are valid, and together they show it."""
    run = Run()
    first = bundles.read(await federation.play(tmp_path, run))
    (tmp_path / "other").mkdir()
    second = bundles.read(await federation.play(tmp_path / "other", replace(run, placed=None)))
    report = federation.verify(bundles.write(joined(first, second)))
    assert report.exit_code == 1
    assert "verify.equivocation" in {code for _, code in failures(report)}


def failures(report: Report) -> set[tuple[str, str | None]]:
    """(claim, reason code) of everything that was checked and is wrong, of any receipt."""
    claims = [claim for receipt in report.receipts for claim in receipt.claims]
    return {(claim.name, claim.code) for claim in claims if claim.verdict == "failed"}


async def test_a_sequence_follows_what_its_receipt_names(federation: Federation, tmp_path: Path) -> None:
    """Numbers 0 and 1 of two different logs: the second names another predecessor."""
    bundles_of = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        clinic = await federation.clinic.open(tmp_path / name)
        issued = await clinic.issue([Draft(placement(request=Run().request)) for _ in range(2)])
        await clinic.checkpoint()
        bundles_of.append([bundles.read(await clinic.bundle(each.receipt_id)) for each in issued])
        await clinic.close()
    first, second = bundles_of[0][0], bundles_of[1][1]
    report = federation.verify(bundles.write(joined(first, second)))
    assert ("sequence", "verify.sequence") in failures(report)


@pytest.mark.parametrize("part", ["id", "commitment"])
async def test_a_link_leads_to_the_same_request(federation: Federation, tmp_path: Path, part: str) -> None:
    run = Run()
    other = run.request.model_copy(update={part: digest()})
    async with federation.opened(tmp_path) as (clinic, cloud):
        await run.play(clinic, cloud)
        await clinic.issue([Draft(acknowledgement(request=other, links=run.both))])
        await clinic.checkpoint()
        whole = bundles.read(await clinic.bundle(run.request.id))
        if part == "id":
            whole = joined(whole, bundles.read(await clinic.bundle(other.id)))
    report = federation.verify(bundles.write(whole))
    assert verdict(report, "acknowledgement", "execution-link") == ("failed", "verify.link_request")
