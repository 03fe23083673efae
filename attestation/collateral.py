"""Fetching endorsements from AMD's key distribution service into a folder. The only file with a network.

The folder *is* the offline bundle: `--endorsements FOLDER` reads it. Nothing enters it before its
chain holds to a pinned root and fits the report it was fetched for. A crash leaves at most a
temporary file, which is overwritten next time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from attestation.endorsements import recognise
from attestation.expected import Expectations
from attestation.result import AttestationResult
from attestation.snp.appraise import appraise_report
from attestation.snp.chain import AMD_ROOTS, verify_issuers
from attestation.snp.products import PRODUCTS, Product, product_of_cpuid
from attestation.snp.report import SIGNING_KEYS, Report, read_report
from attestation.snp.revocation import is_fresh, verify_crl
from attestation.snp.verify import NAMES
from attestation.x509 import Certificate, Crl, read_certificate, read_crl
from schemas.errors import ConfigurationError, Refused, Undecided, Unreadable

AMD: Final = "https://kdsintf.amd.com"
MAX_ANSWER_BYTES: Final = 256 * 1024  # the largest real answer, a chain in PEM, has 5 KiB
TIMEOUT: Final = 20.0  # seconds for one answer; the service makes certificates on demand
ATTEMPTS: Final = 5
FIRST_PAUSE: Final = 1.0  # seconds; doubled each time, with full jitter
LONGEST_PAUSE: Final = 60.0  # seconds, also for Retry-After: beyond it, give up and say so
NOT_FOUND_FOR: Final = 600.0  # seconds that a 404 is remembered
CRL_MAX_AGE: Final = 86_400.0  # seconds after which a CRL is asked for again, though still current


@dataclass(slots=True)
class KeyDistribution:
    """AMD's service or a mirror of it, and the folder that keeps what it gave.

    Owned by one process; several may share a folder, since files are replaced whole. Certificates
    are named by (product, chip, TCB): the service re-issues, so a certificate's own hash names nothing.
    """

    folder: Path
    client: httpx.AsyncClient
    base_url: str = AMD
    expectations: Expectations | None = None
    """Only for its roots: a simulated vendor's mirror is believed where they list it."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.time
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _absent: dict[str, float] = field(default_factory=dict)

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
        for path in ("vcek", "vlek"):
            crl, signed = self.folder / line.name / f"{path}.crl", partial(self._check_crl, issuers)
            files.append(await self._kept(crl, f"/{path}/v1/{line.name}/crl", self._recent, signed))
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
            data = await self._get(path)
            try:
                check(data)
            except (Refused, Unreadable) as error:
                raise Refused("collateral.wrong_answer", f"{path}: {error}") from None
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(file.name + ".new")
            temporary.write_bytes(data)
            temporary.replace(file)
            return file

    def _current(self, file: Path) -> bool:
        """Kept certificates serve until the first of them ends."""
        try:
            found = recognise(file.read_bytes())
            return all(self.clock() <= read_certificate(der).not_after for der in found.certificates)
        except (OSError, Unreadable):
            return False

    def _recent(self, file: Path) -> bool:
        """A kept CRL serves for a day, and never beyond its nextUpdate."""
        try:
            crls = recognise(file.read_bytes()).crls
            age = self.clock() - file.stat().st_mtime
            return age <= CRL_MAX_AGE and all((read_crl(der).next_update or 0) > self.clock() for der in crls)
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
        if not is_fresh(crl, self.clock()):
            raise Refused("snp.crl.stale", "the CRL is not current")
        return crl

    def _check_vcek(self, report: bytes, issuers: Path, data: bytes) -> AttestationResult:
        """The report's whole origin must hold with this certificate: chip, TCB, dates, signature."""
        if len(recognise(data).certificates) != 1:
            raise Refused("snp.endorsement.missing", "not one certificate")
        result = appraise_report(
            report, endorsements=[issuers.read_bytes(), data], expectations=self.expectations, nonce=None,
            waive_revocation=True, at=datetime.fromtimestamp(self.clock(), UTC),
        ).result  # fmt: skip
        for check in result.checks:
            if check.name in NAMES and check.name != "snp.crl" and check.status != "pass":
                raise Refused(check.code or check.name, check.seen)
        return result

    async def _get(self, path: str) -> bytes:
        """One answer, with patience for 429 (RFC 9110 10.2.3), none for 404. Raises `Undecided`."""
        if self.clock() - self._absent.get(path, -NOT_FOUND_FOR) < NOT_FOUND_FOR:
            raise Undecided("collateral.not_found", f"{path}: the service did not have it a moment ago")
        trouble = "no answer"
        for attempt in range(ATTEMPTS):
            wait = random.uniform(0, FIRST_PAUSE * 2**attempt)  # noqa: S311 - jitter, not a secret
            try:
                status, asked, body = await self._once(path)
            except httpx.HTTPError as error:
                status, asked, body, trouble = 0, None, b"", type(error).__name__
            if status == httpx.codes.OK:
                return body
            if status == httpx.codes.NOT_FOUND:
                self._absent[path] = self.clock()
                raise Undecided("collateral.not_found", f"{path}: the service has no such thing")
            trouble = f"status {status}" if status else trouble
            if status and status != httpx.codes.TOO_MANY_REQUESTS and status < 500:
                break
            if asked is not None and asked > LONGEST_PAUSE:
                trouble += f", asks to wait {asked:.0f} s"
                break
            if attempt + 1 < ATTEMPTS:
                await self.sleep(min(LONGEST_PAUSE, wait if asked is None else max(asked, wait)))
        raise Undecided("collateral.unavailable", f"{path}: {trouble}")

    async def _once(self, path: str) -> tuple[int, float | None, bytes]:
        """(status, seconds asked to wait, body up to its limit)."""
        async with self.client.stream("GET", self.base_url + path, timeout=TIMEOUT) as answer:
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise Undecided("collateral.unavailable", f"{path}: more than {MAX_ANSWER_BYTES} bytes")
            return answer.status_code, _retry_after(answer.headers.get("retry-after"), self.clock()), body


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


def _retry_after(header: str | None, now: float) -> float | None:
    """Seconds, from either form of Retry-After (RFC 9110 10.2.3)."""
    if header is None:
        return None
    if header.isdecimal():
        return float(header[:9])
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now)
    except (ValueError, TypeError):
        return None
