"""`comity attest`: exit codes, one JSON object, and refusals that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attestation.commands import main
from attestation.files import MAX_FILES
from attestation.node.tests.test_appraise_node import CLINIC, NOW, evidence, expectations, vendor
from attestation.node.tests.test_appraise_node import _toml as node_expectations
from attestation.snp.tests.azure import azure_forge as azure
from attestation.testing.expectations import snp_toml
from attestation.testing.forge import Forge
from schemas.errors import ComityError, ConfigurationError, Unreadable
from schemas.primitives import format_time

FORGE = Forge.of("Milan")
ROOT = Path(__file__).parents[3]
AT = ["--at", "2026-03-01T00:00:00Z"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A report, its endorsements in a folder, and expectations that accept its root."""
    (tmp_path / "report.bin").write_bytes(FORGE.report())
    (tmp_path / "endorsements" / "deep").mkdir(parents=True)
    for index, document in enumerate(FORGE.endorsements()):
        (tmp_path / "endorsements" / "deep" / str(index)).write_bytes(document)
    (tmp_path / "endorsements" / "notes.txt").write_text("not an endorsement")
    (tmp_path / "expected.toml").write_text(snp_toml() + FORGE.root_toml())
    return tmp_path


def verifying(folder: Path, *more: str, evidence: str = "report.bin", tee: str = "snp") -> list[str]:
    return [
        "verify", "--tee", tee, str(folder / evidence), "--endorsements", str(folder / "endorsements"),
        "--expect", str(folder / "expected.toml"), *AT, *more,
    ]  # fmt: skip


def verify(folder: Path, *more: str, evidence: str = "report.bin", tee: str = "snp") -> int:
    return main(verifying(folder, *more, evidence=evidence, tee=tee))


