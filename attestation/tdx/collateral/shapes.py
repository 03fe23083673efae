"""TCB info and QE identity as Intel writes them: every member, in Intel's order (PCS API v4).

Their order lets a document be told from one that says more (exact.py). Names are Intel's.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct, defstruct

from attestation.tdx.origin.pck import COMPONENTS

MAX_LEVELS: Final = 256  # genuine documents have under 30
MAX_ADVISORIES: Final = 256

Status = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
]
STATUSES: Final[tuple[str, ...]] = get_args(Status)
"""Statuses that a document may state; relaunch statuses follow from two evaluations (tcb/levels.py)."""

Svn = Annotated[int, Meta(ge=0, le=255)]
LongSvn = Annotated[int, Meta(ge=0, le=65535)]
Number = Annotated[int, Meta(ge=0, le=2**31)]
Advisories = Annotated[tuple[str, ...], Meta(max_length=MAX_ADVISORIES)]


class Written(Struct, frozen=True, omit_defaults=True, gc=False):
    """One object of a document."""


class Component(Written, frozen=True):
    svn: Svn
    category: str = ""
    type: str = ""


Components = Annotated[tuple[Component, ...], Meta(min_length=COMPONENTS, max_length=COMPONENTS)]
"""Exactly sixteen: comparing a shorter list would pass over what is missing."""


class PlatformTcb(Written, frozen=True):
    sgxtcbcomponents: Components
    pcesvn: LongSvn
    tdxtcbcomponents: Components | None = None


class PlatformLevel(Written, frozen=True):
    tcb: PlatformTcb
    tcbDate: str
    tcbStatus: Status
    advisoryIDs: Advisories = ()


class EnclaveTcb(Written, frozen=True):
    isvsvn: LongSvn


class EnclaveLevel(Written, frozen=True):
    """Of a quoting enclave, or of a TDX module: one number decides."""

    tcb: EnclaveTcb
    tcbDate: str
    tcbStatus: Status
    advisoryIDs: Advisories = ()


EnclaveLevels = Annotated[tuple[EnclaveLevel, ...], Meta(max_length=MAX_LEVELS)]


class TdxModule(Written, frozen=True):
    mrsigner: str
    attributes: str
    attributesMask: str


class TdxModuleIdentity(Written, frozen=True):
    id: str
    mrsigner: str
    attributes: str
    attributesMask: str
    tcbLevels: EnclaveLevels


class WrittenTcbInfo(Written, frozen=True, kw_only=True):
    """Version 3."""

    id: Literal["SGX", "TDX"]
    version: Literal[3]
    issueDate: str
    nextUpdate: str
    fmspc: str
    pceId: str
    tcbType: Literal[0]
    tcbEvaluationDataNumber: Number
    tdxModule: TdxModule | None = None
    tdxModuleIdentities: Annotated[tuple[TdxModuleIdentity, ...], Meta(max_length=MAX_LEVELS)] = ()
    tcbLevels: Annotated[tuple[PlatformLevel, ...], Meta(max_length=MAX_LEVELS)]


NumberedTcb = defstruct(
    "NumberedTcb",
    [*((f"sgxtcbcomp{index:02}svn", Svn) for index in range(1, COMPONENTS + 1)), ("pcesvn", LongSvn)],
    frozen=True,
)
"""Of version 2: sixteen members in the place of a list."""


class NumberedLevel(Written, frozen=True):
    tcb: NumberedTcb  # type: ignore[valid-type]
    tcbDate: str
    tcbStatus: Status
    advisoryIDs: Advisories = ()


class WrittenTcbInfo2(Written, frozen=True):
    """Version 2, which has no id and is SGX's; for archived evidence."""

    version: Literal[2]
    issueDate: str
    nextUpdate: str
    fmspc: str
    pceId: str
    tcbType: Literal[0]
    tcbEvaluationDataNumber: Number
    tcbLevels: Annotated[tuple[NumberedLevel, ...], Meta(max_length=MAX_LEVELS)]


class WrittenQeIdentity(Written, frozen=True):
    id: str
    version: Literal[2]
    issueDate: str
    nextUpdate: str
    tcbEvaluationDataNumber: Number
    miscselect: str
    miscselectMask: str
    attributes: str
    attributesMask: str
    mrsigner: str
    isvprodid: LongSvn
    tcbLevels: EnclaveLevels


class EvaluationNumber(Written, frozen=True):
    tcbEvaluationDataNumber: Number
    tcbRecoveryEventDate: str
    tcbDate: str


class WrittenEvaluations(Written, frozen=True):
    """Which TCB evaluation data numbers Intel serves."""

    id: Literal["SGX", "TDX"]
    version: Literal[1]
    issueDate: str
    nextUpdate: str
    tcbEvalNumbers: Annotated[tuple[EvaluationNumber, ...], Meta(min_length=1, max_length=MAX_LEVELS)]
