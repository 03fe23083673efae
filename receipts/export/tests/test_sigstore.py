"""The stock `sigstore` tool verifies an exported receipt, without a network; every change is refused."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from receipts.audit.tests.conftest import Auditor, auditor
from receipts.commands.receipt import main
from receipts.export.authority import Authority
from receipts.export.sigstore import export
from receipts.export.timestamp import respond
from receipts.tests.conftest import code_of, federation
from receipts.tests.world import CLINIC, Run
from schemas.keys import SigningKey

__all__ = ["auditor", "federation"]

SIGSTORE = Path(sys.executable).parent / "sigstore"
OFFLINE = ["unshare", "--user", "--net", "--map-root-user"]

pytestmark = pytest.mark.skipif(not SIGSTORE.exists(), reason="the sigstore command is not installed here")


def offline() -> list[str]:
    """A network namespace without any device, where the machine lets us make one."""
    try:
        allowed = subprocess.run([*OFFLINE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        allowed = False
    return OFFLINE if allowed else []


@dataclass
class Export:
    """One exported receipt, and the printed command that verifies it."""

    folder: Path
    command: list[str]

    def verify(self, home: Path, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run the command, options changed; an empty home, and no network where that can be had."""
        words = [str(SIGSTORE), *self.command[1:]]
        for option, value in changes.items():
            if option == "artifact":
                words[-1] = value
            else:
                words[words.index(f"--{option.replace('_', '-')}") + 1] = value
        home.mkdir(exist_ok=True)
        return subprocess.run(
            [*offline(), *words],
            capture_output=True,
            text=True,
            check=False,
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
        )

    @property
    def bundle(self) -> Path:
        return next(self.folder.glob("*.sigstore.json"))


@pytest.fixture
async def made(auditor: Auditor) -> Export:
    await auditor.play(Run())
    folder, papers = auditor.folder / "exported", str(auditor.folder / "papers")
    code = main(
        ["export", str(auditor.database(CLINIC)), auditor.runs[0].request.id, "--papers", papers,
         "--trust", str(auditor.folder / "trust.toml"), "--sigstore", str(folder),
         "--authority", str(auditor.folder / "authority"), "--json"]
    )  # fmt: skip
    said = json.loads(auditor.capture.readouterr().out)
    assert code == 0
    assert said["note"].startswith("anchor: none")
    (command,) = said["commands"]
    return Export(folder, shlex.split(command))


def test_the_stock_tool_verifies_it(made: Export, tmp_path: Path) -> None:
    done = made.verify(tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "OK:" in done.stderr + done.stdout
    for wrong in (
        {"cert_identity": "https://cloud.fr/receipts"},
        {"cert_oidc_issuer": "https://accounts.example"},
        {"artifact": f"sha256:{'0' * 64}"},
    ):
        assert made.verify(tmp_path / "home", **wrong).returncode == 1


def edit(data: dict[str, Any], *path: str | int, change: Callable[[Any], Any]) -> dict[str, Any]:
    at: Any = data
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = change(at[path[-1]])
    return data


def respaced(text: str) -> str:
    """The same JSON value in other bytes: a verifier hashes the body as it stands."""
    return base64.b64encode(json.dumps(json.loads(base64.b64decode(text)), indent=1).encode()).decode()


MATERIAL = "verificationMaterial"
ENTRY = (MATERIAL, "tlogEntries", 0)
STAMPS = (MATERIAL, "timestampVerificationData", "rfc3161Timestamps")
ZEROS = base64.b64encode(bytes(32)).decode()
CHANGES: list[tuple[str, tuple[str | int, ...], Callable[[Any], Any], str]] = [
    ("payload", ("dsseEnvelope", "payload"), lambda text: text[:-8] + "AAAA" + text[-4:], "signature"),
    ("body-reserialised", (*ENTRY, "canonicalizedBody"), respaced, "inclusion"),
    ("tree", (*ENTRY, "inclusionProof", "rootHash"), lambda _: ZEROS, "root hash"),
    ("no-time", STAMPS, lambda _: [], "time"),
]


@pytest.mark.parametrize("case", CHANGES, ids=[case[0] for case in CHANGES])
def test_a_changed_export_is_refused(made: Export, tmp_path: Path, case: Any) -> None:
    _, path, change, word = case
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(edit(json.loads(made.bundle.read_text()), *path, change=change)))
    done = made.verify(tmp_path / "home", bundle=str(changed))
    assert done.returncode == 1
    assert word in " ".join((done.stderr + done.stdout).lower().split())


async def test_another_private_root_vouches_for_nothing(
    made: Export, auditor: Auditor, tmp_path: Path
) -> None:
    from receipts.export.sigstore import trust_config

    other = Authority.open(tmp_path / "other", CLINIC, datetime.now(UTC))
    (tmp_path / "other.json").write_text(json.dumps(trust_config(other)))
    words = list(made.command)
    words[words.index("--trust-config") + 1] = str(tmp_path / "other.json")
    assert Export(made.folder, words).verify(tmp_path / "home").returncode == 1


async def test_only_a_registered_key_is_certified(auditor: Auditor, tmp_path: Path) -> None:
    """The key comes from the manifest, never from the receipt."""
    await auditor.play(Run())
    placed = auditor.runs[0].placed
    assert placed is not None
    authority = Authority.open(tmp_path / "a", CLINIC, datetime.now(UTC))
    stranger = SigningKey.generate().public
    refused = code_of(lambda: export(placed.envelope, stranger, authority, at=datetime.now(UTC)))
    assert refused == "envelope.signature_invalid"
    assert not (tmp_path / "a" / "leaves").exists(), "nothing was logged"


def test_the_time_stamp_reads_back(tmp_path: Path) -> None:
    import rfc3161_client

    at = datetime.now(UTC).replace(microsecond=0)
    authority = Authority.open(tmp_path / "a", CLINIC, at)
    data = respond(b"signature", key=authority.tsa, certificate=authority.tsa_certificate, serial=255, at=at)
    response = rfc3161_client.decode_timestamp_response(data)
    assert response.tst_info.gen_time == at
    assert response.tst_info.serial_number == 255
    assert isinstance(authority.ca, ec.EllipticCurvePrivateKey)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
