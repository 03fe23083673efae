"""How fast NVIDIA evidence is verified, against the P-384 checks that each case needs, in the same process.

Ratios mean something on any machine; absolute rates only beside other rates of the same run.

    python -m bench.attestation --gpu [--seconds 8] [--check], or this file alone [--seconds 2] [--check]

`floor` is the time of exactly those signature checks, one after the other, replayed from a run of the case:
three own checks a device (leaf, boot ROM, report), what its family shares, and four links and a signature
a manifest. Keys that the case meets for the first time are loaded in the floor as well. `ratio` is that of
the calmest quarter of the rounds; beside it stands that of the fastest round of each, which other work on
the machine disturbs least. --check exits 1 where `ratio` is above 1.3.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from attestation import ecdsa
from attestation.appraise import appraise_nvidia
from attestation.expected import Expectations
from attestation.gpu.forms import Devices
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.pki.signature import verify_link
from attestation.gpu.rim.manifest import verify_manifest
from attestation.memory import forget
from attestation.testing.nvidia import NOW, GpuForge, root_toml
from attestation.testing.nvidia_manifest import manifests_for
from attestation.testing.nvidia_node import VBIOS, BoardForge, board_manifests
from attestation.testing.nvidia_report import NONCE

TARGET = 1.3
ECDSA = ec.ECDSA(hashes.SHA384())
KEYS = ("driver_min", "vbios", "modes", "confidential", "devtools", "revocation")


@dataclass(frozen=True)
class Case:
    """One row: what is appraised, what is forgotten before, and how many checks that needs."""

    name: str
    devices: Sequence[GpuForge]
    manifests: Sequence[bytes]
    before: Callable[[], None]
    checks: int


def nothing() -> None:
    """Everything that may be remembered is."""


def cases() -> list[Case]:
    one = [GpuForge()]
    board = list(BoardForge().devices().values())
    own, shared = manifests_for("GH100", "550.90.07", VBIOS), board_manifests()
    fresh = _Fresh(board, shared)
    return [
        # Leaf, boot ROM, provisioner, identity, root, report; two manifests that share a chain.
        Case("one device, cold", one, own, forget, 6 + 4 + 2),
        Case("one device, known", one, own, nothing, 1),
        # Twelve times three; root, identity, two provisioners; three manifests on two chains below one root.
        Case("8 + 4, cold", board, shared, forget, 36 + 4 + (3 + 3 + 1) + 3),
        Case("8 + 4, intermediates warm", board, shared, fresh.before, 36),
        Case("8 + 4, known devices", board, shared, nothing, 12),
    ]


@dataclass
class _Fresh:
    """Forgets every device, and learns manifests and what a family shares again."""

    board: Sequence[GpuForge]
    manifests: Sequence[bytes]

    def before(self) -> None:
        forget()
        for document in self.manifests:
            verify_manifest(document)
        for device in (self.board[0], self.board[-1]):
            above = [each.der() for each in device.certified().values()][2:]
            for child, parent in zip(above, [*above[1:], above[-1]], strict=True):
                verify_link(child, parent)


def measure(case: Case, seconds: float) -> dict[str, float]:
    """Milliseconds of processor time for the case and for its signature checks alone."""
    table = "\n".join(["[nvidia]", *(f'{key} = "any"' for key in KEYS), root_toml()])
    expectations = Expectations.parse(table.encode())
    inputs = Devices(
        tuple(DeviceInput(d.report(), (d.chain(),)) for d in case.devices), len(case.devices) > 1
    )

    def appraise() -> None:
        found = appraise_nvidia(
            inputs if inputs.together else inputs.inputs[0].report,
            endorsements=[*case.manifests, *(() if inputs.together else inputs.inputs[0].endorsements)],
            expectations=expectations, nonce=NONCE, at=NOW,
        )  # fmt: skip
        assert found.verdict == "affirming", found.reason

    appraise()
    case.before()
    recorded = _record(appraise)
    assert len(recorded) == case.checks, len(recorded)
    known = case.before is nothing
    keys = [key for key, _, _ in recorded]
    spkis = [key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys]

    def floor() -> None:
        used = keys if known else [load_der_public_key(spki) for spki in spkis]
        for key, (_, given, signed) in zip(used, recorded, strict=True):
            assert isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(given, signed, ECDSA)

    pairs: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(pairs) < 5:
        case.before()
        pairs.append((_time(appraise), _time(floor)))
    calm = sorted(pairs, key=sum)[: max(1, len(pairs) // 4)]
    return {
        "ms": 1000 * median(each[0] for each in calm),
        "floor ms": 1000 * median(each[1] for each in calm),
        "checks": case.checks,
        "ratio": median(each[0] / each[1] for each in calm),
        "ratio of the fastest": min(each[0] for each in pairs) / min(each[1] for each in pairs),
    }


def _record(run: Callable[[], None]) -> list[tuple[ec.EllipticCurvePublicKey, bytes, bytes]]:
    """Every signature check that a run makes: key, signature, what was signed."""
    found: list[tuple[ec.EllipticCurvePublicKey, bytes, bytes]] = []
    real = ecdsa.verify_ecdsa

    def noted(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, hashing: ec.ECDSA) -> bytes:
        found.append((key, signature, signed))
        return real(key, signature, signed, hashing)

    ecdsa.verify_ecdsa = noted
    try:
        run()
    finally:
        ecdsa.verify_ecdsa = real
    return found


def _time(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    found = {case.name: measure(case, arguments.seconds) for case in cases()}
    print(json.dumps({n: {k: round(v, 3) for k, v in row.items()} for n, row in found.items()}, indent=2))
    return 1 if arguments.check and missed(found) else 0


def missed(found: dict[str, dict[str, float]]) -> list[str]:
    """The cases that take more than they should."""
    return [name for name, row in found.items() if row["ratio"] > TARGET]


if __name__ == "__main__":
    sys.exit(main())
