"""Fetching endorsements from AMD's key distribution service into a folder.

The folder *is* the offline bundle: `--endorsements FOLDER` reads it. Nothing enters it before its
chain holds to a pinned root and fits the report it was fetched for. A crash leaves at most an
unfinished file, which nobody reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from attestation.collateral.pieces import put
from attestation.collateral.service import Service
from attestation.endorsements import recognise
from attestation.expected import Expectations
from attestation.pki.x509 import Certificate, Crl, read_certificate, read_crl
from attestation.result import AttestationResult
from attestation.snp.appraise import appraise_report
from attestation.snp.origin.chain import AMD_ROOTS, verify_issuers
from attestation.snp.origin.revocation import is_fresh, verify_crl
from attestation.snp.origin.verify import NAMES
from attestation.snp.products import PRODUCTS, Product, product_of_cpuid
from attestation.snp.report import SIGNING_KEYS, Report, read_report
from schemas.errors import ConfigurationError, Refused, Undecided, Unreadable

AMD: Final = "https://kdsintf.amd.com"
CRL_MAX_AGE: Final = 86_400.0  # seconds after which a CRL is asked for again, though still current


@dataclass(slots=True)
class KeyDistribution:
    """AMD's service or a mirror of it, and the folder that keeps what it gave.

    Owned by one process; several may share a folder, since files are replaced whole. Certificates
    are named by (product, chip, TCB): the service re-issues, so a certificate's own hash names nothing.
    """

    folder: Path
    service: Service
    """At `AMD`, or a mirror."""
    expectations: Expectations | None = None
    """Only for its roots: a simulated vendor's mirror is believed where they list it."""
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def endorse(self, report: bytes, *, product: str | None = None) -> list[Path]:
        """Fetch whatever this report still lacks; returns the files that now endorse it.

        product: needed for version 2, whose report does not say. Raises `Undecided` when the service
        does not give it, `Refused` when what it gave does not fit, `ConfigurationError` without product.
        """
        parsed = read_report(report)
        line = _product(parsed, product)
        kind = SIGNING_KEYS.get(parsed.signing_key, "none").lower()
        if kind == "none":
            raise Refused("snp.signature.unsigned", "nothing can endorse a report that is not signed")
        issuers = self.folder / line.name / f"chain_{kind}.pem"
        files = [
            await self._kept(
                issuers, f"/{kind}/v1/{line.name}/cert_chain", self._current,
                partial(self._check_issuers, line, kind.upper()),
            )
        ]  # fmt: skip
        if kind == "vcek":
            vcek, check = self._vcek(parsed, line), partial(self._check_vcek, report, issuers)
            files.append(await self._kept(vcek, _vcek_path(parsed, line), self._current, check))
        return [*files, *await self._crls(line, kind, issuers)]

    async def _crls(self, line: Product, kind: str, issuers: Path) -> list[Path]:
        """Both paths' CRLs; the report's own must be there, the other may not exist (AMD 57230 CRL)."""
        files: list[Path] = []
        for path in ("vcek", "vlek"):
            crl, signed = self.folder / line.name / f"{path}.crl", partial(self._check_crl, issuers)
            try:
                files.append(await self._kept(crl, f"/{path}/v1/{line.name}/crl", self._recent, signed))
            except Undecided as error:
                if path == kind or error.code != "collateral.not_found":
                    raise
        return files

    def _vcek(self, report: Report, line: Product) -> Path:
        chip = report.chip_id[: line.hwid_bytes].hex()
        return self.folder / line.name / f"vcek_{chip}_{report.reported_tcb.hex()}.der"

    async def _kept(
        self, file: Path, path: str, usable: Callable[[Path], bool], check: Callable[[bytes], object]
    ) -> Path:
        """The file, fetched only where the kept one is no longer usable; one request in flight a name.

        `check` holds what arrived against what was asked for, and raises before anything is kept.
        """
        async with self._locks.setdefault(path, asyncio.Lock()):
            if usable(file):
                return file
            data = (await self.service.get(path)).body
            try:
                check(data)
            except (Refused, Unreadable) as error:
                raise Refused("collateral.wrong_answer", f"{path}: {error}") from None
            return put(file, data)

    def _current(self, file: Path) -> bool:
        """Kept certificates serve until the first of them ends."""
        try:
            found = recognise(file.read_bytes())
            return all(self.service.clock() <= read_certificate(der).not_after for der in found.certificates)
        except (OSError, Unreadable):
            return False

    def _recent(self, file: Path) -> bool:
        """A kept CRL serves for a day, and never beyond its nextUpdate."""
        try:
            crls = recognise(file.read_bytes()).crls
            age = self.service.clock() - file.stat().st_mtime
            return age <= CRL_MAX_AGE and all(
                (read_crl(der).next_update or 0) > self.service.clock() for der in crls
            )
        except (OSError, Unreadable):
            return False

    def _check_issuers(self, line: Product, kind: str, data: bytes) -> Certificate:
        roots = self.expectations.roots if self.expectations else AMD_ROOTS
        certificates = [read_certificate(der) for der in recognise(data).certificates]
        return verify_issuers(certificates, line, kind, roots)

    def _check_crl(self, issuers: Path, data: bytes) -> Crl:
        """Signed by the root that was just checked, and as fresh as one that is supplied must be."""
        found = recognise(data).crls
        arks = [
            der for der in recognise(issuers.read_bytes()).certificates if _is_root(read_certificate(der))
        ]
        if len(found) != 1 or len(arks) != 1:
            raise Refused("snp.crl.missing", "not one CRL")
        crl = verify_crl(found[0], arks[0])
        if not is_fresh(crl, self.service.clock()):
            raise Refused("snp.crl.stale", "the CRL is not current")
        return crl

    def _check_vcek(self, report: bytes, issuers: Path, data: bytes) -> AttestationResult:
        """The report's whole origin must hold with this certificate: chip, TCB, dates, signature."""
        if len(recognise(data).certificates) != 1:
            raise Refused("snp.endorsement.missing", "not one certificate")
        result = appraise_report(
            report, endorsements=[issuers.read_bytes(), data], expectations=self.expectations, nonce=None,
            waive_revocation=True, at=datetime.fromtimestamp(self.service.clock(), UTC),
        ).result  # fmt: skip
        for check in result.checks:
            if check.name in NAMES and check.name != "snp.crl" and check.status != "pass":
                raise Refused(check.code or check.name, check.seen)
        return result


def _is_root(certificate: Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _product(report: Report, stated: str | None) -> Product:
    if report.version >= 3:
        found = product_of_cpuid(*report.cpuid[:2])
        if found is None:
            raise Refused("snp.report.cpuid_unknown", "no known product line")
        return found
    if stated not in PRODUCTS:
        raise ConfigurationError(
            "collateral.product",
            f"a version 2 report does not say its product; write --product {'|'.join(PRODUCTS)}",
        )
    return PRODUCTS[stated]


def _vcek_path(report: Report, line: Product) -> str:
    """AMD 57230, get VCEK: hwID in hex, each level in decimal."""
    if not any(report.chip_id):
        raise Undecided("collateral.chip_masked", "CHIP_ID is masked: a VCEK cannot be asked for")
    chip = report.chip_id[: line.hwid_bytes].hex()
    levels = "&".join(
        f"{part}SPL={level:02d}" for part, level in line.layout.read(report.reported_tcb).items()
    )
    return f"/vcek/v1/{line.name}/{chip}?{levels}"
