"""The private root of exports: whose it is, when it holds, and one tree whoever exports at a time."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from receipts.export import authority as authorities
from receipts.export.authority import LEAF_MINUTES, VALID_DAYS, Authority, Logged
from receipts.export.files import command
from receipts.export.sigstore import Exported
from receipts.merkle import leaf_hash, root, verify_inclusion
from receipts.tests import disks
from receipts.tests.world import CLINIC, CLOUD
from schemas.errors import ConfigurationError
from schemas.keys import write_secret
from schemas.lock import lock

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "a", CLINIC, NOW)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as refused:
        call()
    return refused.value.code


def entries(authority: Authority) -> list[bytes]:
    data = (authority.folder / "leaves").read_bytes()
    return [data[at : at + 32] for at in range(0, len(data), 32)]


def test_each_export_is_one_leaf_of_one_tree(authority: Authority) -> None:
    for number in range(5):
        body = str(number).encode()
        logged = authority.append(body)
        assert (logged.index, logged.size) == (number, number + 1)
        verify_inclusion(leaf_hash(body), logged.index, logged.size, logged.path, logged.root)
    assert root(entries(authority)) == logged.root


def test_a_log_of_exports_has_an_end(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorities, "MAX_EXPORTS", 2)
    assert [authority.append(each).size for each in (b"1", b"2")] == [1, 2]
    assert code_of(lambda: authority.append(b"3")) == "export.full"
    assert len(entries(authority)) == 2


def test_no_proof_is_made_of_what_may_not_be_on_disk(authority: Authority) -> None:
    """A disk that is full in the middle of a leaf, and one that cannot say that it holds it."""
    authority.append(b"1")
    assert stat.S_IMODE((authority.folder / "leaves").stat().st_mode) == 0o600
    with disks.full_at(40):
        assert code_of(lambda: authority.append(b"2")) == "export.authority"
    with disks.never_synced():
        assert code_of(lambda: authority.append(b"3")) == "export.authority"


def test_the_first_entry_is_on_disk_with_its_name(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose name is not on disk may be gone after a power cut: the next would be the first again."""
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    for number in range(2):
        authority.append(str(number).encode())
    file, folder = ((authority.folder / name).stat().st_ino for name in ("leaves", "."))
    assert synced == [file, folder, file]


@pytest.mark.parametrize("name", ["ca", "ct", "tsa", "log"])
def test_keys_of_another_kind_are_refused(authority: Authority, name: str) -> None:
    path = authority.folder / f"{name}.pem"
    path.unlink()
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(path, pem)
    assert code_of(lambda: Authority.open(authority.folder, CLINIC, NOW)) == "export.authority"


def test_exports_at_one_time_never_sign_two_trees(authority: Authority) -> None:
    """Whoever does not get the log says so; of one size there is one root."""

    def export(number: int) -> Logged | str:
        try:
            return authority.append(str(number).encode())
        except ConfigurationError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(export, range(200)))
    made = [each for each in done if isinstance(each, Logged)]
    assert {each for each in done if isinstance(each, str)} <= {"export.held"}
    assert sorted(each.size for each in made) == list(range(1, len(made) + 1))
    assert all(each.root == root(entries(authority)[: each.size]) for each in made)


def test_while_another_exports_it_is_said(authority: Authority) -> None:
    held = lock(authority.folder / "leaves")
    assert code_of(lambda: authority.append(b"x")) == "export.held"
    os.close(held)
    assert authority.append(b"x").index == 0


def test_what_a_crash_broke_off_is_no_leaf(authority: Authority) -> None:
    authority.append(b"one")
    with (authority.folder / "leaves").open("ab") as file:
        file.write(b"broken off")
    logged = authority.append(b"two")
    assert (logged.index, logged.size) == (1, 2)
    assert entries(authority) == [leaf_hash(b"one"), leaf_hash(b"two")]


def test_another_domain_s_root_is_not_ours(authority: Authority) -> None:
    assert code_of(lambda: Authority.open(authority.folder, CLOUD, NOW)) == "export.authority"


@pytest.mark.parametrize(
    ("later", "holds"),
    [
        (timedelta(days=-1), True),
        (timedelta(days=-1, seconds=-1), False),
        (timedelta(days=VALID_DAYS, minutes=-LEAF_MINUTES), True),
        (timedelta(days=VALID_DAYS, minutes=-LEAF_MINUTES, seconds=1), False),
    ],
)
def test_nothing_is_exported_that_no_tool_would_believe(
    authority: Authority, later: timedelta, holds: bool
) -> None:
    if holds:
        assert Authority.open(authority.folder, CLINIC, NOW + later).folder == authority.folder
    else:
        assert code_of(lambda: Authority.open(authority.folder, CLINIC, NOW + later)) == "export.expired"


def test_a_place_that_cannot_be_is_one_clear_error(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with pytest.raises(ConfigurationError, match=r"^export\.authority: "):
            Authority.open(place, CLINIC, NOW)
    (authority.folder / "leaves").mkdir()
    assert code_of(lambda: authority.append(b"x")) == "export.authority"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file"], "nothing half made is left"


def test_a_root_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("receipts.export.authority.write_secret", fails)
    with pytest.raises(KeyboardInterrupt):
        Authority.open(tmp_path / "a", CLINIC, NOW)
    assert not list(tmp_path.iterdir())


def test_the_command_is_one_that_a_shell_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a blank, and a receipt whose id begins with a dash."""
    monkeypatch.chdir(tmp_path)
    for folder in (Path("two words"), Path()):
        words = shlex.split(command(folder, "-id", Exported(b"", b"", "https://a", "https://b")))
        assert words[words.index("--bundle") + 1] == f"{tmp_path / folder / '-id'}.sigstore.json"
        assert words[-1] == f"{tmp_path / folder / '-id'}.commitment"
