"""What rests on somebody's word: it is shown as that, and as wrong where something speaks against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from receipts.statements.fields import Capability
from receipts.tests.conftest import verdict
from receipts.tests.world import MODEL_NAME, Federation, Run
from receipts.verify.claim import proved


@pytest.mark.parametrize("digest", ["1" * 64, None], ids=["another", "none"])
async def test_a_model_that_no_appraised_node_hashed_did_not_run(
    federation: Federation, tmp_path: Path, digest: str | None
) -> None:
    ran: dict[str, Any] = {"capability": Capability(name=MODEL_NAME, artifact_digest=digest)}
    report = federation.verify(await federation.play(tmp_path, Run(execution=ran, statement=ran)))
    assert verdict(report, "execution", "attested") == ("proved", None)
    assert verdict(report, "execution", "capability") == ("failed", "verify.model")
    assert report.exit_code == 1


def test_nothing_proves_nothing() -> None:
    with pytest.raises(ValueError, match="usage"):
        proved("usage", None, "agreed")
