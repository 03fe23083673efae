"""Buckets and queues: bounded for whoever sends whatever, and fair."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federation.flood import MAX_SENDERS, FloodGate, FloodLimits

LIMITS = FloodLimits(rate=10, burst=20, queue=5, max_bytes=100)


def test_a_burst_then_the_rate() -> None:
    gate: FloodGate[int] = FloodGate(LIMITS)
    verdicts = []
    for number in range(30):
        verdicts.append(gate.offer("a", number, 1, now=0.0))
        gate.take()
    assert verdicts == ["accepted"] * 20 + ["over_rate"] * 10
    assert gate.offer("a", 0, 1, now=0.05) == "over_rate"
    assert gate.offer("a", 0, 1, now=0.15) == "accepted"


def test_a_full_queue_drops_the_new_and_counts_it() -> None:
    gate: FloodGate[int] = FloodGate(LIMITS)
    verdicts = [gate.offer("a", number, 1, now=0.0) for number in range(8)]
    assert verdicts == ["accepted"] * 5 + ["queue_full"] * 3
    assert [gate.take() for _ in range(6)] == [0, 1, 2, 3, 4, None]
    counts = gate.counts()["a"]
    assert (counts.accepted, counts.queue_full) == (5, 3)


def test_too_long_costs_no_token() -> None:
    gate: FloodGate[int] = FloodGate(LIMITS)
    assert gate.offer("a", 0, 101, now=0.0) == "too_long"
    assert gate.total.too_long == 1
    assert gate.take() is None


def test_a_loud_sender_does_not_starve_a_quiet_one() -> None:
    gate: FloodGate[str] = FloodGate(LIMITS)
    for number in range(5):
        gate.offer("loud", f"loud{number}", 1, now=0.0)
    gate.offer("quiet", "quiet", 1, now=0.0)
    assert [gate.take(), gate.take(), gate.take()] == ["loud0", "quiet", "loud1"]


def test_the_number_of_senders_is_bounded() -> None:
    gate: FloodGate[int] = FloodGate(LIMITS)
    gate.offer("waits", 1, 1, now=0.0)
    for number in range(MAX_SENDERS + 50):
        gate.offer(f"s{number}", 1, 1, now=0.0)
        gate.take()
    assert len(gate.counts()) <= MAX_SENDERS


def test_a_clock_that_steps_back_gives_no_tokens() -> None:
    gate: FloodGate[int] = FloodGate(LIMITS)
    for _ in range(20):
        gate.offer("a", 0, 1, now=100.0)
        gate.take()
    assert gate.offer("a", 0, 1, now=50.0) == "over_rate"
    assert gate.offer("a", 0, 1, now=50.05) == "over_rate"


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 200), st.floats(0, 0.5), st.booleans()), max_size=200
)


@given(STEPS)
def test_nobody_gets_more_than_burst_and_rate(steps: list[tuple[str, int, float, bool]]) -> None:
    gate: FloodGate[tuple[str, int]] = FloodGate(LIMITS)
    now, accepted, taken = 0.0, [], []
    for number, (name, size, pause, take) in enumerate(steps):
        now += pause
        if gate.offer(name, (name, number), size, now) == "accepted":
            accepted.append((name, number))
        assert gate.waiting <= 3 * LIMITS.queue
        if take and (item := gate.take()):
            taken.append(item)
    while item := gate.take():
        taken.append(item)
    for name in "abc":
        mine = [item for item in accepted if item[0] == name]
        assert len(mine) <= LIMITS.burst + LIMITS.rate * now + 1e-6
        assert [item for item in taken if item[0] == name] == mine, "in order, none lost, none twice"


def test_a_charge_takes_a_token_and_queues_nothing() -> None:
    gate: FloodGate[int] = FloodGate(FloodLimits(rate=1, burst=2, shut_after=3))
    assert [gate.charge("a", 0.0) for _ in range(3)] == ["accepted", "accepted", "over_rate"]
    assert gate.waiting == 0
    assert gate.offer("a", 1, 1, 0.0) == "over_rate"
    assert gate.charge("a", 0.0) == "over_rate"
    assert gate.floods("a")
