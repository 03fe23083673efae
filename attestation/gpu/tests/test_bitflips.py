"""One bit of every byte turned: nothing of a report, a chain or a manifest is free to change.

COMITY_ALL_BITS=1 turns all eight bits of every byte, of manifests too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest

from attestation.gpu.pki.roots import Roots
from attestation.gpu.rim.manifest import verify_manifest
from attestation.gpu.tests.judging import DRIVER_MANIFEST, GOOD, SWITCH, expect, toml
from attestation.gpu.verify import authenticate
from attestation.testing.nvidia import NOW, GpuForge
from attestation.testing.nvidia_report import NONCE
from schemas.errors import Refused, Unreadable

ALL = os.environ.get("COMITY_ALL_BITS") == "1"
MANIFEST_STEP = 1 if ALL else 13  # a manifest takes three signatures' time, and has 14,000 bytes


def flips(data: bytes, step: int = 1) -> Iterator[tuple[int, bytes]]:
    """(offset, data with one bit turned); which bit, follows from the offset."""
    for at in range(0, len(data), step):
        for bit in range(8) if ALL else [at % 8]:
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            yield at, bytes(changed)


def roots() -> Roots:
    policy = expect(toml()).nvidia
    assert policy is not None
    return policy.roots


def holds(report: bytes, chain: Sequence[bytes]) -> bool:
    """Whether nothing speaks against it. A report that is none refuses."""
    try:
        found = authenticate(report, chain, roots(), NOW.timestamp(), nonce=NONCE)
    except Unreadable:
        return False
    return all(check.effect == "shown" for check in found.checks())


@pytest.mark.parametrize("device", [GOOD, SWITCH], ids=lambda device: device.chip)
def test_every_byte_of_a_report_counts(device: GpuForge) -> None:
    report, chain = device.report(), [each.der() for each in device.certified().values()]
    assert holds(report, chain)
    assert not [at for at, changed in flips(report) if holds(changed, chain)]


def test_every_byte_of_a_chain_counts() -> None:
    report, chain = GOOD.report(), [each.der() for each in GOOD.certified().values()]
    free = [
        (level, at)
        for level, certificate in enumerate(chain)
        for at, changed in flips(certificate)
        if holds(report, [*chain[:level], changed, *chain[level + 1 :]])
    ]
    assert not free


def test_a_manifest_that_still_verifies_says_the_same() -> None:
    """White space in base64 and case in hex are free; no value, no version, no product is."""
    document = DRIVER_MANIFEST.document()
    good = verify_manifest(document)
    for at, changed in flips(document, MANIFEST_STEP):
        try:
            found = verify_manifest(changed)
        except Refused:
            continue
        same = (found.golden, found.version, found.product, found.edition, found.name, found.manufacturer)
        assert same == (
            good.golden,
            good.version,
            good.product,
            good.edition,
            good.name,
            good.manufacturer,
        ), at
