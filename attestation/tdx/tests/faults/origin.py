"""Faults in a quote and in the chain behind it."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from cryptography import x509

from attestation.tdx.origin.signature import ORDER
from attestation.tdx.tests.faults.listed import fault, made, turned
from attestation.tdx.tests.judging import GOOD, SGX, TD15, but, judge
from attestation.testing.der import integer, sequence, tlv
from attestation.testing.intel import (
    PCK_CN,
    PLATFORM_CN,
    PROCESSOR_CN,
    ROOT_CN,
    SIGNER_CN,
    Certified,
    crl,
    days,
    member,
    pem,
)

QUOTE = GOOD.quote()
SIGNED = 48 + 584  # header and body of version 4; behind them 4 bytes of length, then the signature
SIGNATURE, KEY, QE = SIGNED + 4, SIGNED + 68, SIGNED + 132 + 6


def quoted(code: str, name: str, quote: bytes) -> None:
    fault(code, name, lambda: judge(GOOD, quote=quote))


def put(at: int, data: bytes) -> bytes:
    return QUOTE[:at] + data + QUOTE[at + len(data) :]


# 1.1 to 1.3: what can be read but must not be so
quoted("qe_vendor_unknown", "another vendor's enclave", turned(QUOTE, 12))
fault("reserved_nonzero", "TEE type in version 3", lambda: judge(SGX, quote=turned(SGX.quote(), 4)))
quoted("trailing_bytes", "text behind the quote", QUOTE + b"\n")
quoted("trailing_bytes", "too many zeros", QUOTE + bytes(16 * 1024 + 1))

# 2: signatures and the binding
quoted("quote_signature_invalid", "body", turned(QUOTE, SIGNED - 1))
quoted("quote_signature_invalid", "header", turned(QUOTE, 40))
quoted("quote_signature_invalid", "r = 0", put(SIGNATURE, bytes(32)))
quoted("quote_signature_invalid", "s = 0", put(SIGNATURE + 32, bytes(32)))
quoted("quote_signature_invalid", "r = n", put(SIGNATURE, ORDER.to_bytes(32)))
quoted("quote_signature_invalid", "s = 2^256 - 1", put(SIGNATURE + 32, b"\xff" * 32))
quoted("att_key_invalid", "not on the curve", turned(QUOTE, KEY))
quoted("att_key_invalid", "the origin", put(KEY, bytes(64)))
quoted(
    "qe_report_binding_invalid",
    "another key",
    put(KEY, TD15.quote()[KEY : KEY + 1] + b"\0" + QUOTE[KEY + 2 : KEY + 64]),
)
quoted("qe_report_signature_invalid", "report", turned(QUOTE, QE))
quoted("qe_report_signature_invalid", "signature", turned(QUOTE, QE + 384))
made("qe_report_binding_invalid", "not the key", qe={"report_data": bytes(64)})
fault(
    "qe_report_binding_invalid", "half that must be zero",
    lambda: judge(but(qe={"report_data": GOOD.quote()[QE + 320 : QE + 352] + bytes(31) + b"\1"})),
)  # fmt: skip
quoted("qe_report_binding_invalid", "authentication data", turned(QUOTE, QE + 384 + 64 + 2))

# 2.1, 2.2: the chain
for name, order in (
    ("no root", (0, 1)), ("no intermediate", (0, 2)), ("no leaf", (1, 2)), ("leaf twice", (0, 0, 1)),
    ("root twice", (0, 1, 2, 2)), ("root for intermediate", (0, 2, 2)),
):  # fmt: skip
    made("pck_chain_malformed", name, order=order)
CHAIN = pem(*GOOD.chain())
for name, data in (
    ("nothing", b""), ("no PEM", b"chain"),
    ("text between", CHAIN.replace(b"\n-----BEGIN", b"\nx\n-----BEGIN", 2)),
    ("not base64", CHAIN.replace(b"M", b"*", 1)),
    ("loose base64", CHAIN.replace(b"\n-----END", b"=\n-----END", 1)),
    ("no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + CHAIN),
    ("not DER", pem(*GOOD.chain()[1:]) + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
):  # fmt: skip
    made("pck_chain_malformed", name, certification=(5, data))
OTHER_ROOT = replace(GOOD.root, serial=99)
fault(
    "root_not_pinned",
    "same name and key, other certificate",
    lambda: judge(GOOD, quote=but(root=OTHER_ROOT).quote()),
)
NAMESAKE = but(
    root=replace(GOOD.root, key="namesake", signer="namesake"), ca=replace(GOOD.ca, signer="namesake")
)
fault("root_not_pinned", "same name, other key", lambda: judge(GOOD, quote=NAMESAKE.quote()))
made("cert_signature_invalid", "leaf", pck=replace(GOOD.pck, signer="other"))
made("cert_signature_invalid", "intermediate", ca=replace(GOOD.ca, signer="other"))
made("cert_signature_invalid", "root", root=replace(GOOD.root, signer="other"))
for field, certified in (("pck", GOOD.pck), ("ca", GOOD.ca), ("root", GOOD.root)):
    ended: dict[str, Any] = {field: replace(certified, not_after=days(-1))}
    future: dict[str, Any] = {field: replace(certified, not_before=days(1))}
    made("cert_expired", field, **ended)
    made("cert_not_yet_valid", field, **future)
ROLES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("leaf as TCB signer", {"pck": replace(GOOD.pck, subject=SIGNER_CN)}),
    ("leaf that is an authority", {"pck": replace(GOOD.pck, authority=True)}),
    ("leaf that may sign certificates", {"pck": replace(GOOD.pck, cert_sign=True)}),
    ("leaf that may sign certificates, too", {"pck": replace(GOOD.pck, any_use=True)}),
    ("leaf with an unknown critical extension", {"pck": replace(GOOD.pck, critical=True)}),
    ("intermediate of another name", {
        "ca": replace(GOOD.ca, subject="Intel SGX PCK CA"),
        "pck": replace(GOOD.pck, issuer="Intel SGX PCK CA"),
    }),
    ("intermediate that is none", {"ca": replace(GOOD.ca, authority=False)}),
    ("intermediate without key usage", {"ca": replace(GOOD.ca, cert_sign=False)}),
    ("intermediate with a platform", {"ca": replace(GOOD.ca, extension=GOOD.sgx_extension())}),
    ("root of another name", {
        "root": replace(GOOD.root, subject="Root", issuer="Root"), "ca": replace(GOOD.ca, issuer="Root"),
    }),
)  # fmt: skip
for name, change in ROLES:
    made("cert_role_invalid", name, **change)

# 2.3: the platform's extension
TCB = [member(f"2.{i + 1}", integer(5)) for i in range(16)]
TCB += [member("2.17", integer(11)), member("2.18", tlv(0x04, bytes(16)))]
MEMBERS = [
    member("1", tlv(0x04, bytes(16))), member("2", sequence(*TCB)), member("3", tlv(0x04, bytes(2))),
    member("4", tlv(0x04, bytes.fromhex("00806f050000"))), member("5", tlv(0x0A, b"\x01")),
]  # fmt: skip
assert judge(but(extension=sequence(*MEMBERS))).verdict == "affirming"


def with_tcb(*tcb: bytes) -> bytes:
    return sequence(MEMBERS[0], member("2", sequence(*tcb)), *MEMBERS[2:])


for name, extension in (
    ("empty", b""), ("no SEQUENCE", tlv(0x31, b"".join(MEMBERS))),
    ("byte behind", sequence(*MEMBERS) + b"\0"),
    *((f"without member {i + 1}", sequence(*MEMBERS[:i], *MEMBERS[i + 1 :])) for i in range(5)),
    ("member twice", sequence(*MEMBERS, MEMBERS[3])),
    ("foreign member", sequence(*MEMBERS, sequence(b"\x06\x03\x2a\x03\x04", tlv(0x04, b"")))),
    ("PPID too long", sequence(member("1", tlv(0x04, bytes(17))), *MEMBERS[1:])),
    ("FMSPC too short", sequence(*MEMBERS[:3], member("4", tlv(0x04, bytes(5))), MEMBERS[4])),
    ("unknown SGX type", sequence(*MEMBERS[:4], member("5", tlv(0x0A, b"\x07")))),
    ("component above 255", with_tcb(member("2.1", integer(256)), *TCB[1:])),
    ("component negative", with_tcb(member("2.1", tlv(0x02, b"\x80")), *TCB[1:])),
    ("component padded", with_tcb(member("2.1", tlv(0x02, b"\x00\x05")), *TCB[1:])),
    ("component no INTEGER", with_tcb(member("2.1", tlv(0x04, b"\x05")), *TCB[1:])),
    ("15 components", with_tcb(*TCB[:15], *TCB[16:])),
    ("component twice", with_tcb(*TCB, TCB[0])),
    ("PCESVN too large", with_tcb(*TCB[:16], member("2.17", integer(65536)), TCB[17])),
    ("length not minimal", b"\x30\x83\x00" + len(b"".join(MEMBERS)).to_bytes(2) + b"".join(MEMBERS)),
    ("a member's length not minimal", sequence(b"\x30\x81" + MEMBERS[0][1:], *MEMBERS[1:])),
    ("a value's length not minimal", sequence(
        sequence(MEMBERS[0][2:14], b"\x04\x81\x10" + bytes(16)), *MEMBERS[1:])),
    ("a length of no octets", sequence(*MEMBERS[:4], b"\x30\x80" + MEMBERS[4][2:] + b"\0\0")),
    ("a member longer than the rest", sequence(*MEMBERS[:4], b"\x30\x7f" + MEMBERS[4][2:])),
    ("a value longer than its member", sequence(
        *MEMBERS[:2], MEMBERS[2][:-3] + b"\x03\0\0", *MEMBERS[3:])),
    ("one octet behind", sequence(*MEMBERS, b"\x30")),
    ("flag 0x01", sequence(*MEMBERS, member("7", sequence(member("7.1", tlv(0x01, b"\x01")))))),
):  # fmt: skip
    made("pck_extension_invalid", name, extension=extension)

# 1.3: certification data without a chain
PLATFORM = b"\5" * 16 + struct.pack("<H", 11)  # CPUSVN, PCESVN
for kind, data in (
    (1, bytes(16) + PLATFORM + bytes(2)), (2, bytes(256) + PLATFORM + bytes(2)),
    (3, bytes(384) + PLATFORM + bytes(2)), (7, b"manifest"), (9, b""),
):  # fmt: skip
    made("cert_data_type_unsupported", f"type {kind}", verdict="none", certification=(kind, data))
WITHOUT_CA = [each for each in GOOD.pieces() if each != GOOD.chain()[1]]
LEAF_ALONE = but(certification=(4, pem(GOOD.chain()[0])))
fault(
    "cert_data_type_unsupported", "type 4 without its CA",
    lambda: judge(LEAF_ALONE, endorsements=WITHOUT_CA), "none",
)  # fmt: skip
STRANGER = but(certification=(1, bytes(16) + b"\5" * 15 + b"\6" + struct.pack("<H", 11) + bytes(2)))
fault(
    "cert_data_type_unsupported", "the chain offered is another platform's",
    lambda: judge(STRANGER, endorsements=[GOOD.collateral(), CHAIN]), "none",
)  # fmt: skip
OTHER_PCE = but(certification=(1, bytes(16) + PLATFORM + b"\1\0"))
fault(
    "cert_data_type_unsupported", "the chain offered is of another PCE",
    lambda: judge(OTHER_PCE, endorsements=[GOOD.collateral(), CHAIN]), "none",
)  # fmt: skip

# Revocation: leaf, intermediate, TCB signer; stale lists still revoke
made("cert_revoked", "leaf", pck_crl=crl(PLATFORM_CN, "ca", (3,)))
made("cert_revoked", "intermediate", root_crl=crl(ROOT_CN, "root", (2,)))
made("cert_revoked", "TCB signer", root_crl=crl(ROOT_CN, "root", (4,)))
made("cert_revoked", "leaf, by a stale list", pck_crl=crl(PLATFORM_CN, "ca", (3,), days(-60), days(-30)))
made("crl_missing", "PCK", verdict="none", pck_crl=None)
made("crl_missing", "root", verdict="none", root_crl=None)
made("crl_expired", "PCK", verdict="none", pck_crl=crl(PLATFORM_CN, "ca", (), days(-60), days(-30)))
made("crl_expired", "root", verdict="none", root_crl=crl(ROOT_CN, "root", (), days(-60), days(-30)))
made("crl_not_yet_valid", "PCK", verdict="none", pck_crl=crl(PLATFORM_CN, "ca", (), days(1), days(30)))
made("crl_not_yet_valid", "root", verdict="none", root_crl=crl(ROOT_CN, "root", (), days(1), days(30)))
made("crl_signature_invalid", "PCK", pck_crl=crl(PLATFORM_CN, "other"))
made("crl_signature_invalid", "root", root_crl=crl(ROOT_CN, "other"))
made("crl_signature_invalid", "PCK's by the root", pck_crl=crl(PLATFORM_CN, "root"))
made("crl_issuer_mismatch", "the other CA's", pck_crl=crl(PROCESSOR_CN, "ca"))
OTHERWISE = b"Simulated Chips", b"Simulated chips"  # the organisation beside the same common name
made("crl_issuer_mismatch", "root, spelt otherwise", root_crl=crl(ROOT_CN, "root").replace(*OTHERWISE))
made("crl_issuer_mismatch", "PCK, spelt otherwise", pck_crl=crl(PLATFORM_CN, "ca").replace(*OTHERWISE))
made("collateral_malformed", "CRL that is none", pck_crl=b"\x30\x03\x02\x01\x01")
made("collateral_malformed", "CRL of a part", pck_crl=crl(PLATFORM_CN, "ca", partial=True))
STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
made(
    "collateral_malformed",
    "entry that is not understood",
    pck_crl=crl(PLATFORM_CN, "ca", (9,), entry=STRANGE),
)
assert Certified(PCK_CN, "pck", PLATFORM_CN, "ca", 3, False, False) == GOOD.pck
