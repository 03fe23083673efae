"""The same good evidence in every shape in which a cloud, a guest tool or a folder may hand it over."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from attestation.appraise import appraise_snp
from attestation.commands import main
from attestation.endorsements import TABLE_GUIDS
from attestation.files import as_bytes
from attestation.snp.forms import unwrap
from attestation.snp.report import PLATFORM_BITS, POLICY_BITS
from attestation.snp.tests.judging import KINDS, PRODUCTS, judge
from attestation.testing.expectations import snp_toml
from attestation.testing.forge import NOW, Forge, ec_key
from attestation.tests import recorded
from attestation.tests.test_endorsements import UNKNOWN, pem, table
from schemas.errors import Unreadable
from schemas.primitives import format_time, parse_time

VCEK, VLEK, ASK, ARK, _, EXTRA = TABLE_GUIDS
DAY = timedelta(days=1)
EVERY = [(product, kind, version) for product in PRODUCTS for kind in KINDS for version in (2, 3, 4, 5)]
FORGE = Forge.of("Genoa")


def certificates(forge: Forge) -> list[tuple[bytes, bytes]]:
    """(GUID, certificate) of a host's table."""
    leaf = VLEK if forge.kind == "VLEK" else VCEK
    return [(leaf, forge.leaf()), (ASK, forge.intermediate()), (ARK, forge.ark())]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


SHAPES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "extended": lambda report, host: report + host,
    "extended, padded to a page": lambda report, host: report + host.ljust(16 * 1024, b"\0"),
    "configfs-tsm": lambda report, host: json.dumps(
        {"form": "configfs-tsm", "provider": "sev_guest\n", "outblob": b64(report), "auxblob": b64(host)}
    ).encode(),
    "configfs-tsm without its name": lambda report, host: json.dumps(
        {"provider": "sev_guest", "outblob": b64(report), "auxblob": b64(host)}
    ).encode(),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("product", "kind", "version"), EVERY)
def test_every_product_version_and_leaf_in_every_shape(
    product: str, kind: str, version: int, shape: str
) -> None:
    forge = replace(Forge.of(product, kind), version=version)
    data = SHAPES[shape](forge.report(), table(*certificates(forge)))
    found = judge(forge, report=data, endorsements=[forge.crl()])
    assert (found.verdict, found.reason) == ("affirming", None)
    assert found.platform == f"simulated-snp-{product.lower()}"


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_a_table_in_any_order_with_strangers_in_it(order: tuple[int, ...]) -> None:
    parts = [certificates(FORGE)[index] for index in order]
    for blobs in (
        parts,
        [(EXTRA, b"\1" * 40), *parts],
        [*parts, (UNKNOWN, b"anything")],
        [(guid, pem(blob)) for guid, blob in parts],
        [*parts, (VLEK, Forge.of("Genoa", "VLEK").leaf())],
    ):
        data = FORGE.report() + table(*blobs)
        assert judge(FORGE, report=data, endorsements=[FORGE.crl()]).verdict == "affirming"


def test_a_chain_in_one_pem_file_as_people_write_it() -> None:
    chain = pem(FORGE.intermediate()) + pem(FORGE.ark())
    for text in (
        chain,
        chain.replace(b"\n", b"\r\n"),
        b"subject=CN=SEV-Genoa\nissuer=CN=ARK-Genoa\n" + chain + b"\n\n",
        b"Modulus: 00:11:22:33:44:55:66:77\n" * 200 + chain,  # `openssl x509 -text`
        chain + pem(FORGE.crl(), "X509 CRL"),
    ):
        offered = [text, pem(FORGE.leaf()), FORGE.crl()]
        assert judge(FORGE, endorsements=offered).verdict == "affirming"


