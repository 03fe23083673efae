"""How fast NVIDIA evidence is verified, against the P-384 checks that each case needs, in the same process.

Ratios mean something on any machine; absolute rates only beside other rates of the same run.

    python -m bench.attestation --gpu [--seconds 8] [--check], or this file alone [--seconds 2] [--check]

`floor` is the time of exactly those signature checks, one after the other, replayed from a run of the case:
three own checks a device (leaf, boot ROM, report), what its family shares, four links and a signature a
manifest, and with answers about revocation a link and a signature each. Each key that the case meets for
the first time is loaded in the floor as well, once. Nothing else counts: no parsing, no hashing but of what
is verified. `ratio` is elapsed time, in which signatures are checked side by side where there are processors;
`ratio of processors` is what all threads spend. Both are of the calmest quarter of the rounds; beside them
stands that of the fastest round of each. --check exits 1 where `ratio` is above 1.3.
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
from typing import NamedTuple, cast

sys.path.insert(0, str(Path(__file__).parents[1]))

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from attestation.appraise import appraise_nvidia
from attestation.expected import Expectations
from attestation.gpu.forms import Devices
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.pki.signature import verify_link
from attestation.gpu.rim.manifest import verify_manifest
from attestation.memory import forget
from attestation.pki import ecdsa
from attestation.testing.nvidia import NOW, GpuForge, root_toml
from attestation.testing.nvidia_manifest import ManifestForge, manifests_for
from attestation.testing.nvidia_node import VBIOS, BoardForge, board_manifests
from attestation.testing.nvidia_report import NONCE
from attestation.testing.nvidia_status import answers

TARGET = 1.3
KEYS = ("driver_min", "vbios", "modes", "confidential", "devtools")


@dataclass(frozen=True)
class Case:
    """One row: what is appraised, what is forgotten before, and how many checks that needs."""

    name: str
    devices: Sequence[GpuForge]
    manifests: Sequence[bytes]
    before: Callable[[], None]
    checks: int
    answers: Sequence[bytes] = ()
    """About revocation, which the other rows leave out as waived."""


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
        # Six certificates are asked about; a delegate of its issuer answers for each.
        Case("one device, cold, with answers", one, own, forget, 12 + 6 * 2, _answers(one[0])),
        Case("one device, known", one, own, nothing, 1),
        # Twelve times three; root, identity, two provisioners; three manifests on two chains below one root.
        Case("8 + 4, cold", board, shared, forget, 36 + 4 + (3 + 3 + 1) + 3),
        Case("8 + 4, intermediates warm", board, shared, fresh.before, 36),
        Case("8 + 4, known devices", board, shared, nothing, 12),
    ]


def _answers(device: GpuForge) -> list[bytes]:
    """One about each certificate of the device and of its manifests' chain."""
    return list(dict.fromkeys(answers(device, [ManifestForge()])))


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
    """Milliseconds for the case and for its signature checks alone, one after the other."""
    waived = KEYS if case.answers else (*KEYS, "revocation")
    table = "\n".join(["[nvidia]", *(f'{key} = "any"' for key in waived), root_toml()])
    expectations = Expectations.parse(table.encode())
    inputs = Devices(
        tuple(DeviceInput(d.report(), (d.chain(),)) for d in case.devices), len(case.devices) > 1
    )

    shared = [*case.manifests, *case.answers]

    def appraise() -> None:
        found = appraise_nvidia(
            inputs if inputs.together else inputs.inputs[0].report,
            endorsements=[*shared, *(() if inputs.together else inputs.inputs[0].endorsements)],
            expectations=expectations, nonce=NONCE, at=NOW,
        )  # fmt: skip
        assert found.verdict == "affirming", found.reason

    learned = _record(appraise)
    if case.before is not nothing:
        learned = _record(case.before)
    known = {_spki(each.key): each.key for each in learned}
    recorded = [(_spki(each.key), each) for each in _record(appraise)]
    assert len(recorded) == case.checks, len(recorded)

    def floor() -> None:
        keys = dict(known)
        for spki, check in recorded:
            if spki not in keys:
                keys[spki] = cast(ec.EllipticCurvePublicKey, load_der_public_key(spki))
            keys[spki].verify(check.signature, check.signed, check.hashing)

    rounds: list[_Round] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(rounds) < 5:
        case.before()
        rounds.append(_Round(*_time(appraise), *_time(floor)))
    calm = sorted(rounds, key=lambda each: each.took + each.floor)[: max(1, len(rounds) // 4)]
    return {
        "ms": 1000 * median(each.took for each in calm),
        "floor ms": 1000 * median(each.floor for each in calm),
        "checks": case.checks,
        "ratio": median(each.took / each.floor for each in calm),
        "ratio of the fastest": min(each.took for each in rounds) / min(each.floor for each in rounds),
        "ratio of processors": median(each.spent / each.floor_spent for each in calm),
    }


class _Round(NamedTuple):
    """Seconds that the case and its floor took, each with the processor time of all threads."""

    took: float
    spent: float
    floor: float
    floor_spent: float


class _Made(NamedTuple):
    """One signature check that was made."""

    key: ec.EllipticCurvePublicKey
    signature: bytes
    signed: bytes
    hashing: ec.ECDSA


def _spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _record(run: Callable[[], None]) -> list[_Made]:
    """Every signature check that a run makes."""
    found: list[_Made] = []
    real = ecdsa.verify_ecdsa

    def noted(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, hashing: ec.ECDSA) -> bytes:
        found.append(_Made(key, signature, signed, hashing))
        return real(key, signature, signed, hashing)

    ecdsa.verify_ecdsa = noted
    try:
        run()
    finally:
        ecdsa.verify_ecdsa = real
    return found


def _time(run: Callable[[], None]) -> tuple[float, float]:
    start, spent = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - spent


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
