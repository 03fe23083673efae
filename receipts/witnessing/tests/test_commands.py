"""`comity witness serve` as a program: it cosigns, is killed, and never takes back what it said."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from receipts import note
from receipts.cosignature import CosignerKey
from receipts.witnessing.asking import request_body
from receipts.witnessing.commands import main
from receipts.witnessing.tests.trees import LOG, proof, signed, tree
from schemas.errors import ConfigurationError
from schemas.keys import write_secret

ROOT = Path(__file__).parents[3]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    private = Ed25519PrivateKey.generate()
    path = tmp_path / "witness.pem"
    write_secret(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@contextmanager
def running(
    folder: Path, key: Path
) -> Iterator[tuple[subprocess.Popen[str], list[CosignerKey], httpx.Client]]:
    """(process, its keys, a client at its address)."""
    command = [sys.executable, "-m", "comity", "witness", "serve", "--state", str(folder / "w.db"), "--key",
               str(key), "--name", "clinic.de/witness", "--log", LOG.key.vkey, "--ml-dsa"]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        keys = [CosignerKey.read(process.stdout.readline().split()[1]) for _ in range(2)]
        address = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=10) as client:
            yield process, keys, client
        process.kill()


def test_killed_at_any_moment_it_goes_on_from_what_it_said(tmp_path: Path, key: Path) -> None:
    size = 0
    for step in range(1, 5):
        with running(tmp_path, key) as (process, keys, client):
            grown = size + step
            body = request_body(size, proof(size, grown), signed(grown))
            answer = client.post("/add-checkpoint", content=body)
            process.send_signal(signal.SIGKILL)
            assert answer.status_code == 200
            lines = note.read_signatures(answer.text)
            for each, line in zip(keys, lines, strict=True):
                assert each.verify(line, tree(grown).text) > 0
        size = grown
    with running(tmp_path, key) as (process, _, client):
        rollback = client.post("/add-checkpoint", content=request_body(0, [], signed(1)))
        assert (rollback.status_code, rollback.text) == (409, f"{size}\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize("change", [("--key", "absent.pem"), ("--listen", "nowhere"), ("--log", "noise")])
def test_what_cannot_serve_says_so(tmp_path: Path, key: Path, change: tuple[str, str]) -> None:
    words = {"--state": str(tmp_path / "w.db"), "--key": str(key), "--name": "a.b/w", "--log": LOG.key.vkey}
    words |= dict([change])
    with pytest.raises(Exception, match=r".") as refused:
        main(["serve", *(part for pair in words.items() for part in pair)])
    assert getattr(refused.value, "exit_code", 70) == ConfigurationError.exit_code
    assert main(["serve"]) == 2
