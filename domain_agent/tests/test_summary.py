"""What peers are told: coarse, late, less than there is, and nothing of a node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain_agent.admit.nodes import NodeRecord
from domain_agent.offer.catalogue import Catalogue
from domain_agent.offer.holding import Holding
from domain_agent.offer.summary import DWELL_S, Condenser
from domain_agent.tests.founding import Founded
from domain_agent.tests.interior import MODEL, Interior, entry
from schemas.canonical import write_json
from schemas.descriptors.summary import HEADROOM_BUCKETS, RATE_BANDS_TPS, Cell
from schemas.messages.interior import ModelState, NodeState

OTHER = "ef" * 32
NODES = st.tuples(st.integers(1, 64), st.integers(0, 10**7), st.integers(0, 70))
"""slots, decode rate, holds"""


@pytest.fixture
def interior(founded: Founded, tmp_path: Path) -> Interior:
    return Interior(founded, tmp_path)


async def crowd(interior: Interior, count: int, **state: int) -> None:
    """As many admitted nodes as we like, on one chip: only admission itself needs evidence."""
    if interior.book.get("n1") is None:
        interior.add()
        await interior.ask_due()
    proven = interior.book.get("n1")
    assert proven
    for number in range(count):
        name = f"node-{number}-of-many"
        record, _ = interior.book.arrive(name, "boot")
        record.appraisal, record.admitted_until, record.reason = proven.appraisal, proven.admitted_until, None
        report(interior, record, **state)


def report(interior: Interior, record: NodeRecord, *, slots: int = 2, decode: int = 50) -> None:
    model = ModelState(
        capability="chat.small/smollm2-135m-q4_1", model_digest=MODEL, prefill_tps=123, decode_tps=decode
    )
    state = NodeState(
        node_id=record.node_id,
        boot_id=record.boot_id,
        health="HEALTHY",
        slots=slots,
        busy_slots=0,
        queued=0,
        memory_mb=54321,
        models=[model],
    )
    interior.book.note_state(state, record.node_id, interior.time.clock.steady())
    interior.capacity.set_room(record.node_id, slots=slots, queue=0)


def size(cells: list[Cell]) -> int:
    return len(write_json([cell.as_json() for cell in cells]))


async def test_a_summary_does_not_grow_with_the_number_of_nodes(interior: Interior, founded: Founded) -> None:
    await crowd(interior, 2)
    few = size(interior.condenser.cells(0))
    await crowd(interior, 300)
    assert size(interior.condenser.cells(100)) == few


async def test_a_summary_holds_no_field_of_a_node(interior: Interior) -> None:
    await crowd(interior, 7, slots=37)
    record = interior.book.get("n1")
    assert record
    assert record.appraisal
    text = write_json([cell.as_json() for cell in interior.condenser.cells(0)]).decode()
    secrets = ("node-", "n1", "boot", "37", "54321", "123", record.appraisal.sign_key.thumbprint)
    assert not [secret for secret in secrets if secret in text]
    assert record.appraisal.evidence_digest.hex() not in text


async def test_too_small_a_group_shows_class_and_place_only(interior: Interior) -> None:
    await crowd(interior, 4)
    condenser = Condenser(interior.holding, "DE", 5)
    assert condenser.cells(0) == [Cell(cls="chat.small", jur="DE")]
    await crowd(interior, 5)
    assert condenser.cells(0)[0].variant == "smollm2-135m-q4_1"


async def test_nothing_is_shown_of_nodes_that_are_not_admitted(interior: Interior) -> None:
    interior.add()
    interior.report()
    assert interior.condenser.cells(0) == []
    await interior.ask_due()
    assert len(interior.condenser.cells(0)) == 1
    interior.time.passed = 6  # its telemetry fell silent
    assert interior.condenser.cells(6) == []


async def test_the_weakest_node_stands_for_all(interior: Interior) -> None:
    await crowd(interior, 3, decode=900)
    slow, _ = interior.book.arrive("slow", "boot")
    fast = interior.book.get("node-0-of-many")
    assert fast
    slow.appraisal, slow.admitted_until = fast.appraisal, fast.admitted_until
    report(interior, slow, decode=12)
    cell = interior.condenser.cells(0)[0]
    assert (cell.decode_tps, cell.ar_min, cell.tee) == (10, 1, "simulated")


async def test_a_confidential_gpu_is_claimed_where_every_node_has_one(interior: Interior) -> None:
    await crowd(interior, 2)
    records = list(interior.book)
    assert [cell.confidential_gpu for cell in interior.condenser.cells(0)] == [False]
    for number, record in enumerate(records):
        assert record.appraisal
        devices = replace(record.appraisal.devices, confidential_gpus=1)
        record.appraisal = replace(record.appraisal, devices=devices)
        (cell,) = interior.condenser.cells(0)
        assert cell.confidential_gpu is (number + 1 == len(records))


async def test_one_short_jobs_start_and_stop_do_not_show(interior: Interior) -> None:
    await crowd(interior, 1, slots=2)
    before = interior.condenser.cells(0)
    place = interior.capacity.hold("node-0-of-many", "nid", hold_s=30, now=interior.time.clock.steady())
    assert interior.condenser.cells(1) == before
    assert interior.condenser.cells(1 + DWELL_S - 0.1) == before
    interior.capacity.release(place.hold_id, "nid", interior.time.clock.steady())
    assert interior.condenser.cells(1 + DWELL_S) == before


async def test_a_lasting_change_shows(interior: Interior) -> None:
    await crowd(interior, 1, slots=2)
    interior.condenser.cells(0)
    interior.capacity.hold("node-0-of-many", "nid", hold_s=30, now=interior.time.clock.steady())
    interior.condenser.cells(1)
    assert interior.condenser.cells(1 + DWELL_S)[0].headroom == 5


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(1, 64), st.integers(0, 100_000), st.integers(0, 70)), min_size=1, max_size=8
    )
)
async def test_whatever_the_nodes_are_buckets_claim_no_more(
    founded: Founded, tmp_path: Path, nodes: list[tuple[int, int, int]]
) -> None:
    interior = Interior(founded, tmp_path)
    await crowd(interior, 0)
    proven = interior.book.get("n1")
    assert proven
    free = total = 0
    now = interior.time.clock.steady()
    for number, (slots, decode, held) in enumerate(nodes):
        record, _ = interior.book.arrive(f"m{number}", "boot")
        record.appraisal, record.admitted_until = proven.appraisal, proven.admitted_until
        report(interior, record, slots=slots, decode=decode)
        for place in range(min(held, slots)):
            interior.capacity.hold(record.node_id, f"{number}-{place}", hold_s=30, now=now)
        free, total = free + max(0, slots - held), total + slots
    (cell,) = interior.condenser.cells(0)
    assert cell.headroom in HEADROOM_BUCKETS
    assert cell.headroom * total <= 10 * free
    assert cell.decode_tps in (0, *RATE_BANDS_TPS)
    assert (cell.decode_tps or 0) <= min(decode for _, decode, _ in nodes)


async def test_variants_of_one_class_are_cells_of_their_own(interior: Interior) -> None:
    catalogue = Catalogue.of([entry("smollm2-135m-q4_1", MODEL), entry("other", OTHER, tier=5)])
    holding = Holding(interior.book, interior.capacity, catalogue, interior.time.clock)
    node = interior.add()
    node.models = {"chat.small/smollm2-135m-q4_1": MODEL, "chat.small/other": OTHER}
    await interior.ask_due()
    interior.report()
    cells = Condenser(holding, "DE", 1).cells(0)
    assert [cell.label for cell in cells] == ["chat.small/other", "chat.small/smollm2-135m-q4_1"]
