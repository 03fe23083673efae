"""How fast TDX quotes are verified, against bare P-256 verification and dcap-qvl in the same process.

Ratios mean something on any machine; absolute rates only beside other rates of the same run.

    python bench/attestation_tdx.py [--seconds 8] [--check]

cold: nothing is known, nine signatures. warm: collateral and PCK chain are known, quoting enclave and
quote are new, two signatures. known key: only the quote is new, one signature. The peer is given its
collateral parsed. --check exits 1 where a floor is missed: cold at most 1.3 of the peer's time, warm at
least 3 times as fast as the peer, a known key at least 0.6 of bare P-256 verifications.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import dcap_qvl
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestation.appraise import appraise_dcap
from attestation.expected import Expectations
from attestation.memory import forget
from attestation.tdx.origin import verify
from attestation.tdx.origin.signature import read_point
from attestation.tdx.quote import read_quote
from attestation.testing.intel import IntelForge
from attestation.testing.intel_documents import NOW
from bench.attestation import interleaved

COLD_CEILING = 1.3
WARM_FLOOR = 3.0
KNOWN_FLOOR = 0.6
SHAPES = ("v4", "v5 td15")
BATCH = 16  # runs in a row
GUESTS = 64  # quotes that take turns
ANY = (
    "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrseam",
    "mrsignerseam", "report_data", "td_attributes", "xfam", "tcb_date_min",
)  # fmt: skip


def forge(number: int, shape: str) -> IntelForge:
    """A guest of one platform; MISCSELECT is zero, which the peer reads as we do."""
    return IntelForge(
        shape=shape, body={"report_data": number.to_bytes(64)},
        qe={"miscselect": 0}, identity={"miscselect": "00000000"},
    )  # fmt: skip


def measure(shape: str, seconds: float) -> dict[str, float]:
    """Rates and ratios for quotes of one shape."""
    first = forge(0, shape)
    quotes = [forge(number, shape).quote() for number in range(GUESTS)]
    collateral = first.collateral()
    keys = "\n".join(f'{name} = "any"' for name in ANY)
    root = f'[[tdx.simulated_root]]\nname = "forge"\nsha256 = "{first.root_digest}"'
    expectations = Expectations.parse(f"[tdx]\n{keys}\n{root}".encode())
    parsed = read_quote(quotes[0])
    key, algorithm = read_point(parsed.attestation_key), ec.ECDSA(hashes.SHA256())
    signature = encode_dss_signature(
        int.from_bytes(parsed.signature[:32]), int.from_bytes(parsed.signature[32:])
    )
    theirs, at = dcap_qvl.QuoteCollateralV3.from_json(collateral.decode()), int(NOW.timestamp())
    root_der, turn, turns = first.root.der(), cycle(quotes), cycle(quotes)

    def appraise(quote: bytes) -> None:
        found = appraise_dcap(quote, tee="tdx", endorsements=[collateral], expectations=expectations, at=NOW)
        assert found.verdict == "affirming"

    def known() -> None:
        appraise(next(turn))

    def peer() -> None:
        assert dcap_qvl.verify_with_root_ca(next(turns), theirs, root_der, at).status == "UpToDate"

    def p256() -> None:
        key.verify(signature, parsed.signed, algorithm)

    def warm() -> None:
        verify._verify_qe.cache_clear()  # left to verify are the QE report and the quote; it costs 1 µs
        known()

    heat = interleaved(batches(p256=p256, known=known), seconds)
    warmth = interleaved(batches(peer=peer, warm=warm), seconds)
    chill = interleaved({"forgotten": forget, "cold": known, "p256": p256, "peer": peer}, seconds)
    return {
        "p256": BATCH / calm(heat["p256"]),
        "peer": BATCH / calm(warmth["peer"]),
        "known key": BATCH / calm(heat["known"]),
        "warm": BATCH / calm(warmth["warm"]),
        "cold": 1 / calm(chill["cold"]),
        "known key / p256": calm(heat["p256"]) / calm(heat["known"]),
        "warm / peer": calm(warmth["peer"]) / calm(warmth["warm"]),
        "cold time / peer time": calm(chill["cold"]) / calm(chill["peer"]),
        "cold in P-256 verifications": calm(chill["cold"]) / calm(chill["p256"]),
    }


def calm(times: list[float]) -> float:
    """The lower quartile: what a run takes when others on the machine leave it alone."""
    return sorted(times)[len(times) // 4]


def batches(**work: Callable[[], None]) -> dict[str, Callable[[], object]]:
    """Each run so often in a row, as a service does: the processor's caches serve the next."""

    def repeated(run: Callable[[], None]) -> Callable[[], object]:
        def several() -> None:
            for _ in range(BATCH):
                run()

        return several

    return {name: repeated(run) for name, run in work.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each of three series")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    found = {shape: measure(shape, arguments.seconds) for shape in SHAPES}
    shown = {shape: {k: round(v, 3) for k, v in rates.items()} for shape, rates in found.items()}
    print(json.dumps(shown, indent=2))
    return 1 if arguments.check and missed(found) else 0


def missed(found: dict[str, dict[str, float]]) -> list[str]:
    """The shapes that miss a floor."""
    return [
        shape for shape, rates in found.items()
        if rates["cold time / peer time"] > COLD_CEILING or rates["warm / peer"] < WARM_FLOOR
        or rates["known key / p256"] < KNOWN_FLOOR
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
