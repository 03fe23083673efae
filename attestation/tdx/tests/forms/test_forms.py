"""A quote in every form in which kernels, guests and files hand it over."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.commands import main
from attestation.tdx.forms import is_wrapped, unwrap
from attestation.tdx.log.tests.logs import ccel, record, register
from attestation.tdx.tests.judging import GOOD, but, judge, toml
from attestation.testing.intel import IntelForge
from schemas.errors import Unreadable

QUOTE = GOOD.quote()
BASE64 = base64.b64encode(QUOTE).decode()
LOG = ccel(record(1, 0x80000001, b"kernel"))
LOGGED = but(body={"rtmr0": register(b"kernel")})


def wrapped(**members: Any) -> bytes:
    return json.dumps(members).encode()


FORMS = {
    "raw": QUOTE,
    "configfs-tsm": wrapped(form="configfs-tsm", provider="tdx_guest\n", outblob=BASE64),
    "configfs-tsm, form left out": wrapped(provider="tdx_guest", outblob=BASE64),
    "hex": wrapped(quote=QUOTE.hex()),
    "hex with 0x": wrapped(quote="0x" + QUOTE.hex()),
    "base64": wrapped(quote=BASE64),
    "base64url without padding": wrapped(quote=base64.urlsafe_b64encode(QUOTE).decode().rstrip("=")),
    "base64 in lines": wrapped(quote=base64.encodebytes(QUOTE).decode()),
    "one level down": wrapped(tdx={"quote": BASE64, "runtime_data": None}),
    "by its maker's name": wrapped(intel_quote=QUOTE.hex(), nvidia_payload="{}", quote=None),
    "beside members of somebody else's": wrapped(quote=QUOTE.hex(), vm_config="{}", event_log=""),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_quote(form: str) -> None:
    found = unwrap(FORMS[form])
    assert (found.quote, found.event_logs, found.azure) == (QUOTE, (), None)
    assert is_wrapped(FORMS[form]) == (form != "raw")
    assert judge(GOOD, quote=FORMS[form]).verdict == "affirming"


@pytest.mark.parametrize(
    "data",
    [
        b"{", b"{}", b'{"quote": 5}', b'{"quote": "no digits"}', b'{"quote": "a"}',
        wrapped(form="configfs-tsm", provider="sev_guest", outblob=BASE64),
        wrapped(form="configfs-tsm", provider="tdx_guest", outblob="%"),
        wrapped(form="azure-tdx", td_quote=BASE64),
        wrapped(form="azure-tdx", td_quote=BASE64, runtime_data="e30=", quote="AA=="),
        wrapped(form="azure-tdx", td_quote=BASE64, runtime_data="e30=", hcl_report="AA=="),
        wrapped(form="another", td_quote=BASE64),
        wrapped(quote=QUOTE.hex(), cc_eventlog="no digits"),
        wrapped(tdx={"quote": 5}), wrapped(tdx="AA=="), wrapped(intel_quote=[]),
    ],
)  # fmt: skip
def test_what_holds_no_quote_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        unwrap(data)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: b"{" + data))
def test_random_bytes(data: bytes) -> None:
    try:
        assert unwrap(data).form
        is_wrapped(data)
    except Unreadable:
        pass


@pytest.mark.parametrize(
    "members",
    [
        {"cc_eventlog": base64.b64encode(LOG).decode()},
        {"event_log": [], "cc_eventlog": LOG.hex()},
        {"event_log": base64.b64encode(LOG).decode(), "cc_eventlog": None},
    ],
)
def test_a_log_in_a_guests_answer_is_replayed(members: dict[str, Any]) -> None:
    data = wrapped(quote=LOGGED.quote().hex(), **members)
    assert judge(LOGGED, quote=data, event_log='["rtmr0"]').verdict == "affirming"
    other = wrapped(quote=QUOTE.hex(), **members)
    assert judge(GOOD, quote=other).verdict == "contraindicated"


def laid(folder: Path, files: dict[str, bytes], forge: IntelForge = GOOD) -> list[str]:
    evidence = folder / "evidence"
    evidence.mkdir()
    for name, data in files.items():
        (evidence / name).write_bytes(data)
    (folder / "collateral.json").write_bytes(forge.collateral())
    (folder / "expected.toml").write_text(toml(forge))
    return [str(evidence), "--endorsements", str(folder / "collateral.json"), "--at", "2026-03-01T12:00:00Z",
            "--expect", str(folder / "expected.toml")]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "forge"),
    [
        ({"provider": b"tdx_guest\n", "outblob": QUOTE, "generation": b"1\n"}, GOOD),
        ({"quote.bin": QUOTE}, GOOD),
        ({"quote.bin": LOGGED.quote(), "ccel.bin": LOG}, LOGGED),
    ],
)
def test_a_folder(files: dict[str, bytes], forge: IntelForge, tmp_path: Path) -> None:
    arguments = laid(tmp_path, files, forge)
    assert main(["verify", "--tee", "tdx", *arguments]) == 0
    assert main(["show", arguments[0]]) == 0


def test_the_log_in_a_folder_counts(tmp_path: Path) -> None:
    assert main(["verify", "--tee", "tdx", *laid(tmp_path, {"quote.bin": QUOTE, "ccel.bin": LOG})]) == 1


@pytest.mark.parametrize("files", [{}, {"outblob": QUOTE}, {"provider": b"sev_guest", "outblob": QUOTE}])
def test_a_folder_without_a_quote_is_unreadable(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        main(["verify", "--tee", "tdx", *laid(tmp_path, files)])


def test_show_and_verify_read_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answer.json"
    file.write_bytes(FORMS["hex"])
    assert main(["show", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tee_type"] == "TDX"
