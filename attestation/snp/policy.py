"""Is this genuine report what the relying party asked for (`SnpPolicy`), check by check.

Without expectations only DEBUG is judged (DESIGN 7); everything else that the report states is
shown. With them, every identity and floor is compared or was waived by name; none is skipped
because a field is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from attestation.result import Check, compared, downranked, failed, not_evaluated, passed
from attestation.snp.expected import Digests, Floor, SnpPolicy
from attestation.snp.origin.chain import Chain
from attestation.snp.origin.leaf import tcb_text
from attestation.snp.report import (
    HOST_REQUESTED_VMPL,
    KNOWN_PLATFORM_MASK,
    PLATFORM_BITS,
    POLICY_BITS,
    Report,
)

_POLICY: Final = "AMD 56860 POLICY"
_PLATFORM: Final = "AMD 56860 PLATFORM_INFO"
_REPORT: Final = "AMD 56860 ATTESTATION_REPORT"
_TCB: Final = "AMD 56860 TCB_VERSION"


def check_debug(report: Report, *, allowed: bool) -> Check:
    """DEBUG lets the host read the guest's memory: refused unless waived, expectations or not."""
    if allowed and report.debug:
        return not_evaluated("snp.policy.debug", "waived; debug is allowed", _POLICY)
    return compared(
        "snp.policy.debug", "snp.policy.debug_enabled", not report.debug,
        "allowed" if report.debug else "not allowed", "not allowed", _POLICY,
    )  # fmt: skip


def check_nonce(report: Report, nonce: bytes) -> Check:
    """The caller's challenge is the whole report data; a mismatch is fatal, never a log line."""
    return compared(
        "snp.nonce", "snp.report_data.mismatch", report.report_data == nonce,
        report.report_data.hex(), nonce.hex(), "AMD 56860 REPORT_DATA",
    )  # fmt: skip


def check_report_data(report: Report, policy: SnpPolicy) -> Check:
    """What changes with every report, against what is expected of it."""
    return _identity("report_data", report.report_data, policy.report_data)


def check_demands(report: Report, policy: SnpPolicy, chain: Chain | None, csp: str | None) -> list[Check]:
    """Every demand of one product line but report data. How many checks does not depend on the report."""
    layout = chain.product.layout if chain else None
    checks = [
        _versions(report, policy),
        _vmpl(report, policy),
        _identity("measurement", report.measurement, policy.measurement),
        _identity("host_data", report.host_data, policy.host_data),
        _identity("id_key", report.id_key_digest, policy.id_key_digest),
        _author_key(report, policy),
        _identity("family_id", report.family_id, policy.family_id),
        _identity("image_id", report.image_id, policy.image_id),
        _guest_svn(report, policy),
        _migration(report, policy),
        _abi(report, policy),
        _bits("snp.policy", report.policy, POLICY_BITS, policy.policy_required, policy.policy_forbidden),
        _bits("snp.platform", report.platform_info, PLATFORM_BITS,
              policy.platform_required, policy.platform_forbidden),
        _unknown_platform_bits(report, policy),
        _alias_check(report, policy),
    ]  # fmt: skip
    for name, raw in report.tcbs().items():
        floor = policy.tcb_min[name]
        seen = layout.read(raw) if layout and floor else None
        checks.append(_floor(name, seen, floor))
    checks += [
        _firmware("firmware", report.current_firmware, policy.firmware_min),
        _firmware("committed_firmware", report.committed_firmware, policy.committed_firmware_min),
        _provisional(report, policy),
        _mitigation("launch", report.version, report.launch_mitigation, policy.launch_mitigation_required),
        _mitigation("current", report.version, report.current_mitigation, policy.current_mitigation_required),
        _csp(chain, csp, policy),
    ]
    return checks


@lru_cache(maxsize=64)
def _waived(name: str, clause: str) -> Check:
    return not_evaluated(name, "waived by the expectations", clause)


@lru_cache(maxsize=64)
def _numbers(wanted: frozenset[int]) -> str:
    return str(sorted(wanted))


def _versions(report: Report, policy: SnpPolicy) -> Check:
    if policy.report_versions is None:
        return _waived("snp.version_allowed", _REPORT)
    return compared(
        "snp.version_allowed", "snp.report.version_unsupported", report.version in policy.report_versions,
        str(report.version), _numbers(policy.report_versions), _REPORT,
    )  # fmt: skip