@pytest.mark.parametrize(
    "spell",
    [
        bytes.hex,
        lambda data: "0x" + data.hex().upper() + "\n",
        b64,
        lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
        lambda data: base64.urlsafe_b64encode(data).decode(),
        lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
        lambda data: b64(data).rstrip("=") + "\n",
    ],
    ids=["hex", "0x", "base64", "base64 in lines", "base64url", "base64url bare", "base64 bare"],
)
def test_files_of_digits(spell: Callable[[bytes], str], tmp_path: Path) -> None:
    """Reports and certificates are passed around as text; every vendor's raw evidence is none."""
    (tmp_path / "report.txt").write_text(spell(FORGE.report()))
    (tmp_path / "collateral").mkdir()
    for number, document in enumerate(FORGE.endorsements()):
        (tmp_path / "collateral" / str(number)).write_text(spell(document))
    (tmp_path / "expected.toml").write_text(snp_toml() + FORGE.root_toml())
    arguments = ["verify", "--tee", "snp", str(tmp_path / "report.txt"), "--at", format_time(NOW)]
    arguments += ["--expect", str(tmp_path / "expected.toml")]
    assert main([*arguments, "--endorsements", str(tmp_path / "collateral")]) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0x",
        b"word",
        b"a" * 65,
        b"a" * 64 + b"=a==",
        b"aaaa " * 20,
        b"a-b+" * 20,
        pem(b"\1" * 99),
        b'{"a": 1}',
        bytes(99),
    ],
)
def test_what_is_no_file_of_digits_stays_as_it_is(data: bytes) -> None:
    assert as_bytes(data) == data


def test_what_azures_metadata_service_gives() -> None:
    chain = (pem(FORGE.intermediate()) + pem(FORGE.ark())).decode()
    answer = {"vcekCert": pem(FORGE.leaf()).decode(), "tcbm": "DB18000000000004", "certificateChain": chain}
    offered = [json.dumps(answer).encode(), FORGE.crl()]
    assert judge(FORGE, endorsements=offered).verdict == "affirming"
    for broken in ({**answer, "certificateChain": 1}, {"vcekCert": answer["vcekCert"]}):
        found = judge(FORGE, endorsements=[json.dumps(broken).encode(), FORGE.crl()])
        assert found.verdict == "contraindicated"
        assert "vcekCert" in found.check("snp.endorsements").seen


def test_a_file_that_is_no_endorsement_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.bin").write_bytes(FORGE.report())
    (tmp_path / "notes.txt").write_text("no endorsement")
    arguments = ["verify", "--tee", "snp", str(tmp_path / "report.bin"), "--json"]
    assert main([*arguments, "--endorsements", str(tmp_path / "notes.txt")]) == 2
    assert "notes.txt: neither a certificate" in json.loads(capsys.readouterr().out)["error"]


def test_evidence_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no report")
    for arguments in (["show"], ["verify", "--tee", "snp"]):
        assert main([*arguments, str(tmp_path / "notes.txt"), "--json"]) == 2
        assert f"{tmp_path}/notes.txt: 9 bytes" in json.loads(capsys.readouterr().out)["error"]
        assert main([*arguments, str(tmp_path), "--json"]) == 2
        assert f"{tmp_path}: the folder holds" in json.loads(capsys.readouterr().out)["error"]


def test_a_report_with_padding_or_a_broken_table_is_no_extended_report() -> None:
    for tail in (bytes(24), bytes(2912), b"\1" * 48):
        with pytest.raises(Unreadable):
            unwrap(FORGE.report() + tail)
    broken = table((ARK, FORGE.ark()))[:-10]
    found = judge(FORGE, report=FORGE.report() + broken)
    assert found.reason == "snp.endorsement.table_malformed"


