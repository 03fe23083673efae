"""Where the time of one request went, in whole milliseconds that add up (routing.md 11)."""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Latency:
    """The five parts of one request's time. The total is their sum, so that the sentence always adds up."""

    domain: str
    engine_class: str
    """What served it, as its domain discloses it: a class such as `cpu/llama.cpp`, never a node's name."""
    network_ms: int
    agreement_ms: int
    queue_ms: int
    compute_ms: int
    broker_ms: int

    @classmethod
    def of_spans(
        cls,
        domain: str,
        engine_class: str,
        *,
        total_ns: int,
        network_ns: int,
        agreement_ns: int,
        queue_ns: int,
        compute_ns: int,
    ) -> Latency:
        """Divide a measured total; what no other part explains is the broker's own.

        The parts come from several clocks. Where they exceed the total, the ones that a stranger's
        clock measured (queue and compute) keep what is left after ours.
        """
        left, parts = max(0, total_ns), []
        for part in (agreement_ns, network_ns, queue_ns, compute_ns):
            taken = min(max(0, part), left)
            left -= taken
            parts.append(taken)
        agreement, network, queue, compute, broker = _whole_milliseconds([*parts, left])
        return cls(domain, engine_class, network, agreement, queue, compute, broker)

    @property
    def total_ms(self) -> int:
        return self.network_ms + self.agreement_ms + self.queue_ms + self.compute_ms + self.broker_ms

    def sentence(self) -> str:
        """The latency sentence: one line of ASCII, fit for a header."""
        return (
            f"served by {self.domain} on {self.engine_class} in {self.total_ms} ms: "
            f"{self.network_ms} ms network, {self.agreement_ms} ms agreement, {self.queue_ms} ms queue, "
            f"{self.compute_ms} ms compute, {self.broker_ms} ms broker"
        )


def _whole_milliseconds(parts_ns: list[int]) -> list[int]:
    """Round so that the parts add up to the rounded total: the largest remainders are rounded up."""
    whole = [part // NS_PER_MS for part in parts_ns]
    missing = (sum(parts_ns) + NS_PER_MS // 2) // NS_PER_MS - sum(whole)
    by_remainder = sorted(range(len(parts_ns)), key=lambda at: -(parts_ns[at] % NS_PER_MS))
    for at in by_remainder[:missing]:
        whole[at] += 1
    return whole
