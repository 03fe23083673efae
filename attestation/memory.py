"""What this room remembers within a process: parsed certificates, verified chains and CRLs.

Pure functions of bytes are remembered, and appraisals that hold, each for exactly its inputs and within
the moments between which nothing ends or begins. Every bound is a constant beside its cache.
Forgetting costs time and changes no answer.
"""

from __future__ import annotations

from functools import _lru_cache_wrapper
from typing import Final, cast

from attestation import endorsements, narrow
from attestation.gpu import appraise as appraised
from attestation.gpu import documents as offered
from attestation.gpu import kept as known
from attestation.gpu import verify as origin
from attestation.gpu.pki import chain as devices
from attestation.gpu.pki import constraints
from attestation.gpu.pki import signature as links
from attestation.gpu.revocation import check, ocsp
from attestation.gpu.rim import check as demanded
from attestation.gpu.rim import manifest
from attestation.gpu.spdm import blocks
from attestation.gpu.spdm import opaque as fields
from attestation.pki import der, x509
from attestation.snp import appraisal
from attestation.snp.origin import chain, revocation
from attestation.tdx import kept, quote
from attestation.tdx.collateral import documents, endorsed, stated
from attestation.tdx.origin import chain as pck
from attestation.tdx.origin import revocation as intel
from attestation.tdx.origin import signature
from attestation.tdx.origin import verify as quoted

_SHARED: Final = (
    der.common_name,
    endorsements._gather,
    endorsements._recognise,
    endorsements._decoded,
    x509.read_certificate,
    x509.read_crl,
    x509._hex_digest,
    narrow._narrowed,
)
_AMD: Final = (
    chain._verify_chain,
    chain._leaf_claims,
    revocation.verify_crl,
    appraisal.room_of_report,
    appraisal.room_of_guest,
)
_INTEL: Final = (
    documents._gather,
    kept.room_of_guest,
    stated._tcb_info,
    stated._qe_identity,
    signature.read_point,
    pck.verify_pck_chain,
    pck.verify_root,
    pck.verify_signer,
    endorsed._verify_body,
    intel.verify_crl,
    quoted._verify_qe,
    quoted._bound,
    quote._read_vouched,
)
_NVIDIA: Final = (
    constraints.stated,
    constraints._hold_link,
    offered.gather,
    appraised._held,
    known.room_of_device,
    links.verify_link,
    devices.read_chain,
    fields.read_opaque,
    blocks.read_blocks,
    devices.family_of,
    devices.leaf_fwid,
    origin._held,
    check._verify_crl,
    ocsp.read_response,
    ocsp._verify,
    ocsp._cert_ids,
    demanded._checked,
    manifest.read_manifest,
    manifest.verify_manifest,
    manifest.stated_version,
)


def caches() -> tuple[_lru_cache_wrapper[object], ...]:
    """Every function of this room that remembers."""
    return cast("tuple[_lru_cache_wrapper[object], ...]", (*_SHARED, *_AMD, *_INTEL, *_NVIDIA))


def forget() -> None:
    """Empty every cache: for measurements, and for tests that count."""
    for function in caches():
        function.cache_clear()
