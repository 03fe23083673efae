"""Documents are recognised by what they are, and AMD's certificate table by its every rule."""

from __future__ import annotations

import base64
import struct
import uuid
from collections.abc import Callable
from urllib.parse import quote

import pytest

from attestation.endorsements import (
    MAX_CERTIFICATES,
    MAX_TABLE_BYTES,
    TABLE_GUIDS,
    gather,
    read_table,
    recognise,
)
from attestation.pki.x509 import read_certificate, read_crl
from attestation.snp.tests.judging import judge
from attestation.testing.forge import Forge
from attestation.tests import recorded
from schemas.errors import Unreadable

FORGE = Forge.of("Genoa")
VCEK, VLEK, ASK, ARK, CRL, EXTRA = TABLE_GUIDS
UNKNOWN = uuid.UUID("00000000-1111-2222-3333-444444444444").bytes
END = bytes(24)


def table(*blobs: tuple[bytes, bytes], gap: int = 0, end: bytes = END) -> bytes:
    """A table with its blobs behind it, in order."""
    offset = 24 * len(blobs) + len(end) + gap
    header, body = b"", b""
    for guid, blob in blobs:
        header += guid + struct.pack("<II", offset + len(body), len(blob))
        body += blob
    return header + end + bytes(gap) + body


def pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


def test_der_and_pem() -> None:
    leaf, crl = FORGE.leaf(), FORGE.crl()
    assert recognise(leaf).certificates == (leaf,)
    assert recognise(crl).crls == (crl,)
    both = recognise(b"# a comment\n" + pem(leaf) + pem(crl, "X509 CRL"))
    assert (both.certificates, both.crls) == ((leaf,), (crl,))


def test_a_chain_in_der_as_cat_makes_it() -> None:
    chain, crl = (FORGE.leaf(), FORGE.intermediate(), FORGE.ark()), FORGE.crl()
    found = recognise(b"".join((*chain, crl)))
    assert (found.certificates, found.crls) == (chain, (crl,))
    assert judge(FORGE, endorsements=[b"".join((*chain, crl))]).verdict == "affirming"
    for behind in (b"\0", b"\n", b"\x30", b"\x30\x80" + crl, crl[:1]):
        with pytest.raises(Unreadable):
            recognise(chain[0] + behind)


def test_the_headers_of_an_answer_hold_its_chain() -> None:
    """As `curl --dump-header` saves them (PCS API v4: issuer chains are URL-encoded)."""
    chain = (FORGE.intermediate(), FORGE.ark())
    for percent in (quote(b"".join(map(pem, chain))), quote(b"".join(map(pem, chain))).replace("%0A", "%0a")):
        headers = f"HTTP/1.1 200 OK\r\nTCB-Info-Issuer-Chain: {percent}\r\nRequest-ID: 1\r\n\r\n"
        assert recognise(percent.encode()).certificates == chain
        assert recognise(headers.encode()).certificates == chain


def test_collateral_of_other_tees_is_known_as_such() -> None:
    ocsp = bytes.fromhex("30030a0106")
    for data in (b'{"keys":[]}', b"<SoftwareIdentity/>", b" \n[]", ocsp):
        assert recognise(data).foreign == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"\x01", b"0", b"\x30\x03\x02\x01\x05", b"\x30\x82", b"hello", bytes(23), b"\x30\x02\x30\x00",
     b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----",
     b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"],
)  # fmt: skip
def test_anything_else_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        recognise(data)


def test_a_table_gives_its_certificates() -> None:
    ark, ask, leaf = FORGE.ark(), FORGE.intermediate(), FORGE.leaf()
    data = table((ARK, pem(ark)), (ASK, ask), (VCEK, leaf), (EXTRA, b"anything"), (UNKNOWN, b"?"), gap=8)
    assert recognise(data).certificates == (ark, ask, leaf)
    assert judge(FORGE, endorsements=[data, FORGE.crl()]).verdict == "affirming"


@pytest.mark.parametrize("spell", [bytes, lambda der: pem(der, "X509 CRL")], ids=["der", "pem"])
def test_a_table_gives_its_crl(spell: Callable[[bytes], bytes]) -> None:
    """The host believes in it no more than in the rest: what it offers is held as any other CRL is."""
    issued = (ARK, FORGE.ark()), (ASK, FORGE.intermediate()), (VCEK, FORGE.leaf())
    good = table(*issued, (CRL, spell(FORGE.crl())))
    assert recognise(good).crls == (FORGE.crl(),)
    assert judge(FORGE, endorsements=[good]).verdict == "affirming"
    ask = read_certificate(FORGE.intermediate()).serial
    revoking = table(*issued, (CRL, spell(FORGE.crl(revoked=[ask]))))
    assert judge(FORGE, endorsements=[revoking, FORGE.crl()]).reason == "snp.crl.revoked"


def test_an_empty_table_offers_nothing() -> None:
    assert recognise(END).certificates == ()
    assert recognise(table((VCEK, b""))).certificates == ()


def entry(guid: bytes, offset: int, length: int) -> bytes:
    return guid + struct.pack("<II", offset, length)


@pytest.mark.parametrize(
    "data",
    [
        entry(VCEK, 48, 0),
        entry(VCEK, 24, 8) + END + bytes(8),
        entry(VCEK, 0, 8) + END + bytes(8),
        entry(VCEK, 48, 9) + END + bytes(8),
        entry(VCEK, 2**32 - 1, 2**32 - 1) + END + bytes(8),
        entry(VCEK, 72, 8) + entry(ARK, 76, 8) + END + bytes(16),
        entry(VCEK, 72, 8) + entry(VCEK, 80, 8) + END + bytes(16),
        entry(VCEK, 10_000, 0) * 40,
        entry(UNKNOWN, 48, MAX_TABLE_BYTES - 47) + END + bytes(MAX_TABLE_BYTES - 47),
    ],
    ids=["no end", "in header", "at zero", "outside", "huge", "overlap", "repeated", "too many", "too long"],
)
def test_a_table_that_breaks_a_rule(data: bytes) -> None:
    with pytest.raises(Unreadable) as error:
        read_table(data)
    assert error.value.code == "snp.endorsement.table_malformed"


def test_gathering_keeps_one_of_each_and_stops_at_its_limit() -> None:
    assert len(gather((FORGE.leaf(), pem(FORGE.leaf()))).certificates) == 1
    many = tuple(FORGE.leaf(serial=serial) for serial in range(3))
    assert len(gather(many).certificates) == 3
    crowd = b"".join(pem(b"\x30\x02" + n.to_bytes(2)) for n in range(MAX_CERTIFICATES + 1))
    with pytest.raises(Unreadable):
        gather((crowd,))


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
def test_a_genuine_table() -> None:
    data = recorded.read("snp/veraison-genoa-v3-tsm-8d8bfb3e/auxblob.bin")
    names = [read_certificate(der).common_name for der in recognise(data).certificates]
    assert names == ["ARK-Genoa", "SEV-Genoa", "SEV-VCEK"]


def test_a_crl_of_more_entries_than_are_read_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    for entries in (3, 4):
        read_crl.cache_clear()
        monkeypatch.setattr("attestation.pki.x509.MAX_REVOKED", 3)
        data = FORGE.crl(revoked=list(range(5, 5 + entries)))
        if entries == 3:
            assert 7 in read_crl(data).revoked
        else:
            with pytest.raises(Unreadable):
                read_crl(data)
