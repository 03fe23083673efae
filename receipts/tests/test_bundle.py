"""Bundles: one form in bytes, guards against hostile archives; trust files; the commands."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import receipts.commands.receipt as receipt_commands
from receipts import bundle as bundles
from receipts.bundle import Bundle
from receipts.commands import log as log_commands
from receipts.tests.conftest import code_of
from receipts.tests.world import CLINIC, Domain, Federation, drafts, expected_toml
from receipts.verify.claim import CLAIMS
from receipts.verify.trust_file import PROFILES, parse
from schemas import envelope
from schemas.canonical import sha256
from schemas.errors import ComityError, ConfigurationError, Unreadable
from schemas.keys import SigningKey

ENVELOPE = envelope.sign(envelope.STATEMENT, b'{"predicateType":"x"}', SigningKey.generate())
NAME = envelope.read(ENVELOPE).digest
SMALL = Bundle({NAME: ENVELOPE}, proofs={NAME: b"proof"}, blobs={sha256(b"evidence"): b"evidence"})


def packed(*files: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def test_the_same_content_is_the_same_bytes() -> None:
    data = bundles.write(SMALL)
    assert data == bundles.write(bundles.read(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {entry.date_time for entry in archive.infolist()} == {(2000, 1, 1, 0, 0, 0)}
        listed = json.loads(archive.read("index.json"))
        assert all(sha256(archive.read(name)).hex() == digest for name, digest in listed.items())
    assert bundles.read(data) == bundles.read(bundles.write_json_form(SMALL)) == SMALL


def test_parts_are_named_by_what_they_are() -> None:
    """Moved to another file name, an envelope or a blob is still the one it is."""
    moved = packed(("envelopes/other.dsse.json", ENVELOPE), ("evidence/other", b"evidence"))
    found = bundles.read(moved)
    assert set(found.envelopes) == {NAME}
    assert set(found.blobs) == {sha256(b"evidence")}


BAD_PATHS = [
    "../charter.dsse.json", "/etc/passwd", "envelopes/../../x", "C:\\x", "envelopes\\x", "envelopes//x",
    "./charter.dsse.json", "Envelopes/x", "envelopes/x/", "a/b/c/d/e", "envelopes/..", "envelopes/a..b",
    "\u202e/x", "",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS)
def test_paths_that_lead_astray(path: str) -> None:
    assert code_of(lambda: bundles.read(packed((path, b"{}")))) == "bundle.path"


def bomb() -> bytes:
    return packed(("evidence/x", bytes(1024 * 1024)), method=zipfile.ZIP_DEFLATED)


def lying_size(size: int) -> bytes:
    """The central directory says another size of a file of 100 bytes."""
    data = bytearray(packed(("evidence/x", b"y" * 100)))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", size)
    return bytes(data)


def encrypted() -> bytes:
    data = bytearray(packed(("evidence/x", b"y" * 100)))
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(mark) + offset] |= 1
    return bytes(data)


def unknown_method() -> bytes:
    data = bytearray(packed(("evidence/x", b"y" * 100)))
    for mark, offset in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        data[data.index(mark) + offset] = 99
    return bytes(data)


def otherwise_packed(method: int) -> bytes:
    return packed(("evidence/x", bytes(range(256))), method=method)


def broken_lzma() -> bytes:
    """What LZMA says of its own parameters, all bits set: a dictionary of 4 GiB among them."""
    data = otherwise_packed(zipfile.ZIP_LZMA)
    at = 30 + len("evidence/x") + 4  # behind the local header, LZMA's version, and a length
    return data[:at] + b"\xff" * 5 + data[at + 5 :]


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return packed(("evidence/x", b"1"), ("evidence/x", b"2"))


HOSTILE: list[tuple[Callable[[], bytes], str]] = [
    (bomb, "bundle.ratio"),
    (lambda: lying_size(10), "bundle.zip"),
    (lambda: lying_size(110), "bundle.size"),
    (encrypted, "bundle.zip"),
    (unknown_method, "bundle.zip"),
    (lambda: otherwise_packed(zipfile.ZIP_LZMA), "bundle.zip"),
    (lambda: otherwise_packed(zipfile.ZIP_BZIP2), "bundle.zip"),
    (broken_lzma, "bundle.zip"),
    (twice, "bundle.duplicate"),
    (lambda: packed(*((f"evidence/{number}", b"") for number in range(2049))), "bundle.count"),
    (lambda: bytes(bundles.MAX_BUNDLE_BYTES + 1), "bundle.too_long"),
    (lambda: b"", "bundle.zip"),
    (lambda: b"PK\x03\x04junk", "bundle.zip"),
    (lambda: bundles.write(SMALL)[:-30], "bundle.zip"),
    (lambda: packed(("surprise", b"")), "bundle.file"),
    (lambda: packed(("evidence", b"")), "bundle.file"),
    (lambda: packed(("proofs/x.tlog-proof", b"")), "bundle.file"),
    (lambda: packed((f"proofs/{'0' * 64}.tlog-proof.old", b"")), "bundle.file"),
    (lambda: packed(("envelopes/x.dsse.json", b"{}")), "envelope.malformed"),
    (lambda: packed(("disclosures.json", b"[]")), "bundle.disclosures"),
    (lambda: packed(("disclosures.json", b'{"a":{"challenges":"x"}}')), "schema.Disclosures"),
    (lambda: b'{"charter.dsse.json": 1}', "bundle.json"),
    (lambda: b'{"charter.dsse.json": "x"}', "base64.invalid"),
    (lambda: b'{"a": "", "a": ""}', "json.duplicate_key"),
    (lambda: b'{"../x": ""}', "bundle.path"),
    (lambda: b"{" + b'"a":' * 50 + b"}", "json.syntax"),
]


@pytest.mark.parametrize(
    ("make", "code"), HOSTILE, ids=[f"{at}-{code}" for at, (_, code) in enumerate(HOSTILE)]
)
def test_hostile_archives(make: Callable[[], bytes], code: str) -> None:
    data = make()
    assert code_of(lambda: bundles.read(data)) == code


def directory(entries: int) -> bytes:
    """A zip that is nothing but the directory of so many files, of one byte of name each."""
    listed = (b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a") * entries
    return listed + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, len(listed), 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        directory(50_000),
        b"{" + b",".join(b'"%x":""' % number for number in range(50_000)) + b"}",
        b'{"a":[' + b"[]," * 200_000 + b"[]]}",
    ],
    ids=["zip", "json", "lists"],
)
def test_files_are_counted_before_anything_is_made_of_them(data: bytes) -> None:
    tracemalloc.start()
    try:
        assert code_of(lambda: bundles.read(data)) == "bundle.count"
        assert tracemalloc.get_traced_memory()[1] < len(data)
    finally:
        tracemalloc.stop()


def test_as_many_files_as_there_may_be() -> None:
    files = {f"evidence/{number}": b"%d" % number for number in range(bundles.MAX_FILES)}
    as_json = json.dumps({name: base64.b64encode(data).decode() for name, data in files.items()}).encode()
    for data in (packed(*files.items()), as_json):
        assert len(bundles.read(data).blobs) == bundles.MAX_FILES


def test_many_files_may_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MAX_UNPACKED_BYTES", 100)
    data = packed(("evidence/a", b"1" * 60), ("evidence/b", b"2" * 60))
    assert code_of(lambda: bundles.read(data)) == "bundle.size"


GOOD = bundles.write(SMALL)


@given(
    st.binary(max_size=200)
    | st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)).map(
        lambda flip: GOOD[: flip[0]] + bytes([GOOD[flip[0]] ^ flip[1]]) + GOOD[flip[0] + 1 :]
    )
)
def test_noise_is_read_or_refused(data: bytes) -> None:
    try:
        bundles.read(data)
    except ComityError as error:
        assert isinstance(error, Unreadable)  # noqa: PT017


# The trust file: complete or refused, and the refusal says what to write.

BASE = {
    "federation": '"care"',
    "charter": f'"{"a" * 64}"',
    "quorum": '"none"',
    "expectations": '"any"',
}


def trust_toml(**changes: str | None) -> bytes:
    lines = {**BASE, **changes}
    return "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None).encode()


def read_trust(data: bytes, files: dict[str, bytes] | None = None) -> Any:
    def read(name: str) -> bytes:
        if files is None or name not in files:
            raise ConfigurationError("trust_file.file", f"{name}: no such file")
        return files[name]

    return parse(data, source="trust.toml", read=read)


BAD_TRUST: list[tuple[dict[str, str | None], str]] = [
    ({"federation": None}, "federation is not set"),
    ({"federation": "7"}, "federation has the wrong form"),
    ({"charter": None}, "charter or roots must be set"),
    ({"charter": '"abc"'}, "charter has the wrong form"),
    ({"roots": "{}"}, "charter or roots must be set"),
    ({"charter": None, "roots": "{}"}, "roots is no table"),
    ({"charter": None, "roots": '{"a.de" = 1}'}, 'roots."a.de" is not a set'),
    ({"quorum": None}, "quorum is not set"),
    ({"quorum": "1"}, "quorum could be met"),
    ({"expectations": None}, "expectations is not set"),
    ({"expectations": '"gone.toml"'}, "gone.toml: no such file"),
    ({"profile": '"gone.toml"'}, "gone.toml: no such file"),
    ({"profile": "3"}, "profile is no name"),
    ({"profile": r'"a\u0000b"'}, "profile is no name"),
    ({"profile": '""'}, "profile is no name"),
    ({"surprise": "1"}, "surprise is not a key"),
    ({"audience": '"NOT A DOMAIN"'}, "audience has the wrong form"),
    ({"quorum": '"none'}, "trust.toml:"),
]


@pytest.mark.parametrize(("changes", "text"), BAD_TRUST, ids=[text for _, text in BAD_TRUST])
def test_trust_files_are_complete_or_refused(changes: dict[str, str | None], text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"trust\.toml|gone\.toml") as refused:
        read_trust(trust_toml(**changes))
    assert text in refused.value.text


def test_an_own_profile() -> None:
    own = {"mine.toml": b'requires = ["logged", "signature"]'}
    assert read_trust(trust_toml(profile='"mine.toml"'), own).profile.requires == {"logged", "signature"}
    for bad in (b"", b"requires = []", b'requires = ["beauty"]', b'requires = ["logged"]\nmore = 1'):
        with pytest.raises(ConfigurationError):
            read_trust(trust_toml(profile='"mine.toml"'), {"mine.toml": bad})


def test_the_default_profile_asks_for_attestation() -> None:
    trust = read_trust(
        trust_toml(expectations='"expected.toml"'), {"expected.toml": expected_toml().encode()}
    )
    assert trust.profile.name == "standard"
    assert "attested" in trust.profile.requires
    assert PROFILES["strict"] > PROFILES["standard"] > PROFILES["minimal"]
    assert PROFILES["strict"] <= set(CLAIMS)


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_noise_is_no_trust_file(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        read_trust(data)


# The commands.


@pytest.fixture(scope="module")
def folder(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the trust file and expectations that an auditor would have."""
    path = tmp_path_factory.mktemp("auditor")
    (path / "r.receipt").write_bytes(asyncio.run(federation.play(path)))
    (path / "trust.toml").write_text(federation.trust_toml)
    (path / "expected.toml").write_text(expected_toml())
    return path


