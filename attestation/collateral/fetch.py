"""`comity attest fetch`: whose services a piece of evidence needs, asked one after the other.

The network is loaded only from here: verifying must work where there is none.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from attestation.collateral.amd import AMD, KeyDistribution
from attestation.collateral.bundle import INDEX, write_bundle
from attestation.collateral.intel import INTEL, Provisioning, Wanted
from attestation.collateral.nvidia import Accelerators, Endpoints
from attestation.collateral.pieces import MARKS, Pieces
from attestation.collateral.service import Service
from attestation.expected import Expectations
from attestation.files import (
    is_node,
    naming,
    quote_of,
    read_any_evidence,
    read_documents,
    read_gpu,
    report_of,
)
from attestation.gpu.expected import GpuPolicy
from attestation.gpu.forms import Devices, TokenFile, devices_of
from attestation.snp.forms import Evidence
from attestation.tdx.origin.chain import INTEL_ROOTS
from attestation.tdx.quote import read_quote
from schemas.errors import ConfigurationError
from schemas.keys import SigningKey
from schemas.proof.evidence import NodeEvidence

NOTES: Final = frozenset({MARKS, INDEX})
"""Files of a fetched folder that endorse nothing."""


async def fetch(arguments: argparse.Namespace, expectations: Expectations | None) -> list[Path]:
    """The files that now endorse this evidence. Raises what the services' modules raise.

    And `ConfigurationError` for an address that is none, or a folder that cannot be written.
    """
    arguments.base_url = _address(arguments.base_url)
    with naming(arguments.evidence):
        evidence = read_gpu(arguments.evidence) or read_any_evidence(arguments.evidence)
    try:
        return await _fetched(arguments, expectations, evidence)
    except OSError as error:  # services have said their own otherwise: it is the folder's
        why = f"{error.filename or arguments.out}: {error.strerror}"
        raise ConfigurationError("collateral.folder", why) from None


def _address(text: str | None) -> str | None:
    """Of a mirror, without the slash behind it."""
    if text is None:
        return None
    try:
        httpx.URL(text)  # what the client takes; it mends some that are none
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return text.rstrip("/")
    except (ValueError, httpx.InvalidURL):
        pass
    raise ConfigurationError("attest.option", f"--from {text!r} is no address; write https://HOST[:PORT]")


async def _fetched(
    arguments: argparse.Namespace,
    expectations: Expectations | None,
    evidence: Devices | TokenFile | Evidence | bytes,
) -> list[Path]:
    async with httpx.AsyncClient() as client:
        if isinstance(evidence, Devices | TokenFile):
            return await _from_nvidia(arguments, client, evidence, expectations)
        quote = quote_of(evidence)
        if quote is not None:
            found = await _from_intel(arguments, client, quote, expectations)
        else:
            found = await _from_amd(arguments, client, report_of(evidence), expectations)
        if isinstance(evidence, bytes) and is_node(evidence):
            attached = devices_of(NodeEvidence.read(evidence))
            found += await _from_nvidia(arguments, client, attached, expectations)
        return found


def signing_key(arguments: argparse.Namespace) -> SigningKey | None:
    """The key for `--bundle`, before anything is fetched. Raises `ConfigurationError`."""
    given = [option is not None for option in (arguments.bundle, arguments.sign, arguments.domain)]
    if any(given) and not all(given):
        raise ConfigurationError(
            "attest.option",
            "--bundle DIR, --sign KEY (of role attestation-verifier), --domain NAME go together",
        )
    return SigningKey.load(arguments.sign) if arguments.sign is not None else None


def bundle(arguments: argparse.Namespace, key: SigningKey) -> list[Path]:
    """Everything that lies in `--out` as one signed bundle: SNP's, TDX's and the GPUs' pieces alike."""
    documents = read_documents(arguments.out, without=NOTES)
    return write_bundle(arguments.bundle, documents, issuer=arguments.domain, key=key, at=datetime.now(UTC))


async def _from_amd(
    arguments: argparse.Namespace,
    client: httpx.AsyncClient,
    report: bytes,
    expectations: Expectations | None,
) -> list[Path]:
    service = Service(client, arguments.base_url or AMD)
    return await KeyDistribution(arguments.out, service, expectations).endorse(
        report, product=arguments.product
    )


async def _from_intel(
    arguments: argparse.Namespace,
    client: httpx.AsyncClient,
    quote: bytes,
    expectations: Expectations | None,
) -> list[Path]:
    sgx = read_quote(quote).tee == "sgx"
    rules = expectations and (expectations.sgx if sgx else expectations.tdx)
    service = Service(client, arguments.base_url or INTEL)
    wanted = Wanted(arguments.update, arguments.evaluation)
    roots = rules.roots if rules else INTEL_ROOTS
    return await Provisioning(Pieces(arguments.out), service, roots, wanted).endorse(quote)


async def _from_nvidia(
    arguments: argparse.Namespace,
    client: httpx.AsyncClient,
    devices: Devices | TokenFile,
    expectations: Expectations | None,
) -> list[Path]:
    mirror = arguments.base_url
    policy = (expectations and expectations.nvidia) or GpuPolicy()
    endpoints = Endpoints.mirror(mirror) if mirror else Endpoints()
    services = Accelerators(Pieces(arguments.out), Service(client, mirror or ""), policy, endpoints)
    if isinstance(devices, TokenFile):
        return await services.archive_keys(devices)
    return await services.endorse(devices.inputs)