def foreign_certificate() -> bytes:
    """A certificate of somebody else's PKI, with a key that no AMD certificate has and no common name."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Somebody")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 5, NOW - DAY, NOW + DAY).sign(key, None)
    return made.public_bytes(serialization.Encoding.DER)


def test_what_is_not_needed_does_not_disturb() -> None:
    others = [Forge.of("Genoa", leaf_key=ec_key(f"chip {number}")) for number in range(2)]
    beside = [
        foreign_certificate(),
        b"\x30\x03\x30\x01\xa0",  # hardly a certificate
        *(part for product in PRODUCTS for part in Forge.of(product).endorsements()),
        *Forge.of("Genoa", "VLEK").endorsements(),
        *(each.leaf(extensions=each.extensions(hwid=bytes([7]) * 64)) for each in others),
        FORGE.leaf(extensions=FORGE.extensions(tcb={**FORGE.tcb, "ucode": 1})),
        FORGE.crl(this_update=NOW - 400 * DAY, next_update=NOW - 35 * DAY),
    ]
    for offered in ([*beside, *FORGE.endorsements()], [*FORGE.endorsements(), *beside]):
        assert judge(FORGE, endorsements=offered).verdict == "affirming"


def test_what_is_missing_may_be_what_cannot_be_read() -> None:
    offered = [FORGE.ark(), FORGE.intermediate(), FORGE.crl()]
    assert judge(FORGE, endorsements=offered).reason == "snp.endorsement.missing"
    found = judge(FORGE, endorsements=[*offered, foreign_certificate()])
    assert (found.verdict, found.reason) == ("contraindicated", "snp.cert.malformed")


def test_a_fleets_folder_of_certificates() -> None:
    crowd = [FORGE.leaf(extensions=FORGE.extensions(hwid=number.to_bytes(64))) for number in range(1, 101)]
    assert judge(FORGE, endorsements=[*crowd, *FORGE.endorsements()]).verdict == "affirming"
    assert judge(FORGE, endorsements=[*crowd, FORGE.ark(), FORGE.intermediate(), FORGE.crl()]).reason == (
        "snp.cert.chip_id_mismatch"
    )


def test_bits_that_newer_hardware_sets() -> None:
    for product in PRODUCTS:
        forge = replace(Forge.of(product), version=5)
        every_bit = sum(1 << bit for bit in PLATFORM_BITS.values())
        allowed = sum(1 << bit for name, bit in POLICY_BITS.items() if name not in ("debug", "migrate_ma"))
        report = forge.report(platform_info=every_bit | 1 << 40, policy=allowed | 1 << 17)
        found = judge(forge, report=report)
        assert (found.verdict, found.advisories) == ("affirming", ("snp.platform.unknown_bits",))


def test_a_folder_given_as_evidence_and_as_endorsements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.bin").write_bytes(FORGE.report())
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "certs.bin").write_bytes(table(*certificates(FORGE)))
    (tmp_path / "vcek.crl").write_bytes(FORGE.crl())
    (tmp_path / "notes.txt").write_text("not an endorsement")
    (tmp_path / "disk.img").write_bytes(bytes(2 * 1024 * 1024))
    (tmp_path / "expected.toml").write_text(snp_toml() + FORGE.root_toml())
    arguments = ["verify", "--tee", "snp", str(tmp_path), "--endorsements", str(tmp_path)]
    code = main([*arguments, "--at", format_time(NOW), "--expect", str(tmp_path / "expected.toml")])
    captured = capsys.readouterr()
    assert code == 0, captured.out
    assert "disk.img: passed over" in captured.err


def test_show_names_what_came_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.bin").write_bytes(FORGE.report() + table(*certificates(FORGE)))
    assert main(["show", str(tmp_path / "report.bin")]) == 0
    text = capsys.readouterr().out
    assert "form: extended-report" in text
    assert "  SEV-VCEK by SEV-Genoa, until " in text


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("name", [row["case"] for row in recorded.snp_rows() if row["exit"] == [0]])
def test_each_genuine_report_finds_its_own_among_all_that_were_recorded(name: str) -> None:
    """One folder with the certificates of every machine, PEM and DER, and every CRL."""
    folder = recorded.FOLDER / "snp"
    files = [path for path in folder.rglob("*") if path.suffix in (".der", ".pem")]
    case = recorded.case(name.removeprefix("snp/"))
    found = appraise_snp(
        recorded.read(f"{name}/report.bin"),
        endorsements=[path.read_bytes() for path in sorted(files)],
        waive_revocation=case["crl"] is None,
        at=parse_time(case["evaluation_time"]),
    )
    assert (found.verdict, found.reason) == ("affirming", None)
    assert found.identity.hex() == case["expected"]["signed_region_sha256"]


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
def test_a_genuine_extended_report_needs_only_its_crl() -> None:
    name = "veraison-genoa-v3-tsm-8d8bfb3e"
    data = recorded.read(f"snp/{name}/report.bin") + recorded.read(f"snp/{name}/auxblob.bin")
    crl = recorded.read("snp/" + recorded.case(name)["crl"])
    at = parse_time(recorded.case(name)["evaluation_time"])
    assert appraise_snp(data, endorsements=[crl], at=at).verdict == "affirming"
    assert appraise_snp(data, at=at).reason == "snp.crl.missing"
