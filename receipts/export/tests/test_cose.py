"""Receipts as COSE, read by a library that is not ours: two signatures, and a path to the root between."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cwt import COSE, COSEKey, VerifyError

from receipts import bundle as bundles
from receipts.audit.tests.conftest import Auditor, auditor
from receipts.commands.receipt import main
from receipts.export import cose
from receipts.export.cose import Signers
from receipts.leaf import raw_thumbprint
from receipts.note import NoteSigner
from receipts.statements.receipt import KINDS, PLACEMENT
from receipts.tests.conftest import code_of, federation
from receipts.tests.world import CLINIC, Run
from schemas import envelope
from schemas.canonical import sha256
from schemas.errors import ConfigurationError, Refused
from schemas.keys import SigningKey

__all__ = ["auditor", "federation"]

MAIN = ("--receipt-key", "receipt.pem", "--log-key", "log.pem")


@dataclass
class Exporter:
    """`comity receipt export --cose` over clinic.de's log, its keys beside it as files."""

    auditor: Auditor

    @property
    def folder(self) -> Path:
        return self.auditor.folder

    def keys(self) -> Signers:
        keys = self.auditor.federation.clinic.keys
        return Signers(keys.receipt, keys.note)

    def save(self, signers: Signers) -> None:
        for name in ("receipt.pem", "log.pem"):
            (self.folder / name).unlink(missing_ok=True)
        signers.receipt.save(self.folder / "receipt.pem")
        pem = signers.log.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / "log.pem").write_bytes(pem)
        (self.folder / "log.pem").chmod(0o600)

    def run(self, *words: str, number: int = 0) -> list[Path]:
        """The files that the command writes."""
        named = [str(self.folder / word) if word.endswith(".pem") else word for word in words]
        code = main(
            ["export", str(self.auditor.database(CLINIC)), self.auditor.runs[number].request.id,
             "--papers", str(self.folder / "papers"), "--trust", str(self.folder / "trust.toml"),
             "--cose", str(self.folder / "cose"), *named]
        )  # fmt: skip
        assert code == 0
        return [Path(line) for line in self.auditor.capture.readouterr().out.split()]


@pytest.fixture
async def exporter(auditor: Auditor) -> Exporter:
    await auditor.play(Run(), Run(), Run())
    found = Exporter(auditor)
    found.save(found.keys())
    return found