def arguments(folder: Path, *more: str) -> list[str]:
    return ["verify", str(folder / "r.receipt"), "--trust", str(folder / "trust.toml"), *more]


AT = ("--at", "2026-06-02T00:00:00Z")
LONG = "/tmp/" + "x" * 300  # no file system takes this name


def test_verify_prints_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert receipt_commands.main(arguments(folder, *AT)) == 0
    out = capsys.readouterr().out
    for word in ("The bundle holds.", "SIMULATED", "attested *", "asserted-by(clinic.de)", "witnesses: 0/0"):
        assert word in out
    assert all(out.count(name) >= 2 for name in CLAIMS)


def test_verify_prints_one_json_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert receipt_commands.main(arguments(folder, *AT, "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["exit"] == 0
    assert [claim["claim"] for claim in report["claims"]] == list(CLAIMS)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--at", "2030-01-01T00:00:00Z"), 3),
        (("--at", "yesterday"), 2),
        (("--trust", "/nowhere/trust.toml"), 2),
        (("--trust", "/dev/zero"), 2),
        (("--trust", LONG), 2),
        (("--html", LONG), 2),
        (("--colour",), 2),
        (("-h",), 0),
    ],
)
def test_exit_codes(
    folder: Path, more: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert receipt_commands.main([*arguments(folder), "--json", *more]) == code
    capsys.readouterr()


def test_a_tampered_bundle_is_exit_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = bundles.read((folder / "r.receipt").read_bytes())
    first = next(iter(found.proofs))
    spoiled = folder / "spoiled.receipt"
    spoiled.write_bytes(bundles.write(Bundle(**{**_fields(found), "proofs": {first: b"no proof"}})))
    command = ["verify", str(spoiled), "--trust", str(folder / "trust.toml"), *AT]
    assert receipt_commands.main(command) == 1
    assert "does NOT hold" in capsys.readouterr().out


def _fields(bundle: Bundle) -> dict[str, Any]:
    return {name: getattr(bundle, name) for name in Bundle.__slots__}


def test_unreadable_bundles_say_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junk = folder / "junk.receipt"
    junk.write_bytes(b"junk")
    command = ["verify", str(junk), "--trust", str(folder / "trust.toml")]
    assert receipt_commands.main([*command, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["reason"] == "bundle.zip"
    with pytest.raises(Unreadable):
        receipt_commands.main(command)


def test_show_says_that_nothing_was_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert receipt_commands.main(["show", str(folder / "r.receipt")]) == 0
    assert "Nothing below was verified" in capsys.readouterr().out
    assert receipt_commands.main(["show", str(folder / "r.receipt"), "--json"]) == 0
    stated = json.loads(capsys.readouterr().out)
    assert stated["verified"] is False
    assert len(stated["statements"]) == 4


async def test_fsck(clinic: Domain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = await clinic.open(tmp_path)
    await log.issue(drafts(3))
    database = str(tmp_path / f"{CLINIC}.db")
    command = ["fsck", database, "--vkey", clinic.keys.note.key.vkey]
    assert log_commands.main(command) == 0
    assert "The log holds." in capsys.readouterr().out
    await log.close()
    assert log_commands.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "origin": clinic.origin, "leaves": 3, "receipts": 3, "checkpoints": 2, "unsettled": 0, "wrong": [],
        "exit": 0,
    }  # fmt: skip
    other = "x+" + base64.b64encode(b"nonsense").decode()
    assert log_commands.main(["fsck", database, "--vkey", other, "--json"]) == 2
    assert log_commands.main(["fsck", str(tmp_path / "gone.db"), "--json"]) == 2
    capsys.readouterr()
