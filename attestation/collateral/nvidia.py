"""Fetching what NVIDIA's devices need: manifests, OCSP answers, a service token's key set (gpu.md 6, 8, 9).

Every piece verifies to a pinned root and fits the evidence before it enters the folder, under the SHA-256 of
its bytes. Older issues of a manifest stay: an id names many documents. Answers replace those about the same
certificate. Requests carry no nonce, so that a mirror can answer them: freshness rests on the answers' times.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from attestation.collateral.pieces import Pieces
from attestation.collateral.service import Service
from attestation.gpu.documents import gather
from attestation.gpu.expected import GpuPolicy
from attestation.gpu.forms import TokenFile
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.nras.keys import find_key
from attestation.gpu.nras.token import read_token
from attestation.gpu.pki.chain import Family
from attestation.gpu.revocation.check import Held, Subject, check_revocation
from attestation.gpu.revocation.ocsp import answers_about, read_response
from attestation.gpu.rim.issues import Slot, hold_issue, slots_of
from attestation.gpu.rim.manifest import Manifest, verify_manifest
from attestation.gpu.spdm.report import Report
from attestation.gpu.verify import authenticate
from attestation.pki.x509 import Certificate
from schemas.errors import Refused, Undecided

MANIFESTS: Final = "https://rim.attestation.nvidia.com"
RESPONDER: Final = "http://ocsp.ndis.nvidia.com"
TOKENS: Final = "https://nras.attestation.nvidia.com"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where each kind is asked for. A mirror serves all three below one address."""

    manifests: str = f"{MANIFESTS}/v1/rim/"
    responder: str = f"{RESPONDER}/"
    key_set: str = f"{TOKENS}/.well-known/jwks.json"

    @staticmethod
    def mirror(base: str) -> Endpoints:
        return Endpoints(f"{base}/v1/rim/", f"{base}/ocsp/", f"{base}/.well-known/jwks.json")


@dataclass(frozen=True, slots=True)
class Accelerators:
    """NVIDIA's services or a mirror of them, and the folder that keeps what they gave."""

    pieces: Pieces
    service: Service
    policy: GpuPolicy
    endpoints: Endpoints = Endpoints()

    async def endorse(self, devices: Sequence[DeviceInput]) -> list[Path]:
        """Fetch manifests and answers for these devices; returns the files that now endorse them.

        Raises `Undecided` when a service does not give it, `Refused` when the evidence is not genuine, or
        what was given does not fit (`collateral.wrong_answer`).
        """
        files: list[Path] = []
        asked: dict[tuple[bytes, bytes], Subject] = {}
        for device in devices:
            report, family, subjects = self._genuine(device)
            for slot in slots_of(report.firmware, family):
                file, manifest = await self._manifest(slot, report, family)
                files.append(file)
                subjects += _subjects(slot.name, manifest.chain, last=3)
            asked |= {(each.certificate.der, each.issuer.der): each for each in subjects}
        for subject in asked.values():
            files.append(await self._answer(subject))
        return list(dict.fromkeys(files))

    async def archive_keys(self, token: TokenFile) -> list[Path]:
        """The key set that a token needs: its keys vanish within days. Raises as `endorse`."""
        overall = read_token(token.data).overall
        issued = overall.claims.get("iat")
        answer = await self.service.get(self.endpoints.key_set)
        try:
            find_key((answer.body,), overall.key_id, issued if type(issued) is int else -1, self.policy.roots)
        except Refused as error:
            raise Refused("collateral.wrong_answer", f"the key set: {error}") from None
        return [self.pieces.keep(answer.body, "json")]

    def _genuine(self, device: DeviceInput) -> tuple[Report, Family, list[Subject]]:
        """Nothing is asked in the name of a device that does not prove itself."""
        chains = gather(device.endorsements).chains
        origin = authenticate(
            device.report, chains[0] if chains else None, self.policy.roots, self.service.clock(),
            nonce=None, padding=self.policy.padding, fwid=self.policy.fwid,
        )  # fmt: skip
        for check in origin.checks():
            if check.effect != "shown":
                make = Undecided if check.effect == "none" else Refused
                raise make(check.code or check.name, check.seen)
        assert origin.report is not None
        assert origin.family is not None
        assert origin.chain is not None
        return origin.report, origin.family, _subjects("device", origin.chain.certificates[1:], last=3)

    async def _manifest(self, slot: Slot, report: Report, family: Family) -> tuple[Path, Manifest]:
        answer = await self.service.get(self.endpoints.manifests + slot.id)
        offered = gather((answer.body,))
        try:
            if offered.problem is not None:
                raise offered.problem
            if len(offered.manifests) != 1 or offered.manifests[0].id not in (None, slot.id):
                raise Refused("gpu.rim_unavailable", "not the manifest that was asked for")
            data = offered.manifests[0].data
            rules = self.policy.manifests
            manifest = hold_issue(
                verify_manifest(data), slot, report.firmware, family, rules, self.service.clock()
            )
        except Refused as error:
            raise Refused("collateral.wrong_answer", f"{slot.id}: {error}") from None
        return self.pieces.keep(data, "xml"), manifest

    async def _answer(self, subject: Subject) -> Path:
        """A current answer, asked for only where the kept one no longer is one."""
        kept = self._kept(subject)
        if kept is not None:
            return kept
        request = quote(base64.b64encode(request_for(subject)).decode(), safe="")  # RFC 6960 appendix A.1
        answer = await self.service.get(self.endpoints.responder + request)
        self._hold(subject, answer.body)
        for old in self._about(subject):
            old.unlink()
        return self.pieces.keep(answer.body, "ocsp")

    def _kept(self, subject: Subject) -> Path | None:
        for file in self._about(subject):
            try:
                self._hold(subject, file.read_bytes())
            except (Refused, Undecided):
                continue
            return file
        return None

    def _about(self, subject: Subject) -> list[Path]:
        """Kept answers about this certificate, good or not."""
        found: list[Path] = []
        for file in sorted(self.pieces.folder.glob("*.ocsp")):
            try:
                response = read_response(file.read_bytes())
            except Refused:
                continue
            if answers_about([response], subject.certificate, subject.issuer):
                found.append(file)
        return found

    def _hold(self, subject: Subject, data: bytes) -> bytes:
        """The answer, if it says now that this certificate is good."""
        name = subject.certificate.common_name
        try:
            held = Held(responses=(read_response(data),))
        except Refused as error:
            raise Refused("collateral.wrong_answer", f"{name}: {error}") from None
        (check,), _ = check_revocation(held, [subject], self.service.clock(), waived=False)
        if check.status == "pass":
            return data
        if check.code in ("gpu.cert_revoked", "gpu.cert_on_hold", "gpu.revocation_unknown"):
            raise Refused(check.code, check.seen)
        raise Refused("collateral.wrong_answer", f"{name}: {check.code}: {check.seen}")


def _subjects(name: str, chain: Sequence[Certificate], *, last: int) -> list[Subject]:
    """The first certificates of a chain, each with its issuer."""
    return [Subject(f"{name}{level}", chain[level], chain[level + 1]) for level in range(last)]


def request_for(subject: Subject) -> bytes:
    """An OCSP request about one certificate: CertID with SHA-384, no nonce (RFC 6960 4.1)."""
    certificate = x509.load_der_x509_certificate(subject.certificate.der)
    issuer = x509.load_der_x509_certificate(subject.issuer.der)
    request = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA384()).build()
    return request.public_bytes(serialization.Encoding.DER)