def rfc9162_root(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162 2.1.3.2, word for word: another way to the root than `receipts.merkle`."""
    fn, sn, found = index, size - 1, leaf
    assert index < size
    for sibling in path:
        assert sn != 0
        if fn & 1 or fn == sn:
            found = hashlib.sha256(b"\1" + sibling + found).digest()
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = hashlib.sha256(b"\1" + found + sibling).digest()
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return found


def verified(data: bytes, receipt_key: SigningKey, log_key: NoteSigner) -> bytes:
    """The payload, if everything holds; by the library `cwt` alone. Raises `VerifyError`."""
    numbers = receipt_key.public.public.public_numbers()
    x, y, name = numbers.x.to_bytes(32), numbers.y.to_bytes(32), raw_thumbprint(receipt_key.public.thumbprint)
    es256 = COSEKey.new({1: 2, -1: 1, -2: x, -3: y, 2: name, 3: -7})
    protected, unprotected, payload = COSE.new().decode_with_headers(data, es256)
    assert protected[1] == -7
    assert protected[3] == "application/vnd.in-toto+json"
    digest = sha256(envelope.pae(envelope.STATEMENT, payload))
    tag = hmac.digest(unprotected["comity-leaf-salt"], digest, "sha256")
    record = bytes((1, KINDS[PLACEMENT])) + tag + protected[4]
    (receipt,) = unprotected[394]
    tagged = cbor2.loads(receipt)
    assert (tagged.tag, tagged.value[2]) == (18, None), "the root is left out"
    (place,) = tagged.value[1][396][-1]
    size, index, path = cbor2.loads(place)
    root = rfc9162_root(hashlib.sha256(b"\0" + record).digest(), index, size, path)
    public = log_key.key.public.public_bytes_raw()
    ed25519 = COSEKey.new({1: 1, -1: 6, -2: public, 2: log_key.key.key_id, 3: -8})
    stated, _, _ = COSE.new().decode_with_headers(receipt, ed25519, detached_payload=root)
    assert (stated[1], stated[395], stated[15]) == (-8, 1, {1: log_key.key.name})
    return bytes(payload)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_another_library_verifies_both_signatures_and_the_path(exporter: Exporter, number: int) -> None:
    (path,) = exporter.run(*MAIN, number=number)
    placed = exporter.auditor.runs[number].placed
    assert placed is not None
    payload = verified(path.read_bytes(), exporter.keys().receipt, exporter.keys().log)
    assert payload == envelope.read(placed.envelope).payload, "the very bytes"
    for keys in (
        (SigningKey.generate(), exporter.keys().log),
        (exporter.keys().receipt, NoteSigner.of("clinic.de/log", bytes(32))),
    ):
        with pytest.raises(ValueError, match="key is not found"):
            verified(path.read_bytes(), *keys)


def place(value: Any) -> Any:
    """The first inclusion proof in a decoded receipt: a list to change."""
    return cbor2.loads(value[1][396][-1][0])


def touched(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """The same file with another receipt: `change` takes its decoded COSE_Sign1."""
    outer = cbor2.loads(data)
    inner = cbor2.loads(outer.value[1][394][0])
    change(inner.value)
    outer.value[1][394][0] = cbor2.dumps(inner)
    return cbor2.dumps(outer)


def moved(value: Any) -> None:
    size, index, path = place(value)
    value[1][396][-1][0] = cbor2.dumps([size, index ^ 1, path])


def swapped(value: Any) -> None:
    size, index, path = place(value)
    value[1][396][-1][0] = cbor2.dumps([size, index, [bytes(32), *path[1:]]])


def resigned(value: Any) -> None:
    value[3] = value[3][::-1]


def renamed(value: Any) -> None:
    value[0] = cbor2.dumps(cbor2.loads(value[0]) | {15: {1: "cloud.fr/log"}})


@pytest.mark.parametrize("change", [moved, swapped, resigned, renamed])
def test_a_changed_receipt_is_refused(exporter: Exporter, change: Callable[[Any], Any]) -> None:
    (path,) = exporter.run(*MAIN)
    with pytest.raises((VerifyError, AssertionError)):
        verified(touched(path.read_bytes(), change), exporter.keys().receipt, exporter.keys().log)


def test_a_changed_payload_is_refused(exporter: Exporter) -> None:
    (path,) = exporter.run(*MAIN)
    outer = cbor2.loads(path.read_bytes())
    outer.value[2] = outer.value[2].replace(b'"path":"full"', b'"path":"lease"')
    with pytest.raises(VerifyError):
        verified(cbor2.dumps(outer), exporter.keys().receipt, exporter.keys().log)


def test_only_the_keys_that_signed_before_sign(exporter: Exporter) -> None:
    """A registered receipt key and the log's own: no others, and no other role's."""
    own = exporter.keys()
    promise = exporter.auditor.federation.clinic.keys.promise
    for signers, code in (
        (Signers(SigningKey.generate(), own.log), "export.receipt_key"),
        (Signers(promise, own.log), "export.receipt_key"),
        (Signers(own.receipt, NoteSigner.of("clinic.de/log", bytes(32))), "export.log_key"),
    ):
        exporter.save(signers)
        assert code_of(lambda: exporter.run(*MAIN)) == code
    assert not list((exporter.folder / "cose").iterdir())


@pytest.mark.parametrize("words", [(), MAIN[:2], MAIN[2:]])
def test_both_keys_are_needed(exporter: Exporter, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"export\.keys"):
        exporter.run(*words)


def test_a_key_of_another_kind_is_none(exporter: Exporter) -> None:
    with pytest.raises(ConfigurationError, match="Ed25519"):
        exporter.run("--receipt-key", "receipt.pem", "--log-key", "receipt.pem")
    with pytest.raises(ConfigurationError, match="P-256"):
        exporter.run("--receipt-key", "log.pem", "--log-key", "log.pem")


async def test_a_tree_of_one_leaf_waits_for_a_second(auditor: Auditor) -> None:
    """The draft's grammar has no empty path."""
    await auditor.play(Run())
    exporter = Exporter(auditor)
    exporter.save(exporter.keys())
    assert code_of(lambda: exporter.run(*MAIN)) == "export.alone"


async def test_a_logs_first_leaf_has_waited_long_enough(auditor: Auditor) -> None:
    """Most witnesses signed the tree in which it stood alone; the place in COSE is under the newest."""
    await auditor.play(Run())
    line = f"\N{EM DASH} bank.example/witness {'AAAA' * 26}\n"
    insert = "INSERT INTO cosignature (size, witness, line) VALUES (1, 'bank.example', ?)"
    auditor.change(CLINIC, insert, line)
    await auditor.play(Run())
    exporter = Exporter(auditor)
    exporter.save(exporter.keys())
    for number in (0, 1):
        (path,) = exporter.run(*MAIN, number=number)
        signers = exporter.keys()
        assert verified(path.read_bytes(), signers.receipt, signers.log)


async def test_what_is_only_promised_is_not_exported(exporter: Exporter) -> None:
    log = await exporter.auditor.federation.clinic.open(exporter.folder)
    data = await log.bundle(exporter.auditor.runs[0].request.id)
    await log.close()
    held = bundles.read(data)
    (text,) = [each for each in held.proofs.values() if b"clinic.de/log" in each]
    (first,) = [each for each in held.envelopes.values() if PLACEMENT.encode() in envelope.read(each).payload]
    keys = [exporter.keys().log.key]
    assert cose.export(first, text, exporter.keys(), keys)
    other = exporter.auditor.runs[1].placed
    assert other is not None
    with pytest.raises(Refused, match=r"merkle\."):
        cose.export(other.envelope, text, exporter.keys(), keys)


def test_the_command_says_what_it_wrote(exporter: Exporter) -> None:
    (path,) = exporter.run(*MAIN)
    assert path.parent == exporter.folder / "cose"
    again = exporter.run(*MAIN, "--json")
    assert json.loads(" ".join(map(str, again))) == {"exit": 0, "written": [str(path)]}


def test_each_part_is_written_in_the_one_deterministic_form(exporter: Exporter) -> None:
    """RFC 8949 4.2.1: shortest heads, definite lengths, keys in the order of their bytes."""
    (path,) = exporter.run(*MAIN)
    statement = cbor2.loads(path.read_bytes())
    (receipt,) = statement.value[1][394]
    inclusion = cbor2.loads(receipt)
    assert cbor2.dumps(statement, canonical=True) == path.read_bytes()
    assert cbor2.dumps(inclusion, canonical=True) == receipt
    assert statement.value[0].hex().startswith("a3012603"), "algorithm, then content type"
    assert inclusion.value[0].hex().startswith("a401270444"), "algorithm, then a key id of four bytes"
