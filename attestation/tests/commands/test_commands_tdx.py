"""`comity attest` for TDX and SGX: options, forms of input and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attestation.commands import main
from attestation.tdx.log.tests.logs import ccel, record, register
from attestation.tdx.tests.judging import GOOD, SGX, but, toml
from attestation.testing.intel import IntelForge
from schemas.errors import ConfigurationError, Unreadable

AT = ["--at", "2026-03-01T12:00:00Z"]


def laid(folder: Path, forge: IntelForge = GOOD) -> list[str]:
    """The arguments that verify this forge, its files laid out in the folder."""
    bundle = folder / "bundle"
    bundle.mkdir(exist_ok=True)
    for number, piece in enumerate(forge.pieces()):
        (bundle / f"piece{number}").write_bytes(piece)
    (folder / "quote.bin").write_bytes(forge.quote())
    (folder / "expected.toml").write_text(toml(forge))
    return ["verify", "--tee", forge.tee, str(folder / "quote.bin"), "--endorsements", str(bundle), *AT,
            "--expect", str(folder / "expected.toml")]  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, dict[str, Any]]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("forge", [GOOD, SGX], ids=["tdx", "sgx"])
def test_a_folder_of_pieces(forge: IntelForge, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = printed(capsys, laid(tmp_path, forge))
    assert (code, found["verdict"], found["simulated"]) == (0, "affirming", True)
    vector = found["ear"]["submods"][forge.tee]["ear.trustworthiness-vector"]
    assert set(vector.values()) == {2, 0}
    assert vector["instance-identity"] == vector["hardware"] == vector["configuration"] == 2


def test_an_event_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = laid(tmp_path, but(body={"rtmr0": register(bytes(4))}))
    (tmp_path / "good.bin").write_bytes(ccel(record(1, 4, bytes(4))))
    (tmp_path / "twice.bin").write_bytes(ccel(record(1, 4, bytes(4)), record(1, 4, bytes(4))))
    assert main([*arguments, "--event-log", str(tmp_path / "good.bin")]) == 0
    capsys.readouterr()
    code, found = printed(capsys, [*arguments, "--event-log", str(tmp_path / "twice.bin")])
    assert (code, found["reason"]) == (1, "tdx.event_log_rtmr_mismatch")


def test_another_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = laid(tmp_path)
    assert printed(capsys, [*arguments, "--evaluation", "18"])[0] == 0
    code, found = printed(capsys, [*arguments, "--evaluation", "17"])
    assert (code, found["reason"]) == (3, "tdx.collateral_missing")


@pytest.mark.parametrize(
    ("tee", "option"),
    [("snp", "--event-log"), ("sgx", "--event-log"), ("snp", "--evaluation"), ("node", "--marks")],
)
def test_an_option_that_says_nothing_here_is_a_mistake(tee: str, option: str, tmp_path: Path) -> None:
    arguments = laid(tmp_path)
    arguments[2] = tee
    with pytest.raises(ConfigurationError, match="goes with"):
        main([*arguments, option, "1"])


def test_the_wrong_kind_of_quote_is_unreadable(tmp_path: Path) -> None:
    laid(tmp_path)
    with pytest.raises(Unreadable, match="not of sgx"):
        main(["verify", "--tee", "sgx", str(tmp_path / "quote.bin"), *AT])


def test_expectations_that_say_nothing_of_this_tee(tmp_path: Path) -> None:
    arguments = laid(tmp_path, SGX)
    (tmp_path / "expected.toml").write_text(toml(GOOD))
    with pytest.raises(ConfigurationError, match=r"\[sgx\]"):
        main(arguments)


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    laid(tmp_path)
    code, stated = printed(capsys, ["show", str(tmp_path / "quote.bin")])
    assert (code, stated["body_type"], stated["mrtd"]) == (0, "TD1.0", "11" * 48)


def test_the_result_for_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(laid(tmp_path, but(components=(3,) * 16))) == 1
    shown = capsys.readouterr().out
    assert shown.startswith(
        "contraindicated: the evidence does not hold\nreason: tdx.tcb_status_not_accepted"
    )
    assert "SIMULATED" in shown
    assert "SGX component 1 3<5" in shown
