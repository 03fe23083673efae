"""How fast SEV-SNP evidence is verified, against bare P-384 and RSA verification in the same process.

Ratios mean something on any machine; absolute rates only beside other rates of the same run.

    python -m bench.attestation [--gpu] [--seconds 8] [--check]

After the SEV-SNP rows follow those of TDX (bench/attestation_tdx.py) and of NVIDIA's devices
(bench/attestation_gpu.py); both also run alone, and --gpu asks for the devices' rows only.
--check exits 1 where a floor is missed: warm at least 0.85 of bare P-384 verifications, cold at least
0.6 of the sum of its signature checks; a device's case at most 1.3 of the sum of its signature checks.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from attestation.appraise import appraise_snp
from attestation.expected import Expectations
from attestation.memory import forget
from attestation.pki.x509 import read_certificate, read_crl, verify_pss
from attestation.snp.appraisal import KEPT_RESULTS
from attestation.snp.report import read_report
from attestation.testing.expectations import snp_toml
from attestation.testing.forge import NOW, Forge

WARM_FLOOR = 0.85
COLD_FLOOR = 0.6


def interleaved(work: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Seconds of processor time of every single run, one run of each in turn, for so long.

    Two things that run in turns of half a millisecond meet the same machine, busy or calm.
    """
    spent: dict[str, list[float]] = {name: [] for name in work}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for name, run in work.items():
            start = time.process_time()
            run()
            spent[name].append(time.process_time() - start)
    return spent


def ratio(spent: dict[str, list[float]], above: str, below: str) -> float:
    """How fast `above` is as a share of `below`, as the median over all rounds."""
    return median(b / a for a, b in zip(spent[above], spent[below], strict=True))


def measure(product: str, seconds: float) -> dict[str, float]:
    """Rates for one product line."""
    forge = Forge.of(product)
    expectations = Expectations.parse((snp_toml() + forge.root_toml()).encode())
    unknown = 2 * KEPT_RESULTS  # in turn, so that each is forgotten before it comes again
    reports = [forge.report(report_data=n.to_bytes(64)) for n in range(unknown)]
    endorsements = forge.endorsements()
    certificates = [read_certificate(der) for der in endorsements[:3]]
    ark, intermediate, _ = certificates
    spkis = [each.spki for each in certificates]
    documents = [*(each.signed for each in certificates), read_crl(endorsements[3]).signed]
    parsed = read_report(reports[0])
    signature = encode_dss_signature(parsed.r, parsed.s)
    key, algorithm = forge.leaf_key.public_key(), ec.ECDSA(hashes.SHA384())
    turn = iter(range(10**9))

    def appraise(report: bytes) -> None:
        result = appraise_snp(report, endorsements=endorsements, expectations=expectations, at=NOW)
        assert result.verdict == "affirming"

    def cold() -> None:
        """A chip, a guest and a root that were never seen (`forgotten` comes first)."""
        appraise(reports[0])

    def signatures() -> None:
        """The five signature checks of `cold`, alone, with keys that were never used either."""
        keys = [load_der_public_key(spki) for spki in spkis]
        for key, signed in zip((keys[0], keys[0], keys[1], keys[0]), documents, strict=True):
            assert isinstance(key, RSAPublicKey)
            verify_pss(key, signed)
        assert isinstance(keys[2], ec.EllipticCurvePublicKey)
        keys[2].verify(signature, parsed.signed, algorithm)

    def warm() -> None:
        """Another report of a known guest: the chain is known, the report is not."""
        appraise(reports[next(turn) % len(reports)])

    def again() -> None:
        appraise(reports[0])

    def p384() -> None:
        key.verify(signature, parsed.signed, algorithm)

    def rsa() -> None:
        verify_pss(ark.public_key, intermediate.signed)

    warmth = interleaved({"p384": p384, "warm": warm}, seconds)
    chill = interleaved({"forgotten": forget, "signatures": signatures, "cold": cold, "rsa": rsa}, seconds)
    alone = interleaved({"again": again}, seconds / 8)
    every = (warmth | alone | chill).items()
    rates = {name: 1 / median(times) for name, times in every if name != "forgotten"}
    rates["warm / p384"] = ratio(warmth, "warm", "p384")
    rates["cold / signatures"] = ratio(chill, "cold", "signatures")
    # Beside it, against the same five with keys that are in use already.
    rates["cold / kept keys"] = rates["cold"] * (4 / rates["rsa"] + 1 / rates["p384"])
    return rates


def main() -> int:
    from bench import attestation_gpu as gpu
    from bench import attestation_tdx as tdx  # it measures with this file's means

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each of two series")
    parser.add_argument("--gpu", action="store_true", help="NVIDIA's devices alone")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    devices = {case.name: gpu.measure(case, arguments.seconds) for case in gpu.cases()}
    if arguments.gpu:
        _print(devices)
        return 1 if arguments.check and gpu.missed(devices) else 0
    found = {product: measure(product, arguments.seconds) for product in ("Milan", "Genoa", "Turin")}
    quotes = {shape: tdx.measure(guest, arguments.seconds) for shape, guest in tdx.guests().items()}
    tdx_rows = {f"TDX {shape}": rates for shape, rates in quotes.items()}
    _print({**found, **tdx_rows, **{f"NVIDIA {name}": row for name, row in devices.items()}})
    missed = [
        name for name, rates in found.items()
        if rates["warm / p384"] < WARM_FLOOR or rates["cold / signatures"] < COLD_FLOOR
    ]  # fmt: skip
    return 1 if arguments.check and (missed or tdx.missed(quotes) or gpu.missed(devices)) else 0


def _print(rows: dict[str, dict[str, float]]) -> None:
    print(
        json.dumps({name: {k: round(v, 3) for k, v in row.items()} for name, row in rows.items()}, indent=2)
    )


if __name__ == "__main__":
    sys.exit(main())