def _vmpl(report: Report, policy: SnpPolicy) -> Check:
    """A report that the host requested answers no guest: not even "any" covers it."""
    name, code, clause = "snp.vmpl", "snp.vmpl.not_allowed", "AMD 56860 VMPL"
    if report.vmpl == HOST_REQUESTED_VMPL:
        return failed(name, code, "requested by the host", "requested by the guest", clause)
    if policy.vmpl is None:
        return _waived(name, clause)
    return compared(name, code, report.vmpl in policy.vmpl, str(report.vmpl), _numbers(policy.vmpl), clause)


def _identity(name: str, seen: bytes, wanted: Digests) -> Check:
    if wanted is None:
        return _waived(f"snp.{name}", _REPORT)
    return compared(
        f"snp.{name}", f"snp.{name}.mismatch", seen in wanted, seen.hex(), _listed(wanted), _REPORT
    )


def _listed(wanted: frozenset[bytes]) -> str:
    return next(iter(wanted)).hex() if len(wanted) == 1 else f"one of {len(wanted)} listed"


def _author_key(report: Report, policy: SnpPolicy) -> Check:
    """AUTHOR_KEY_DIGEST means something only with AUTHOR_KEY_EN; a digest without it is refused."""
    name, code, clause = "snp.author_key", "snp.author_key.mismatch", "AMD 56860 KEY_INFO.AUTHOR_KEY_EN"
    if policy.author_key_digest is None:
        return _waived(name, clause)
    if not report.author_key_enabled and any(report.author_key_digest):
        return failed(name, code, "a digest without AUTHOR_KEY_EN", _listed(policy.author_key_digest), clause)
    return _identity("author_key", report.author_key_digest, policy.author_key_digest)


def _guest_svn(report: Report, policy: SnpPolicy) -> Check:
    if policy.guest_svn_min is None:
        return _waived("snp.guest_svn", "AMD 56860 GUEST_SVN")
    return compared(
        "snp.guest_svn", "snp.guest_svn.too_old", report.guest_svn >= policy.guest_svn_min,
        str(report.guest_svn), f"at least {policy.guest_svn_min}", "AMD 56860 GUEST_SVN",
    )  # fmt: skip


def _migration(report: Report, policy: SnpPolicy) -> Check:
    """A migration agent can carry the guest's secrets to another machine."""
    allowed = report.policy >> POLICY_BITS["migrate_ma"] & 1
    if policy.migration == "any":
        return _waived("snp.policy.migration", _POLICY)
    return compared(
        "snp.policy.migration", "snp.policy.migration_allowed", not allowed,
        "allowed" if allowed else "not allowed", "not allowed", _POLICY,
    )  # fmt: skip


def _abi(report: Report, policy: SnpPolicy) -> Check:
    if policy.abi_min is None:
        return not_evaluated("snp.policy.abi", "not demanded", _POLICY)
    return compared(
        "snp.policy.abi", "snp.policy.abi_too_old", report.abi >= policy.abi_min,
        _dotted(report.abi), f"at least {_dotted(policy.abi_min)}", _POLICY,
    )  # fmt: skip


def _bits(
    group: str, value: int, bits: Mapping[str, int], required: frozenset[str], forbidden: frozenset[str]
) -> Check:
    name, clause = f"{group}.bits", _POLICY if group == "snp.policy" else _PLATFORM
    if not required and not forbidden:
        return not_evaluated(name, f"0x{value:x}; none demanded", clause)
    lacking = sorted(bit for bit in required if not value >> bits[bit] & 1)
    present = sorted(bit for bit in forbidden if value >> bits[bit] & 1)
    wanted = f"with {sorted(required)}, without {sorted(forbidden)}"
    if lacking:
        return failed(name, f"{group}.bit_required", f"lacks {', '.join(lacking)}", wanted, clause)
    if present:
        return failed(name, f"{group}.bit_forbidden", f"has {', '.join(present)}", wanted, clause)
    return passed(name, f"0x{value:x}", wanted, clause)


def _unknown_platform_bits(report: Report, policy: SnpPolicy) -> Check:
    name, unknown = "snp.platform.unknown_bits", report.platform_info & ~KNOWN_PLATFORM_MASK
    if policy.unknown_platform_bits == "keep":
        return not_evaluated(name, f"kept: 0x{unknown:x}", _PLATFORM)
    return compared(name, "snp.platform.unknown_bits", not unknown, f"0x{unknown:x}", "none", _PLATFORM)


