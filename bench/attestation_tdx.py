"""How fast TDX quotes are verified, against bare P-256 verification and dcap-qvl in the same process.

Ratios mean something on any machine; absolute rates only beside other rates of the same run.

    python bench/attestation_tdx.py [--seconds 8] [--check]

cold: nothing is known, nine signatures, and a made-up root's own as the tenth. warm: collateral and PCK
chain are known, quoting enclave and quote are new, two signatures. known key: only the quote is new, one
signature. nine: the nine bare signatures of `cold`, with keys that are as new: no verifier on this library
is faster; `beyond` is what we take more than they. The peer is given its collateral parsed. A genuine
quote is measured where evidence is at hand.
--check exits 1 where a floor is missed: cold at most 1.3 of the peer's time, warm at least 3 times as fast
as the peer, a known key at least 0.6 of bare P-256 verifications.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import dcap_qvl
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from attestation.appraise import appraise_dcap
from attestation.expected import Expectations
from attestation.memory import forget
from attestation.pki.x509 import read_certificate, read_crl
from attestation.tdx.collateral.documents import gather
from attestation.tdx.origin import verify
from attestation.tdx.origin.chain import split_pem
from attestation.tdx.origin.roles import TCB_SIGNER
from attestation.tdx.origin.signature import read_point
from attestation.tdx.quote import read_quote
from attestation.tdx.tests import recorded
from attestation.testing.intel import IntelForge
from attestation.testing.intel_documents import NOW
from bench.attestation import interleaved
from schemas.primitives import parse_time

COLD_CEILING = 1.3
WARM_FLOOR = 3.0
KNOWN_FLOOR = 0.6
SHAPES = ("v4", "v5 td15")
GENUINE = "tdx-v5-gotdx-cf77a6-eval19-2026-06-08-uptodate"
BATCH = 16  # runs in a row
GUESTS = 64  # quotes that take turns
ANY = (
    "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrseam",
    "mrsignerseam", "report_data", "td_attributes", "xfam", "tcb_date_min",
)  # fmt: skip


@dataclass(frozen=True)
class Guest:
    """One platform's collateral and quotes of a guest on it, which take turns."""

    quotes: tuple[bytes, ...]
    collateral: bytes
    expectations: Expectations | None
    at: datetime
    root: bytes


def forged(shape: str) -> Guest:
    """MISCSELECT is zero, which the peer reads as we do."""
    forges = [
        IntelForge(
            shape=shape, body={"report_data": number.to_bytes(64)},
            qe={"miscselect": 0}, identity={"miscselect": "00000000"},
        )
        for number in range(GUESTS)
    ]  # fmt: skip
    first = forges[0]
    keys = "\n".join(f'{name} = "any"' for name in ANY)
    root = f'[[tdx.simulated_root]]\nname = "forge"\nsha256 = "{first.root_digest}"'
    expectations = Expectations.parse(f"[tdx]\n{keys}\n{root}".encode())
    quotes = tuple(each.quote() for each in forges)
    return Guest(quotes, first.collateral(), expectations, NOW, first.root.der())


def genuine() -> Guest | None:
    """Intel's own, of the recorded evidence; None where there is none."""
    for row in recorded.rows():
        if row["case"].endswith(GENUINE):
            quote, offered = recorded.read(row["evidence"]), recorded.read(row["endorsements"][0])
            root = split_pem(read_quote(quote).certification)[2]
            return Guest((quote,), offered, None, parse_time(row["at"]), root)
    return None


