"""Words that rules may use are those that appraisals say."""

from __future__ import annotations

from attestation.gpu.node.binding import BINDING_MODES, OWN_MODE
from attestation.gpu.node.composite import CPU_ONLY
from schemas.policy import facts


def test_rules_may_ask_for_every_binding_that_an_appraisal_can_find() -> None:
    assert {"none", CPU_ONLY, *BINDING_MODES} == facts.BINDING_MODES
    assert facts.STRONGEST_BINDING == OWN_MODE
