"""A node's result ends with the first of its parts, and is not kept where one has no end."""

from __future__ import annotations

import pytest

from attestation.gpu.node.devices import DevicesAppraisal
from attestation.node.cpu import joined
from attestation.result import AttestationResult
from attestation.testing.intel_documents import NOW


@pytest.mark.parametrize(
    ("cpu", "devices", "end"),
    [(20.0, 30.0, 20.0), (30.0, 20.0, 20.0), (20.0, None, None), (None, 20.0, None), (None, None, None)],
)
def test_the_first_end_of_all_parts_counts(
    cpu: float | None, devices: float | None, end: float | None
) -> None:
    alone = AttestationResult("snp", "affirming", None, (), NOW, bytes(32), valid_until=cpu)
    beside = DevicesAppraisal([], [], devices, simulated=False)
    assert joined(alone, beside, (), bytes(32)).valid_until == end
    assert joined(alone, None, (), bytes(32)).valid_until == cpu
