"""What a quote states and how it was evaluated, as plain JSON. Display only: nothing is judged here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attestation.result import Check
from attestation.tdx.body import TD_ATTRIBUTES, SgxReport, TdHistory, TdReport
from attestation.tdx.collateral.endorsed import Endorsed
from attestation.tdx.origin.chain import PckChain
from attestation.tdx.origin.pck import SGX_TYPES
from attestation.tdx.origin.verify import date
from attestation.tdx.quote import Quote
from attestation.tdx.tcb.judge import Judged
from attestation.tdx.tcb.levels import Standing
from schemas.canonical import Json


def state(
    quote: Quote,
    chain: PckChain | None,
    endorsed: Endorsed,
    judged: Judged,
    planes: Mapping[str, Json],
    ends: Mapping[str, float],
    at: float,
) -> dict[str, Json]:
    """The quote's fields, the verdict of each plane, the TCB, and how long each input stays current."""
    return {
        **state_quote(quote),
        "verdicts": dict(planes),
        **_platform(chain),
        "tcb_status": judged.status,
        "advisory_ids": list(judged.launch.advisories) if judged.launch else [],
        "tcb_parts": _parts(judged.launch),
        "tcb_lacks": dict(judged.lacking),
        "tcb_date": judged.launch.date if judged.launch else None,
        "launch_tcb_status": judged.launch.status if judged.launch else None,
        "current_tcb_status": judged.current.status if judged.current else None,
        "current_tcb_date": judged.current.date if judged.current else None,
        "current_advisory_ids": list(judged.current.advisories) if judged.current else [],
        "tcb_evaluation": {
            "tcb_info": endorsed.tcb_info.evaluation if endorsed.tcb_info else None,
            "qe_identity": endorsed.identity.evaluation if endorsed.identity else None,
        },
        "expires": {name: date(end) for name, end in ends.items()},
        "days_left": {name: int((end - at) // 86400) for name, end in ends.items()},
    }


def notes(checks: Iterable[Check]) -> list[Json]:
    """Codes of what is reported without refusing, without the room's name."""
    shown = [check for check in checks if check.status == "fail" and check.effect == "shown"]
    return [(check.code or "").removeprefix("tdx.") for check in shown]


def _parts(standing: Standing | None) -> dict[str, Json] | None:
    if standing is None:
        return None
    return {
        "platform": standing.platform.status,
        "tdx_module": standing.module.status if standing.module else None,
        "qe": standing.qe.status,
    }


def _platform(chain: PckChain | None) -> dict[str, Json]:
    if chain is None:
        return {}
    claims = chain.claims
    return {
        "fmspc": claims.fmspc.hex(),
        "pceid": claims.pceid.hex(),
        "pcesvn": claims.pcesvn,
        "pck_ca": "platform" if "Platform" in chain.issuer.common_name else "processor",
        "sgx_components": list(claims.components),
        "sgx_type": SGX_TYPES[claims.sgx_type],
        "dynamic_platform": claims.dynamic_platform,
        "cached_keys": claims.cached_keys,
        "smt_enabled": claims.smt_enabled,
    }


def state_quote(quote: Quote) -> dict[str, Json]:
    """Every field of the quote by name; hex in the order of the bytes."""
    return {
        "quote_version": quote.version,
        "tee_type": quote.tee.upper(),
        "qe_id": quote.user_data[:16].hex(),
        "cert_data_type": quote.certification_type,
        "trailing_bytes": len(quote.tail),
        "identity": quote.identity.hex(),
        **(_td(quote.body) if isinstance(quote.body, TdReport) else _sgx(quote.body)),
    }


def _td(body: TdReport) -> dict[str, Json]:
    attributes = int.from_bytes(body.td_attributes, "little")
    stated: dict[str, Json] = {
        "body_type": "TD1.0" if body.tcb_svn2 is None else "TD1.5ex" if body.history else "TD1.5",
        "tee_tcb_svn": body.tcb_svn.hex(),
        "tee_tcb_svn2": body.tcb_svn2.hex() if body.tcb_svn2 is not None else None,
        "mrseam": body.mrseam.hex(),
        "mrsignerseam": body.mrsignerseam.hex(),
        "seam_attributes": body.seam_attributes.hex(),
        "td_attributes": body.td_attributes.hex(),
        **{name: bool(attributes >> bit & 1) for name, bit in TD_ATTRIBUTES.items()},
        "xfam": body.xfam.hex(),
        "mrtd": body.mrtd.hex(),
        "mrconfigid": body.mrconfigid.hex(),
        "mrowner": body.mrowner.hex(),
        "mrownerconfig": body.mrownerconfig.hex(),
        "rtmr": [each.hex() for each in body.rtmrs],
        "mrservicetd": body.mrservicetd.hex() if body.mrservicetd is not None else None,
        "report_data": body.report_data.hex(),
    }
    return {**stated, **(_history(body.history) if body.history else {}), "debug": body.debug}


def _history(history: TdHistory) -> dict[str, Json]:
    """What an extended report adds, by Intel's names."""
    return {
        "vmid": history.vmid,
        "td_id": history.td_id.hex(),
        "devinfo": history.devinfo.hex(),
        "init_server_td_hash": history.init_servicetd.hex(),
        "init_server_td_attr": history.init_servicetd_attributes.hex(),
        "init_cpu_svn": history.init_cpusvn.hex(),
        "init_tee_tcb_svn": history.init_tcb_svn.hex(),
        "init_tee_fmspc": history.init_fmspc.hex(),
        "curr_server_td_hash": history.current_servicetd.hex(),
        "curr_server_td_attr": history.current_servicetd_attributes.hex(),
    }


def _sgx(body: SgxReport) -> dict[str, Json]:
    return {
        "body_type": "SGX",
        "cpusvn": body.cpusvn.hex(),
        "miscselect": body.miscselect,
        "attributes": body.attributes.hex(),
        "debug": body.debug,
        "mrenclave": body.mrenclave.hex(),
        "mrsigner": body.mrsigner.hex(),
        "isv_prod_id": body.isvprodid,
        "isv_svn": body.isvsvn,
        "report_data": body.report_data.hex(),
    }
