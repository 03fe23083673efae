"""Cutting certificates by bytes: exactly what stands there, or nothing."""

from __future__ import annotations

import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.pki import der
from attestation.pki.x509 import _extension, _short, extensions_of, read_certificate
from attestation.testing import der as forged
from attestation.testing.forge import Forge
from schemas.errors import Unreadable

FORGE = Forge.of("Turin")


def test_what_is_cut_out_is_what_the_library_reads() -> None:
    for data in (FORGE.ark(), FORGE.intermediate()):
        mine, library = read_certificate(data), x509.load_der_x509_certificate(data)
        assert mine.signed.tbs == library.tbs_certificate_bytes
        assert mine.signed.signature == library.signature
        assert mine.serial == library.serial_number
        assert mine.subject == library.subject.public_bytes()
        assert mine.issuer == library.issuer.public_bytes()
        assert mine.spki == library.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_leaf_with_serial_0_is_read_without_a_warning() -> None:
    """The library warns about serial 0 and will refuse it one day: it is never shown one."""
    leaf = read_certificate(FORGE.leaf())
    assert (leaf.serial, leaf.common_name) == (0, "SEV-VCEK")
    assert leaf.der == FORGE.leaf()
    assert len(extensions_of(leaf)) == len(FORGE.extensions())


@pytest.mark.parametrize("serial", [1, 127, 128, 2**64])
def test_any_serial(serial: int) -> None:
    assert read_certificate(FORGE.intermediate(serial=serial)).serial == serial


@pytest.mark.parametrize("content", [b"", b"\x80", b"\xff\xff", b"\xff\x80"])
def test_a_serial_that_is_no_count_is_unreadable(content: bytes) -> None:
    """Also where nobody made the library's warning an error."""
    certificate = FORGE.intermediate(serial=1)
    body, *rest = der.children(certificate)
    version, _, *fields = der.children(body)
    changed = forged.sequence(forged.sequence(version, forged.tlv(2, content), *fields), *rest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Unreadable):
            read_certificate(changed)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x30", b"\x30\x01", b"\x30\x80\x00\x00", b"\x30\x84\x00\x00\x00\x00", b"\x30\x02\x05",
     b"\x30\x03\x05\x02\x00", b"\x30\x00\x00", b"\x30\x01\x05"],
)  # fmt: skip
def test_lengths_must_fit(data: bytes) -> None:
    with pytest.raises(Unreadable):
        der.children(data)


def test_children_are_counted() -> None:
    assert len(der.children(forged.sequence(*[b"\5\0"] * der.MAX_ELEMENTS))) == der.MAX_ELEMENTS
    with pytest.raises(Unreadable):
        der.children(forged.sequence(*[b"\5\0"] * (der.MAX_ELEMENTS + 1)))


def _name(*pairs: bytes) -> bytes:
    return forged.sequence(*(forged.tlv(0x31, pair) for pair in pairs))


def _cn(text: bytes, tag: int = 0x0C) -> bytes:
    return forged.sequence(der.COMMON_NAME, forged.tlv(tag, text))


def test_a_common_name() -> None:
    assert der.common_name(forged.name("SEV-Milan")) == "SEV-Milan"
    assert der.common_name(_name(_cn(b"A", 0x13))) == "A"


@pytest.mark.parametrize(
    "name",
    [
        _name(),
        _name(_cn(b"A"), _cn(b"B")),
        _name(_cn(b"\xff")),
        _name(_cn(b"A", 0x1E)),
        _name(_cn(b"A" * 65)),
        _name(forged.sequence(der.encode_oid("2.5.4.10"), forged.tlv(0x0C, der.COMMON_NAME + b"\x0c\x01A"))),
        forged.sequence(forged.tlv(0x31, _cn(b"A") + _cn(b"A")[:-1])),
        forged.sequence(forged.tlv(0x31, _cn(b"A") + b"\5\0")),
    ],
    ids=["none", "two", "not utf-8", "bmp", "long", "hidden in another", "two in a set", "more in a set"],
)
def test_a_name_without_exactly_one_plain_common_name(name: bytes) -> None:
    with pytest.raises(Unreadable):
        der.common_name(name)


def test_oids_are_spelt_as_the_library_spells_them() -> None:
    for dotted in ("2.5.4.3", "1.3.6.1.4.1.3704.1.3.8", "1.2.840.113549.1.1.10"):
        encoded = der.encode_oid(dotted)
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(dotted), b"")
        assert extension.oid.dotted_string == dotted
        assert forged.tlv(0x06, encoded[2:]) == encoded
    assert der.encode_oid("2.5.4.3") == der.COMMON_NAME
    assert der.encode_oid("1.3.6.1.4.1.3704.1").hex() == "06082b060104019c7801"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    for read in (der.children, der.split, der.common_name):
        try:
            read(data)
        except Unreadable:
            continue


def _element(oid: bytes, critical: bytes, value: bytes) -> bytes:
    inside = b"\x06" + bytes((len(oid),)) + oid + critical + b"\x04" + bytes((len(value),)) + value
    return b"\x30" + bytes((len(inside),)) + inside


@given(
    st.binary(min_size=1, max_size=9), st.sampled_from([b"", b"\x01\x01\xff", b"\x01\x01\x00", b"\x05\x00"]),
    st.binary(max_size=90), st.integers(0, 200), st.integers(0, 8),
)  # fmt: skip
def test_the_short_way_to_an_extension_finds_what_the_long_one_does(
    oid: bytes, critical: bytes, value: bytes, place: int, bit: int
) -> None:
    """Also where one bit is turned: it never finds what the strict way refuses."""
    data = bytearray(_element(oid, critical, value))
    data[place % len(data)] ^= (1 << bit) & 0xFF  # the eighth turns nothing
    found = _short(bytes(data))
    if found is not None:
        assert found == _extension(bytes(data))
