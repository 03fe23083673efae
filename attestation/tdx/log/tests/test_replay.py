"""A log is believed only where its replay gives the quoted register, its text only where it was hashed."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from attestation.appraise import appraise_dcap
from attestation.result import AttestationResult
from attestation.tdx.log.events import Event
from attestation.tdx.log.replay import MAX_LOGS, read_log
from attestation.tdx.log.tests.logs import ACTION, SEPARATOR, ccel, digest, dstack, record, register, runtime
from attestation.tdx.tests import recorded
from attestation.tdx.tests.judging import TD15, but, judge
from attestation.testing.intel import IntelForge
from schemas.primitives import parse_time

ZERO = bytes(4)
LOG = ccel(record(1, SEPARATOR, ZERO), record(2, ACTION, b"Boot"), record(2, SEPARATOR, ZERO))
RTMRS = {"rtmr0": register(ZERO), "rtmr1": register(b"Boot", ZERO), "rtmr2": bytes(48), "rtmr3": bytes(48)}
TD = but(body=RTMRS)


def statuses(found: AttestationResult) -> list[str]:
    log: Any = found.stated()["event_log"]
    return [log[f"rtmr{i}"]["status"] for i in range(4)]


@pytest.mark.parametrize("forge", [TD, but(TD15, body=RTMRS)], ids=["1.0", "1.5"])
def test_a_log_that_explains_every_register(forge: IntelForge) -> None:
    found = judge(forge, event_logs=[LOG], event_log='["rtmr0", "rtmr1", "rtmr2", "rtmr3"]')
    assert found.verdict == "affirming"
    assert statuses(found) == ["match", "match", "zero", "zero"]
    planes: Any = found.stated()["verdicts"]
    assert planes["event_log"] == "affirming"


WRONG = {
    "separator twice": ccel(
        record(1, SEPARATOR, ZERO), record(1, SEPARATOR, ZERO), record(2, ACTION, b"Boot"),
        record(2, SEPARATOR, ZERO),
    ),
    "order": ccel(record(1, SEPARATOR, ZERO), record(2, SEPARATOR, ZERO), record(2, ACTION, b"Boot")),
    "one less": ccel(record(1, SEPARATOR, ZERO), record(2, ACTION, b"Boot")),
    "another register": ccel(
        record(1, SEPARATOR, ZERO), record(2, ACTION, b"Boot"), record(3, SEPARATOR, ZERO)
    ),
    "other digest": LOG.replace(digest(b"Boot"), digest(b"Root")),
}  # fmt: skip


@pytest.mark.parametrize("demand", [None, '["rtmr0", "rtmr1"]'], ids=["as offered", "demanded"])
@pytest.mark.parametrize("name", WRONG)
def test_a_near_miss_is_a_mismatch(name: str, demand: str | None) -> None:
    found = judge(TD, event_logs=[WRONG[name]], event_log=demand)
    assert (found.verdict, found.reason) == ("contraindicated", "tdx.event_log_rtmr_mismatch")


def test_a_mismatch_is_only_shown_where_the_register_is_not_demanded() -> None:
    found = judge(TD, event_logs=[WRONG["one less"]], event_log='["rtmr0"]')
    assert found.verdict == "affirming"
    assert found.check("tdx.event_log.rtmr1").code == "tdx.event_log_rtmr_mismatch"
    assert judge(TD, event_logs=[WRONG["one less"]], event_log='"any"').verdict == "affirming"


def test_text_that_was_not_measured_is_found_though_the_digests_replay() -> None:
    lie = LOG.replace(b"Boot", b"Root")
    found = judge(TD, event_logs=[lie])
    assert (found.verdict, found.reason) == ("contraindicated", "tdx.event_digest_mismatch")


def test_a_log_that_is_none_refuses() -> None:
    found = judge(TD, event_logs=[b"no log"])
    assert (found.verdict, found.reason) == ("contraindicated", "tdx.event_log_malformed")
    assert judge(TD, event_logs=[LOG] * (MAX_LOGS + 1)).reason == "tdx.event_log_malformed"


@pytest.mark.parametrize("logs", [[], [LOG]], ids=["none", "one that is silent about it"])
def test_a_demanded_register_without_a_log_refuses(logs: list[bytes]) -> None:
    forge = but(body={**RTMRS, "rtmr3": b"\7" * 48})
    found = judge(forge, event_logs=logs, event_log='["rtmr3"]')
    assert (found.verdict, found.reason) == ("contraindicated", "tdx.event_log_missing")


def test_firmware_says_nothing_of_rtmr3_and_that_is_no_mismatch() -> None:
    found = judge(but(body={**RTMRS, "rtmr3": b"\7" * 48}), event_logs=[LOG])
    assert found.verdict == "affirming"
    assert statuses(found)[3] == "unproven"


APP = runtime("app-id", b"\1\2"), runtime("ready", b"")
RTMR3 = register(*(struct.pack("<I", 0x08000001) + b":" + n + b":" + p
                   for n, p in ((b"app-id", b"\1\2"), (b"ready", b""))))  # fmt: skip


def test_run_time_events_come_from_a_log_of_their_own() -> None:
    forge = but(body={**RTMRS, "rtmr3": RTMR3})
    found = judge(forge, event_logs=[LOG, dstack(*APP)], event_log='["rtmr0", "rtmr1", "rtmr3"]')
    assert found.verdict == "affirming"
    log: Any = found.stated()["event_log"]
    assert log["runtime_events"] == [
        {"register": "rtmr3", "event": "app-id", "payload": "0102"},
        {"register": "rtmr3", "event": "ready", "payload": ""},
    ]


def test_a_run_time_event_whose_payload_was_changed_is_never_shown_as_proven() -> None:
    forge = but(body={**RTMRS, "rtmr3": RTMR3})
    found = judge(forge, event_logs=[dstack({**APP[0], "event_payload": "0103"}, APP[1])])
    assert (found.verdict, found.reason) == ("contraindicated", "tdx.event_digest_mismatch")
    log: Any = found.stated()["event_log"]
    assert [each["event"] for each in log["runtime_events"]] == ["ready"]


def test_events_without_digests_prove_nothing() -> None:
    forge = but(body={**RTMRS, "rtmr3": RTMR3})
    bare = dstack(*({**each, "digest": ""} for each in APP))
    found = judge(forge, event_logs=[bare])
    assert found.verdict == "affirming"
    assert statuses(found)[3] == "unproven"
    assert judge(forge, event_logs=[bare], event_log='["rtmr3"]').reason == "tdx.event_log_missing"


def test_two_logs_do_not_add_up_to_one() -> None:
    halves = [ccel(record(2, ACTION, b"Boot")), ccel(record(2, SEPARATOR, ZERO))]
    assert judge(TD, event_logs=halves).reason == "tdx.event_log_rtmr_mismatch"


def variable(size: int) -> bytes:
    """An EFI variable B whose contents are said to have this size, and have two bytes."""
    return bytes(16) + struct.pack("<QQ", 1, size) + b"B\0\1\0"


@pytest.mark.parametrize(
    ("event", "binding"),
    [
        (Event(0, SEPARATOR, digest(ZERO), "", ZERO), "bound"),
        (Event(0, SEPARATOR, digest(ZERO), "", b"\1\0\0\0"), "contradicted"),
        (Event(0, SEPARATOR, digest(ZERO), "", b""), "digest only"),
        (Event(0, 0xD, digest(b"contents"), "", b"/boot/file\0"), "digest only"),
        (Event(0, 0xD, digest(b"set x=1"), "", b"grub_cmd: set x=1\0"), "bound"),
        (Event(0, 0xD, digest(b"set x=1"), "", b"grub_cmd: set x=2\0"), "contradicted"),
        (Event(0, 0xD, digest(b"linux a"), "", b"kernel_cmdline: linux b\0"), "contradicted"),
        (Event(0, 0x80000002, digest(b"\1\0"), "", variable(2)), "bound"),
        (Event(0, 0x80000002, digest(b"\1\0"), "", variable(9)), "digest only"),
        (Event(0, 0x80000002, digest(b"\1\0"), "", b"short"), "digest only"),
    ],
)  # fmt: skip
def test_binding_of_digest_and_data(event: Event, binding: str) -> None:
    assert event.binding == binding


with_evidence = pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
WITH_LOGS = (
    ("gotdx-00b252-eval17-2025-06-04-uptodate", "ccel.bin", "affirming", "match match match zero"),
    ("dstack-cbdb5b-eval19-2026-06-08-uptodate", "event_log.json", "affirming", "match " * 4),
    ("nearmpc-b9e238-eval20-2026-08-13-uptodate", "event_log.json", "affirming", "match " * 4),
    ("dstack-1d0342-eval19-2026-06-08-uptodate", "event_log.json", "affirming", "match match match unproven"),
    (
        "gotdx-00b252-eval17-ccel-duplicate-separator_fail", "ccel.bin", "contraindicated",
        "mismatch mismatch match zero",
    ),
    ("cctrusted-3f49cf-other-root_fail", "ccel.bin", "contraindicated", "match match mismatch zero"),
)  # fmt: skip


@with_evidence
@pytest.mark.parametrize(("name", "file", "verdict", "wanted"), WITH_LOGS)
def test_recorded_logs(name: str, file: str, verdict: str, wanted: str) -> None:
    case = json.loads(recorded.read(f"tdx/tdx-v4-{name}/case.json"))
    offered = [] if case["collateral"] is None else [recorded.read(f"tdx/tdx-v4-{name}/{case['collateral']}")]
    log = recorded.read(f"tdx/tdx-v4-{name}/{file}")
    quote = recorded.read(f"tdx/tdx-v4-{name}/{case['quote']}")
    found = appraise_dcap(
        quote, tee="tdx", endorsements=offered, at=parse_time(case["verify_time"]), event_logs=[log]
    )
    assert (found.verdict, statuses(found)) == (verdict, wanted.split())
    assert not [each for each in read_log(log) if each.binding == "contradicted"]


def test_an_enclave_has_no_log_to_demand() -> None:
    assert judge(IntelForge(shape="v3 sgx"), event_logs=[LOG]).stated()["event_log"] is None