def test_affirming(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(folder) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("affirming")
    assert "notes.txt: passed over" in printed.err


def test_json_is_one_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "affirming"


def test_contraindicated(folder: Path) -> None:
    (folder / "report.bin").write_bytes(FORGE.report(vmpl=2))
    assert verify(folder) == 1


def test_expectations_that_say_nothing_about_the_tee(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "other.toml").write_text(FORGE.root_toml())
    assert verify(folder, "--json", "--expect", str(folder / "other.toml")) == 2
    assert "other.toml: [snp] is not set; write" in json.loads(capsys.readouterr().out)["error"]


def test_undecided_and_waived(folder: Path) -> None:
    (folder / "endorsements" / "deep" / "3").unlink()
    assert verify(folder) == 3
    assert verify(folder, "--waive", "revocation") == 0


def test_warning_exits_0_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tcb = FORGE.product.layout.write({**FORGE.tcb, "ucode": 230})
    (folder / "report.bin").write_bytes(FORGE.report(current_tcb=tcb))
    (folder / "expected.toml").write_text(snp_toml({"provisional": '"warning"'}) + FORGE.root_toml())
    assert verify(folder) == 0
    assert capsys.readouterr().out.startswith("warning")


def test_a_nonce_must_match(folder: Path) -> None:
    assert verify(folder, "--nonce", "00" * 64) == 0
    assert verify(folder, "--nonce", "00" * 32) == 1
    for bad in ("", "xx", "00" * 65):
        with pytest.raises(ConfigurationError):
            verify(folder, "--nonce", bad)


@pytest.mark.parametrize(
    ("tee", "code", "why"),
    [("nvidia", "expected.unset", "[nvidia] is not set"), ("cca", "attest.tee", "is no kind of evidence")],
)
def test_what_cannot_be_judged_is_refused_plainly(
    folder: Path, tee: str, code: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError) as error:
        verify(folder, tee=tee)
    assert error.value.exit_code == 2
    assert why in error.value.text
    assert verify(folder, "--json", tee=tee) == 2
    assert json.loads(capsys.readouterr().out)["reason"] == code


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["verify"],
        ["verify", "--tee", "snp"],
        ["nothing"],
        ["verify", "--tee", "snp", "x", "--waive", "debug"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_help_is_0() -> None:
    assert main(["--help"]) == 0


@pytest.mark.parametrize(
    ("evidence", "more"),
    [("absent", []), ("expected.toml", []), ("report.bin", ["--endorsements", "absent"]),
     ("report.bin", ["--at", "yesterday"])],
)  # fmt: skip
def test_unreadable_input_is_2(folder: Path, evidence: str, more: list[str]) -> None:
    with pytest.raises(ComityError) as error:
        verify(folder, *more, evidence=evidence)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("tee", ["snp", "tdx", "nvidia", "node"])
def test_a_name_that_no_file_can_have_is_2(folder: Path, tee: str) -> None:
    """As when somebody passes the evidence itself, in base64, in place of a file's name."""
    name = "A" * 300
    for arguments in (
        ["verify", "--tee", tee, name],
        ["verify", "--tee", tee, str(folder / "report.bin"), "--endorsements", name],
        ["show", name],
        ["fetch", name, "--out", str(folder / "out")],
    ):
        with pytest.raises(ConfigurationError, match="File name too long"):
            main(arguments)


def test_a_folder_inside_that_may_not_be_read_is_no_empty_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "endorsements" / "closed").mkdir()
    listed = os.scandir

    def refusing(path: str | Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr("os.scandir", refusing)
    with pytest.raises(ConfigurationError, match="closed: Permission denied"):
        verify(folder)


def test_no_file_of_a_folder_is_left_out_in_silence(folder: Path) -> None:
    """The one that is left out may be the CRL that revokes."""
    for number in range(MAX_FILES):
        (folder / "endorsements" / f"{number:04}").write_bytes(FORGE.crl())
    with pytest.raises(ConfigurationError, match=f"endorsements: more than {MAX_FILES} files; name those"):
        verify(folder)


def test_an_explicit_endorsement_that_is_none_is_2(folder: Path) -> None:
    with pytest.raises(Unreadable):
        verify(folder, "--endorsements", str(folder / "endorsements" / "notes.txt"))


def test_an_unset_expectation_is_2(folder: Path) -> None:
    (folder / "expected.toml").write_text(snp_toml({"measurement": None}))
    with pytest.raises(ConfigurationError) as error:
        verify(folder)
    assert "measurement" in error.value.text


def test_without_expectations_the_result_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["verify", "--tee", "snp", str(folder / "report.bin"), *AT]
    assert main(arguments) == 3
    assert "no reference values were demanded" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["reference_values"] == "not demanded"


def test_configfs_tsm_as_a_folder_and_as_json(folder: Path) -> None:
    import base64

    tsm = folder / "tsm"
    tsm.mkdir()
    (tsm / "provider").write_text("sev_guest\n")
    (tsm / "outblob").write_bytes(FORGE.report())
    (tsm / "auxblob").write_bytes(b"")
    assert verify(folder, evidence="tsm") == 0
    (tsm / "provider").write_text("tdx_guest\n")
    with pytest.raises(Unreadable):
        verify(folder, evidence="tsm")
    bundle = {
        "form": "configfs-tsm",
        "provider": "sev_guest",
        "outblob": base64.b64encode(FORGE.report()).decode(),
    }
    (folder / "tsm.json").write_text(json.dumps(bundle))
    assert verify(folder, evidence="tsm.json") == 0
    with pytest.raises(Unreadable):
        verify(folder, evidence="endorsements")


def test_azure_as_a_folder(folder: Path) -> None:
    parts = folder / "azure"
    parts.mkdir()
    quote = azure.make_quote()
    (parts / "hcl_report.bin").write_bytes(azure.hcl_blob(FORGE)[0])
    (parts / "tpm_quote.bin").write_bytes(quote)
    (parts / "tpm_quote_signature.bin").write_bytes(azure.sign_quote(quote))
    (parts / "tpm_pcrs.json").write_text(json.dumps([value.hex() for value in azure.PCRS]))
    assert verify(folder, "--nonce", azure.NONCE.hex(), evidence="azure") == 0
    assert verify(folder, "--nonce", "00", evidence="azure") == 1
    (parts / "tpm_pcrs.json").write_text('["x"]')
    with pytest.raises(Unreadable):
        verify(folder, evidence="azure")


@pytest.fixture
def node_folder(tmp_path: Path) -> Path:
    (tmp_path / "node.json").write_bytes(evidence().write())
    (tmp_path / "expected.toml").write_text(node_expectations(vendor().root_toml()))
    assert expectations().node is not None
    return tmp_path


def test_node_evidence(node_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "verify",
        "--tee",
        "node",
        str(node_folder / "node.json"),
        "--at",
        format_time(NOW),
        "--json",
    ]
    wanted = ["--expect", str(node_folder / "expected.toml")]
    cases: list[tuple[list[str], int]] = [
        (wanted, 0),
        ([*wanted, "--nonce", CLINIC.hex()], 0),
        ([*wanted, "--nonce", "07" * 32], 3),
        ([], 1),
    ]
    for more, code in cases:
        assert main([*arguments, *more]) == code
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (printed["tee"], printed["exit"]) == ("node", code)
    (node_folder / "expected.toml").write_text(snp_toml())
    with pytest.raises(ConfigurationError) as error:
        main([*arguments[:-1], *wanted])
    assert "[node]" in error.value.text


def test_show(folder: Path, node_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(folder / "report.bin")]) == 0
    assert "measurement: " in capsys.readouterr().out
    for file in (folder / "report.bin", node_folder / "node.json"):
        assert main(["show", str(file), "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        stated = (
            printed.get("report", printed)
            if "cpu" not in printed or isinstance(printed["cpu"], str)
            else printed["report"]
        )
        assert stated["product"] == "Milan"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("2026-03-01T00:00:00Z", 0),
        ("2026-03-01T02:00:00+02:00", 0),
        ("2026-02-28T19:30:00.250-04:30", 0),
        ("2040-01-01T00:00:00+00:00", 1),
        ("2026-03-01", 2),
        ("2026-03-01T00:00:00", 2),
        ("0001-01-01T00:00:00+23:00", 2),
        ("9999-12-31T23:59:59-10:00", 2),
        ("now", 2),
    ],
)
def test_a_moment_is_rfc_3339_with_any_offset(
    folder: Path, text: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = verifying(folder)
    arguments[arguments.index("--at") + 1] = text
    assert main([*arguments, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["exit"] == code


def test_a_reader_who_leaves_gets_no_verdict(folder: Path) -> None:
    """`comity attest verify … | head` must never end as "it holds"."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "comity", "attest", *verifying(folder)],
            stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert ended.returncode == 141
