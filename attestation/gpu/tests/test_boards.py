"""Eight GPUs and four switches in one call: what holds, and every way in which a board must not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from attestation.appraise import appraise_nvidia
from attestation.gpu.forms import Devices
from attestation.gpu.node.devices import MAX_DEVICES, DeviceInput
from attestation.gpu.pki.signature import verify_link
from attestation.gpu.tests.judging import codes, expect, status_of, toml
from attestation.memory import forget
from attestation.result import AttestationResult
from attestation.testing.nvidia import NOW, GpuForge
from attestation.testing.nvidia_node import BoardForge, board_manifests
from attestation.testing.nvidia_report import NONCE
from schemas.errors import Unreadable

BOARD = BoardForge()


def fabric(gpus: int, switches: int) -> str:
    return f"[nvidia.fabric]\ngpus = {gpus}\nswitches = {switches}\n"


FABRIC = fabric(8, 4)


def inputs(board: BoardForge) -> list[DeviceInput]:
    return [
        DeviceInput(each.report, tuple(each.endorsements), each.kind, each.state) for each in board.evidence()
    ]


def judge_board(
    board: BoardForge = BOARD,
    *,
    devices: Sequence[DeviceInput] | None = None,
    tables: str = FABRIC,
    nonce: bytes | None = NONCE,
) -> AttestationResult:
    return appraise_nvidia(
        Devices(tuple(inputs(board) if devices is None else devices), together=True),
        endorsements=board_manifests(),
        expectations=expect(toml(tables, confidential='"required"', devtools='"refuse"', revocation='"any"')),
        nonce=nonce,
        at=NOW,
    )


def changed(name: str, **changes: Any) -> BoardForge:
    return BoardForge(changes={name: changes})


def stating(name: str, fields: Mapping[int, bytes | None]) -> BoardForge:
    return changed(name, fields=fields)


def test_a_whole_board_holds() -> None:
    found = judge_board()
    assert (found.verdict, codes(found)) == ("affirming", [])
    assert found.check("gpu.fabric.links").seen == f"{8 * 18} links"
    devices = found.stated()["devices"]
    assert isinstance(devices, list)
    assert [each["verdict"] for each in devices if isinstance(each, dict)] == ["affirming"] * 12


def test_a_whole_board_with_answers_about_every_certificate_holds() -> None:
    """Sixteen questions for eight GPUs of one family, and those of the switches beside them."""
    board = BoardForge(gpus=2, switches=1, links=(18,))
    found = appraise_nvidia(
        Devices(tuple(inputs(board)), together=True),
        endorsements=[*board_manifests(), *status_of(list(board.devices().values()))],
        expectations=expect(toml()), nonce=NONCE, at=NOW,
    )  # fmt: skip
    assert (found.verdict, codes(found)) == ("affirming", [])


OTHER = BoardForge(first=50)
GPU3, SWITCH1 = BOARD.devices()["gpu3"], BOARD.devices()["switch1"]
TABLE = SWITCH1.fields[26] or b""
SLOTS = GPU3.fields[22] or b""
STRANGER = OTHER.devices()["switch0"].pdi

Fault = Callable[[], AttestationResult]
FAULTS: dict[str, list[Fault]] = {
    "device_duplicate": [
        lambda: judge_board(devices=[*inputs(BOARD), inputs(BOARD)[0]]),
        lambda: judge_board(changed("gpu1", number=0)),
        lambda: judge_board(
            changed("gpu1", changes={"brom": {"serial": GpuForge().certified()["brom"].serial}})
        ),
    ],
    "nonce_mismatch": [lambda: judge_board(changed("gpu7", nonce=bytes(32)))],
    "batch_nonce_differs": [lambda: judge_board(changed("switch3", nonce=bytes(32)), nonce=None)],
    "mode_mixed": [
        lambda: judge_board(stating("gpu2", {21: b"\x55"})),
        lambda: judge_board(stating("gpu2", {36: b"\2\0"})),
        lambda: judge_board(stating("gpu2", {21: b"\x55"}), tables=""),
    ],
    "mode_not_allowed": [
        lambda: judge_board(BoardForge(changes={f"gpu{n}": {"fields": {21: b"\x55"}} for n in range(8)}))
    ],
    "driver_mixed": [lambda: judge_board(changed("gpu2", driver="550.90.08"))],
    "topology_incomplete": [
        lambda: judge_board(BoardForge(gpus=7)),
        lambda: judge_board(BoardForge(switches=3)),
        lambda: judge_board(BoardForge(switches=0)),
        lambda: judge_board(devices=inputs(BOARD)[:11]),
        lambda: judge_board(stating("gpu3", {22: bytes(144)})),
        lambda: judge_board(stating("gpu3", {22: None})),
        lambda: judge_board(stating("switch1", {26: bytes(64) + b"\xff" * 64})),
        lambda: judge_board(stating("switch1", {26: None})),
    ],
    "topology_foreign_device": [
        lambda: judge_board(devices=inputs(BOARD)[:7] + inputs(BOARD)[8:], tables=fabric(7, 4)),
        lambda: judge_board(stating("gpu3", {22: SLOTS[:8] + STRANGER[::-1] + SLOTS[16:]})),
        lambda: judge_board(stating("switch1", {26: STRANGER + TABLE[8:]})),
        lambda: judge_board(devices=inputs(BOARD)[:11], tables=fabric(8, 3)),
        lambda: judge_board(devices=inputs(BOARD)[:8] + inputs(OTHER)[8:]),
    ],
    "topology_pdi_cert_mismatch": [lambda: judge_board(stating("switch1", {22: STRANGER}))],
    "topology_link_mismatch": [
        lambda: judge_board(stating("switch1", {26: TABLE[:64] + b"\xff" + TABLE[65:]})),
        lambda: judge_board(stating("switch1", {26: TABLE[:64] + b"\x01" + TABLE[65:]})),
        lambda: judge_board(stating("switch1", {26: TABLE[:64] + b"\x09" + TABLE[65:]})),
        lambda: judge_board(stating("gpu3", {22: bytes(8) + SLOTS[8:]})),
        lambda: judge_board(stating("switch1", {24: b"\0\0"})),
        lambda: judge_board(stating("switch1", {24: b"\4\0"})),
        lambda: judge_board(stating("switch1", {24: None})),
    ],
    "topology_switch_unlocked": [
        lambda: judge_board(stating("switch1", {25: b"\0\0"})),
        lambda: judge_board(stating("switch1", {25: None})),
        lambda: judge_board(stating("switch1", {25: b"\2\0"})),
    ],
    "report_signature_invalid": [lambda: judge_board(changed("gpu5", signer="nobody"))],
    "measurement_mismatch": [lambda: judge_board(changed("switch2", measurements={0: bytes(48)}))],
    "chain_family_mismatch": [
        lambda: judge_board(devices=[replace(inputs(BOARD)[0], kind="switch"), *inputs(BOARD)[1:]])
    ],
    "report_malformed": [lambda: judge_board(devices=[DeviceInput(b"not a report"), *inputs(BOARD)[1:]])],
    "devtools_on": [
        lambda: judge_board(
            devices=[
                *(
                    replace(
                        each, state=each.state.model_copy(update={"devtools": True}) if each.state else None
                    )
                    for each in inputs(BOARD)[:1]
                ),
                *inputs(BOARD)[1:],
            ]
        )
    ],
    "cc_mode_unproven": [lambda: judge_board(devices=[replace(each, state=None) for each in inputs(BOARD)])],
}


@pytest.mark.parametrize(
    ("code", "fault"), [(code, each) for code, faults in FAULTS.items() for each in faults]
)
def test_fault(code: str, fault: Fault) -> None:
    found = fault()
    assert code in codes(found)
    assert found.verdict == ("none" if code == "cc_mode_unproven" else "contraindicated")


def test_a_device_in_simulation_or_without_its_mode_is_refused() -> None:
    for state in ({"environment": "simulation"}, {"confidential": False}):
        devices = [
            replace(each, state=each.state.model_copy(update=state) if each.state else None)
            for each in inputs(BOARD)
        ]
        assert "mode_not_allowed" in codes(judge_board(devices=devices))


def test_where_no_fabric_is_wanted_topology_is_shown_and_not_judged() -> None:
    found = judge_board(BoardForge(switches=0), tables="")
    assert found.verdict == "affirming"
    assert found.check("gpu.fabric.links").status == "not_evaluated"


def test_one_devices_failure_does_not_leak_into_the_next() -> None:
    devices = judge_board(changed("gpu0", signer="nobody")).stated()["devices"]
    assert isinstance(devices, list)
    verdicts = [each["verdict"] for each in devices if isinstance(each, dict)]
    assert verdicts == ["contraindicated", *["affirming"] * 11]


def test_links_that_devices_share_are_verified_once() -> None:
    forget()
    judge_board()
    # Two own links a device; the root's, Hopper's identity and two provisioners are shared. Three manifests
    # have two signers and their two authorities each, below one root.
    assert verify_link.cache_info().misses == 12 * 2 + 4 + 2 * 3 + 1


def test_too_many_devices_are_refused() -> None:
    with pytest.raises(Unreadable):
        judge_board(devices=inputs(BOARD)[:1] * (MAX_DEVICES + 1))
