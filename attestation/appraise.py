"""The one door: is this machine what it claims, and do we accept it (DESIGN 5, session.md 1 to 5).

Bytes and a time go in, a result comes out; no I/O, no clock. A broker or an agent appraises for
itself, with its own expectations and its own challenges: nobody else's verdict counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from attestation.expected import Expectations, NodeExpectations
from attestation.gpu.appraise import Asked
from attestation.gpu.forms import Devices
from attestation.gpu.judge import judge
from attestation.gpu.node.composite import NodeDevices, appraise_node_devices, check_device_enrolment
from attestation.gpu.node.tinfoil import is_tinfoil
from attestation.node import checks as node
from attestation.node.checks import IssuedChallenge, platform_digest
from attestation.node.cpu import CpuAppraisal, appraise_cpu, joined
from attestation.node.foreign import appraise_tinfoil
from attestation.result import AttestationResult, Check, Verdict
from attestation.snp.appraise import appraise_report
from attestation.snp.forms import Evidence
from attestation.tdx.appraise import appraise_quote
from attestation.tdx.collateral.rollback import Marks
from attestation.tdx.forms import QuoteForm
from attestation.tdx.quote import Tee
from schemas.errors import ConfigurationError, Refused, Unreadable
from schemas.keys import VerifyKey
from schemas.proof.evidence import NodeEvidence, evidence_digest

__all__ = [
    "IssuedChallenge",
    "NodeAppraisal",
    "appraise_dcap",
    "appraise_node",
    "appraise_nvidia",
    "appraise_snp",
    "platform_digest",
]


@dataclass(frozen=True, slots=True)
class NodeAppraisal:
    """What we hold true of one node after looking at its evidence ourselves.

    Only an `affirming` (or, where policy says so, `warning`) appraisal makes `sign_key` and
    `seal_key` usable. The caller still compares `evidence.federation`, `.domain` and `.node_id` with
    the offer: they are bound by the hardware, but this function does not know who was asked.
    """

    result: AttestationResult
    """All checks, CPU and node."""
    expectations_digest: bytes
    evidence: NodeEvidence
    sign_key: VerifyKey
    platform_digest: bytes | None
    """None if it cannot be enrolled (VLEK, masked chip) or is not proven."""
    devices: NodeDevices
    """GPUs and switches; none where none was appraised."""
    challenged_at: float | None
    """When we issued the newest challenge that this evidence answers (POSIX seconds, our clock)."""
    expires_at: float
    """POSIX seconds after which this appraisal must be made anew."""

    @property
    def status(self) -> Verdict:
        return self.result.verdict

    @property
    def reason(self) -> str | None:
        """Code of the first check that explains the status; None when affirming."""
        return self.result.reason

    @property
    def evidence_digest(self) -> bytes:
        """SHA-256 of the exact NodeEvidence bytes."""
        return self.result.identity

    @property
    def seal_key(self) -> bytes:
        return self.evidence.seal_key

    @property
    def platform(self) -> str:
        """E.g. `snp-milan`, `simulated-snp-genoa`, `snp-unknown` where nothing is proven."""
        return self.result.platform

    @property
    def simulated(self) -> bool:
        return self.result.simulated

    @property
    def debug(self) -> bool:
        return self.result.debug

    @property
    def binding_mode(self) -> str:
        """How CPU and devices are tied together; `cpu-only` where no device was appraised."""
        return self.devices.binding_mode

    @property
    def confidential_gpus(self) -> int:
        """GPUs that are proven, bound to the CPU and in confidential mode."""
        return self.devices.confidential_gpus

    @property
    def device_digests(self) -> frozenset[str]:
        """Names under which proven GPUs and switches are enrolled (hex): no device stands in two nodes."""
        return self.devices.digests

    @property
    def assurance(self) -> int:
        """0 not attested, 1 simulated, 2 hardware with `warning`, 3 affirming, 4 with devices bound."""
        return _assurance(self.status, simulated=self.simulated, bound=self.devices.bound)

    @property
    def models(self) -> dict[str, str]:
        """Capability → model digest, as the node hashed it and the hardware bound it."""
        return {model.capability: model.digest for model in self.evidence.configuration.models}

    @property
    def engine_in_tee(self) -> bool:
        return node.runs_inside(self.evidence.configuration)


def appraise_node(
    evidence: bytes,
    *,
    expectations: Expectations,
    challenges: Sequence[IssuedChallenge],
    enrolments: Mapping[str, frozenset[str]],
    at: datetime,
    extra_endorsements: Sequence[bytes] = (),
) -> NodeAppraisal:
    """Appraise a node's evidence against what we expect, what we asked, and who has enrolled it.

    challenges: those that we issued recently; the newest that the evidence answers counts.
    enrolments: domain → hex platform digests, from the manifests that the charter pins.
    extra_endorsements: collateral that we hold ourselves, such as a fresher CRL.
    Raises `Unreadable` when the bytes are no NodeEvidence; everything else is in the result.

    1. read; 2. the CPU's report; 3. its report data binds keys, domain, challenges, configuration;
    4. it answers a challenge of ours, recently; 5. the configuration; 6. the platform's enrolment.
    """
    stated, wanted, now = read_node_evidence(evidence), expectations.node, at.timestamp()
    sign_key = _sign_key(stated)
    cpu = appraise_cpu(stated, expectations, extra_endorsements, waive_revocation=False, at=at)
    digest = platform_digest(cpu.chip_id) if cpu.chip_id is not None else None
    freshness, challenged_at = node.check_challenge(stated, challenges, wanted, now)
    devices = _appraise_devices(stated, cpu, expectations, extra_endorsements, waive_revocation=False, at=at)
    checks = [
        *cpu.result.checks,
        node.check_expectations(wanted),
        node.check_report_data(stated, cpu.report_data),
        freshness,
        *node.check_configuration(stated.configuration, wanted),
        node.check_seal_key(stated),
        *devices.checks,
        *_enrolled(stated.domain, digest, devices, enrolments, wanted),
    ]
    result = _node_result(cpu.result, devices, checks, evidence)
    expires_at = node.expiry(result.valid_until, challenged_at, wanted, now)
    return NodeAppraisal(
        result, expectations.digest, stated, sign_key, digest, devices, challenged_at, expires_at
    )


def _enrolled(
    domain: str,
    digest: bytes | None,
    devices: NodeDevices,
    enrolments: Mapping[str, frozenset[str]],
    wanted: NodeExpectations | None,
) -> list[Check]:
    """CPU and devices are those of the domain that offers them, and of no other (session.md 3)."""
    required = wanted is None or wanted.enrolment == "required"
    return [
        node.check_enrolment(domain, digest, enrolments, wanted),
        *check_device_enrolment(domain, devices, enrolments, required=required),
    ]


def read_node_evidence(evidence: bytes) -> NodeEvidence:
    """Raises `Unreadable` when the bytes are no NodeEvidence."""
    return NodeEvidence.read(evidence)


def _sign_key(stated: NodeEvidence) -> VerifyKey:
    try:
        return stated.sign_key
    except Refused as error:
        raise Unreadable("node.sign_key", error.text) from None


def _appraise_devices(
    stated: NodeEvidence,
    cpu: CpuAppraisal,
    expectations: Expectations | None,
    extra: Sequence[bytes],
    *,
    waive_revocation: bool,
    at: datetime,
) -> NodeDevices:
    asked = Asked(
        policy=expectations.nvidia if expectations else None,
        expectations_digest=expectations.digest if expectations else None,
        waived=expectations.waived if expectations else (),
        nonce=None,
        waive_revocation=waive_revocation,
        at=at,
    )
    return appraise_node_devices(
        stated,
        cpu.report_data,
        common=(*stated.cpu.endorsements, *extra),  # a node sends what serves all of its devices once
        image=cpu.image,
        judged=expectations is None or asked.policy is not None,
        asked=asked,
    )


def _assurance(verdict: Verdict, *, simulated: bool, bound: bool) -> int:
    """policy-and-negotiation A5. What is not decided or refused proves nothing."""
    if verdict not in ("affirming", "warning"):
        return 0
    if simulated:
        return 1
    if verdict != "affirming":
        return 2
    return 4 if bound else 3


def _node_result(
    cpu: AttestationResult, devices: NodeDevices, checks: list[Check], evidence: bytes
) -> AttestationResult:
    result = joined(cpu, devices.appraisal, checks, evidence_digest(evidence))
    return result._replace(stated=lambda: {**cpu.stated(), **devices.stated()})


def appraise_snp(
    evidence: bytes | Evidence,
    *,
    endorsements: Sequence[bytes] = (),
    expectations: Expectations | None = None,
    nonce: bytes | None = None,
    waive_revocation: bool = False,
    at: datetime,
) -> AttestationResult:
    """Appraise a bare SEV-SNP report in any supported form (snp.md 8, 9).

    nonce: the whole report data (64 bytes), or the nonce of a vTPM quote. Raises `Unreadable` when the
    bytes are no report, or `ConfigurationError` when the expectations say nothing about SEV-SNP.
    """
    if expectations is not None and expectations.snp is None:
        raise ConfigurationError(
            "expected.unset",
            f"{expectations.source}: [snp] is not set; write an [snp] table (docs/attestation-snp.md)",
        )
    return appraise_report(
        evidence,
        endorsements=endorsements,
        expectations=expectations,
        nonce=nonce,
        waive_revocation=waive_revocation,
        at=at,
    ).result


def appraise_dcap(
    evidence: bytes | QuoteForm,
    *,
    tee: Tee,
    endorsements: Sequence[bytes] = (),
    expectations: Expectations | None = None,
    nonce: bytes | None = None,
    waive_revocation: bool = False,
    at: datetime,
    evaluation: int | None = None,
    event_logs: Sequence[bytes] = (),
    marks: Marks | None = None,
) -> AttestationResult:
    """Appraise a bare TDX or SGX quote, in any form in which it comes (tdx.md 2 to 7).

    nonce: the whole report data (64 bytes), or the nonce of a vTPM quote.
    evaluation: judge as if this TCB evaluation data number were the newest. event_logs: of a trust domain.
    marks: the newest collateral that was seen, for judging now (tdx/collateral/rollback.py).
    Raises `Unreadable`, or `ConfigurationError` when the expectations say nothing about this TEE.
    """
    policy = None if expectations is None else expectations.tdx if tee == "tdx" else expectations.sgx
    if expectations is not None and policy is None:
        raise ConfigurationError(
            "expected.unset",
            f"{expectations.source}: [{tee}] is not set; write a [{tee}] table (docs/attestation-tdx.md)",
        )
    return appraise_quote(
        evidence,
        tee=tee,
        endorsements=endorsements,
        policy=policy,
        expectations_digest=expectations.digest if expectations else None,
        waived=expectations.waived if expectations else (),
        nonce=nonce,
        waive_revocation=waive_revocation,
        at=at,
        evaluation=evaluation,
        event_logs=event_logs,
        marks=marks,
    ).result


def appraise_nvidia(
    evidence: bytes | Devices,
    *,
    endorsements: Sequence[bytes] = (),
    expectations: Expectations | None = None,
    nonce: bytes | None = None,
    waive_revocation: bool = False,
    at: datetime,
) -> AttestationResult:
    """Appraise a GPU or switch, several of them, a manifest, or a service token (gpu.md 1 to 11).

    nonce: the devices' challenge, 32 bytes. Raises `Unreadable`, or `ConfigurationError` when the
    expectations say nothing about NVIDIA's devices.
    """
    if expectations is not None and expectations.nvidia is None:
        raise ConfigurationError(
            "expected.unset",
            f"{expectations.source}: [nvidia] is not set; write an [nvidia] table (docs/attestation-gpu.md)",
        )
    asked = Asked(
        policy=expectations.nvidia if expectations else None,
        expectations_digest=expectations.digest if expectations else None,
        waived=expectations.waived if expectations else (),
        nonce=nonce,
        waive_revocation=waive_revocation,
        at=at,
    )
    return judge(evidence, endorsements=endorsements, asked=asked)


def appraise_node_offline(
    evidence: bytes,
    *,
    endorsements: Sequence[bytes] = (),
    expectations: Expectations | None = None,
    challenge: bytes | None = None,
    waive_revocation: bool = False,
    at: datetime,
) -> AttestationResult:
    """A node's evidence as a person or an auditor looks at it, without being a member of anything.

    challenge: 32 bytes that some domain issued and that the quote must answer; None = freshness is
    not judged. Enrolment is not judged. Another maker's composite is judged as what it is. Raises
    `Unreadable`.
    """
    if is_tinfoil(evidence):
        return appraise_tinfoil(
            evidence, endorsements=endorsements, expectations=expectations, nonce=challenge,
            waive_revocation=waive_revocation, at=at,
        )  # fmt: skip
    stated = read_node_evidence(evidence)
    _sign_key(stated)
    cpu = appraise_cpu(stated, expectations, endorsements, waive_revocation=waive_revocation, at=at)
    devices = _appraise_devices(
        stated, cpu, expectations, endorsements, waive_revocation=waive_revocation, at=at
    )
    checks = [
        *cpu.result.checks,
        node.check_report_data(stated, cpu.report_data),
        node.check_any_challenge(stated, challenge),
        *node.check_configuration(stated.configuration, expectations.node if expectations else None),
        node.check_seal_key(stated),
        *devices.checks,
    ]
    return _node_result(cpu.result, devices, checks, evidence)