def _alias_check(report: Report, policy: SnpPolicy) -> Check:
    """BadRAM (AMD-SB-3015, CVE-2024-21944): the firmware looked for aliased memory. Undefined in v2."""
    name, code = "snp.platform.alias_check", "snp.platform.alias_check_incomplete"
    done = bool(report.platform_info >> PLATFORM_BITS["alias_check_complete"] & 1)
    required = policy.alias_check == "required" or (
        policy.alias_check == "required-from-v3" and report.version >= 3
    )
    if not done and not required:
        return not_evaluated(name, "not complete; advisory only", "AMD-SB-3015")
    return compared(name, code, done, "complete" if done else "not complete", "complete", "AMD-SB-3015")


def _floor(name: str, seen: Mapping[str, int] | None, floor: Floor) -> Check:
    """Part by part: the order is partial, two TCBs may be incomparable."""
    title = f"snp.tcb.{name}"
    if floor is None:
        return _waived(title, _TCB)
    if seen is None:
        return not_evaluated(title, "the product is not known", _TCB)
    holds = all(seen[part] >= least for part, least in floor.items())
    return compared(
        title, f"snp.tcb.{name}_too_old", holds, tcb_text(seen), f"at least {tcb_text(floor)}", _TCB
    )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _firmware(name: str, seen: tuple[int, ...], floor: tuple[int, ...] | None) -> Check:
    title = f"snp.tcb.{name}"
    if floor is None:
        return _waived(title, _REPORT)
    return compared(
        title, "snp.tcb.firmware_too_old", seen >= floor, _dotted(seen), f"at least {_dotted(floor)}", _REPORT
    )


def _provisional(report: Report, policy: SnpPolicy) -> Check:
    """Running above what is committed: the host can still roll back, so COMMITTED is what counts."""
    name, code = "snp.tcb.provisional", "snp.tcb.provisional"
    provisional = (
        report.current_tcb != report.committed_tcb or report.current_firmware != report.committed_firmware
    )
    if not provisional:
        return passed(name, "committed", "committed", _TCB)
    seen = f"current {report.current_tcb.hex()}, committed {report.committed_tcb.hex()}"
    if policy.provisional == "refuse":
        return failed(name, code, seen, "committed", _TCB)
    if policy.provisional == "warning":
        return downranked(name, code, seen, "committed", _TCB)
    return not_evaluated(name, f"provisional; advisory only: {seen}", _TCB)


def _mitigation(name: str, version: int, seen: int, required: int) -> Check:
    """Mitigation vectors came with version 5: on an older report a required mask fails."""
    title, clause = f"snp.tcb.{name}_mitigation", "AMD 56860 MIT_VECTOR"
    if not required:
        return not_evaluated(title, f"0x{seen:x}; none demanded", clause)
    holds = version >= 5 and seen & required == required
    return compared(
        title, "snp.tcb.mitigation_missing", holds, f"0x{seen:x}", f"all of 0x{required:x}", clause
    )


def _csp(chain: Chain | None, csp: str | None, policy: SnpPolicy) -> Check:
    """A VLEK vouches for a cloud provider, not a chip: only those that are listed are believed."""
    name, clause = "snp.cert.csp", "AMD 57230 CSP_ID"
    if chain is None or csp is None:
        return not_evaluated(name, "no verified VLEK", clause)
    if policy.csp_ids is None:
        return _waived(name, clause)
    return compared(
        name, "snp.cert.csp_not_allowed", csp in policy.csp_ids, csp,
        ", ".join(sorted(policy.csp_ids)) or "no VLEK", clause,
    )  # fmt: skip


def advisories(report: Report) -> tuple[str, ...]:
    """Conditions that a stricter policy may refuse, listed whether or not one does."""
    found: list[str] = []
    if not report.platform_info >> PLATFORM_BITS["alias_check_complete"] & 1:
        found.append("snp.platform.alias_check_incomplete")
    if report.current_tcb != report.committed_tcb or report.current_firmware != report.committed_firmware:
        found.append("snp.tcb.provisional")
    if report.policy >> POLICY_BITS["migrate_ma"] & 1:
        found.append("snp.policy.migration_allowed")
    if report.vmpl == HOST_REQUESTED_VMPL:
        found.append("snp.vmpl.not_allowed")
    if report.platform_info & ~KNOWN_PLATFORM_MASK:
        found.append("snp.platform.unknown_bits")
    return tuple(found)