def measure(guest: Guest, seconds: float) -> dict[str, float]:
    """Rates and ratios for one guest's quotes."""
    parsed = read_quote(guest.quotes[0])
    key, algorithm = read_point(parsed.attestation_key), ec.ECDSA(hashes.SHA256())
    signature = _der(parsed.signature)
    theirs = dcap_qvl.QuoteCollateralV3.from_json(guest.collateral.decode())
    at, turn, turns = int(guest.at.timestamp()), cycle(guest.quotes), cycle(guest.quotes)

    def known() -> None:
        found = appraise_dcap(
            next(turn), tee="tdx", endorsements=[guest.collateral],
            expectations=guest.expectations, at=guest.at,
        )  # fmt: skip
        assert found.verdict == "affirming"

    def peer() -> None:
        assert dcap_qvl.verify_with_root_ca(next(turns), theirs, guest.root, at).status == "UpToDate"

    def p256() -> None:
        key.verify(signature, parsed.signed, algorithm)

    def warm() -> None:
        verify._verify_qe.cache_clear()  # left to verify are the QE report and the quote; it costs 1 µs
        known()

    heat = interleaved(batches(p256=p256, known=known), seconds)
    warmth = interleaved(batches(peer=peer, warm=warm), seconds)
    work = {"cold": known, "p256": p256, "peer": peer, "nine": nine(guest)}
    chill = {name: calm(times) for name, times in interleaved({"forgotten": forget, **work}, seconds).items()}
    return {
        "p256": BATCH / calm(heat["p256"]),
        "peer": BATCH / calm(warmth["peer"]),
        "known key": BATCH / calm(heat["known"]),
        "warm": BATCH / calm(warmth["warm"]),
        "cold": 1 / chill["cold"],
        "known key / p256": calm(heat["p256"]) / calm(heat["known"]),
        "warm / peer": calm(warmth["peer"]) / calm(warmth["warm"]),
        "cold time / peer time": chill["cold"] / chill["peer"],
        "nine time / peer time": chill["nine"] / chill["peer"],
        "beyond nine, in milliseconds": 1000 * (chill["cold"] - chill["nine"]),
        "cold in P-256 verifications": chill["cold"] / chill["p256"],
    }


def nine(guest: Guest) -> Callable[[], None]:
    """The nine signatures alone, cut out before: what is timed is loading five keys and nine checks."""
    quote, offered = read_quote(guest.quotes[0]), gather((guest.collateral,))
    leaf, issuer, root = (read_certificate(each) for each in split_pem(quote.certification))
    signer = next(
        read
        for each in offered.documents[0].issuers or ()
        if (read := read_certificate(each)).common_name in TCB_SIGNER.subjects
    )
    crls = [read_crl(each) for each in offered.crls]
    algorithm = ec.ECDSA(hashes.SHA256())
    signed = [
        *((root, each.signed.signature, each.signed.tbs) for each in (issuer, signer)),
        (issuer, leaf.signed.signature, leaf.signed.tbs),
        *((root if each.issuer == root.subject else issuer, each.signed.signature, each.signed.tbs)
          for each in crls),
        *((signer, _der(each.signature), each.body) for each in offered.documents),
        (leaf, _der(quote.qe_signature), quote.qe.raw),
    ]  # fmt: skip
    point, last = b"\x04" + quote.attestation_key, _der(quote.signature)
    assert len(signed) == 8

    def verify_nine() -> None:
        keys = {each.spki: load_der_public_key(each.spki) for each in (leaf, issuer, root, signer)}
        for by, signature, data in signed:
            key = keys[by.spki]
            assert isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(signature, data, algorithm)
        attestation = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        attestation.verify(last, quote.signed, algorithm)

    return verify_nine


def _der(raw: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))


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
    found = {shape: measure(guest, arguments.seconds) for shape, guest in guests().items()}
    shown = {shape: {k: round(v, 3) for k, v in rates.items()} for shape, rates in found.items()}
    print(json.dumps(shown, indent=2))
    return 1 if arguments.check and missed(found) else 0


def guests() -> dict[str, Guest]:
    """What is measured, by name."""
    found = {shape: forged(shape) for shape in SHAPES}
    intel = genuine()
    return found if intel is None else {**found, "genuine": intel}


def missed(found: dict[str, dict[str, float]]) -> list[str]:
    """The shapes that miss a floor."""
    return [
        shape for shape, rates in found.items()
        if rates["cold time / peer time"] > COLD_CEILING or rates["warm / peer"] < WARM_FLOOR
        or rates["known key / p256"] < KNOWN_FLOOR
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
