"""Faults of what was offered, of the chain, and of the leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.result import AttestationResult
from attestation.snp.origin import leaf
from attestation.snp.tests.faults.listed import FAULTS, GENOA, MILAN, TURIN, VLEK, Fault, fault, stating
from attestation.snp.tests.judging import demanding, judge
from attestation.testing import der
from attestation.testing.forge import Forge, ec_key, ia5, level, rsa_key


def leaf_with(code: str, forge: Forge, name: str, **changes: Any) -> None:
    """The leaf certificate is another one, signed by the right issuer all the same."""

    def make() -> AttestationResult:
        offered = [forge.ark(), forge.intermediate(), forge.leaf(**changes), forge.crl()]
        return judge(forge, endorsements=offered)

    FAULTS.append(Fault(code, f"{forge.product.name}-{forge.kind}-leaf-{name}", make))


def extended(forge: Forge, *, without: str = "", **values: bytes) -> list[der.Extension]:
    """The leaf's extensions with some left out, or with other values by OID name."""
    oids = {
        **leaf.SPL,
        "version": leaf.STRUCT_VERSION,
        "name": leaf.PRODUCT_NAME,
        "hwid": leaf.HWID,
        "csp": leaf.CSP_ID,
    }
    changed = {oids[name]: value for name, value in values.items()}
    kept = [
        (oid, c, changed.pop(oid, value)) for oid, c, value in forge.extensions() if oid != oids.get(without)
    ]
    return [*kept, *((oid, False, value) for oid, value in changed.items())]


# --- what was offered ----------------------------------------------------------------------------
@fault("snp.endorsement.missing", "none")
def no_certificate_at_all() -> AttestationResult:
    return judge(MILAN, endorsements=[])


@fault("snp.endorsement.missing", "none")
def no_leaf() -> AttestationResult:
    return judge(MILAN, endorsements=[MILAN.ark(), MILAN.intermediate(), MILAN.crl()])


@fault("snp.endorsement.missing", "none")
def no_root() -> AttestationResult:
    return judge(MILAN, endorsements=[MILAN.intermediate(), MILAN.leaf(), MILAN.crl()])


@fault("snp.chain.intermediate_missing", "none")
def no_intermediate() -> AttestationResult:
    return judge(MILAN, endorsements=[MILAN.ark(), MILAN.leaf(), MILAN.crl()])


@fault("snp.endorsement.ambiguous")
def two_keys_for_one_chip() -> AttestationResult:
    other = MILAN.leaf(public_key=ec_key("other").public_key())
    return judge(MILAN, endorsements=[*MILAN.endorsements(), other])


@fault("snp.endorsement.table_malformed")
def a_table_without_an_end() -> AttestationResult:
    return judge(MILAN, endorsements=[bytes.fromhex("63da758de6644564adc5f4b93be8accd") + bytes(8)])


@fault("snp.cert.malformed")
def bytes_that_are_nothing() -> AttestationResult:
    return judge(MILAN, endorsements=[*MILAN.endorsements(), b"\x01\x02"])


@fault("snp.cert.malformed")
def a_certificate_cut_short() -> AttestationResult:
    return judge(MILAN, endorsements=[MILAN.ark(), MILAN.intermediate(), MILAN.leaf()[:-1], MILAN.crl()])


# --- the chain -----------------------------------------------------------------------------------
@fault("snp.chain.root_unpinned")
def a_root_that_is_not_listed() -> AttestationResult:
    return judge(MILAN, expectations=demanding(GENOA))


@fault("snp.chain.root_unpinned")
def a_root_listed_for_another_product() -> AttestationResult:
    toml = MILAN.root_toml().replace('"Milan"', '"Genoa"')
    expectations = demanding(GENOA, tables=toml)
    return judge(MILAN, expectations=expectations)


@fault("snp.chain.root_unpinned")
def a_root_of_the_same_name_and_key() -> AttestationResult:
    twin = MILAN.ark(serial=99)
    return judge(MILAN, endorsements=[twin, MILAN.intermediate(), MILAN.leaf(), MILAN.crl()])


def _chain(
    code: str, name: str, make: Callable[[], tuple[bytes, bytes, bytes]], forge: Forge = MILAN
) -> None:
    def judged() -> AttestationResult:
        ark, intermediate, last = make()
        text = forge.root_toml([ark])
        expectations = (
            demanding(replace_root(forge, text), tables=text) if ark != forge.ark() else demanding(forge)
        )
        return judge(forge, endorsements=[ark, intermediate, last, forge.crl()], expectations=expectations)

    FAULTS.append(Fault(code, f"chain-{name}", judged))


def replace_root(forge: Forge, text: str) -> Forge:
    """Any other forge: its root stands in the file beside the one in `text`."""
    del text
    return GENOA if forge is not GENOA else MILAN


_chain(
    "snp.chain.signature_invalid",
    "ark-signed-by-another",
    lambda: (MILAN.ark(signing_key=rsa_key("other")), MILAN.intermediate(), MILAN.leaf()),
)
_chain(
    "snp.chain.signature_invalid",
    "intermediate-signed-by-another",
    lambda: (MILAN.ark(), MILAN.intermediate(signing_key=rsa_key("other")), MILAN.leaf()),
)
_chain(
    "snp.chain.signature_invalid",
    "leaf-signed-by-another",
    lambda: (MILAN.ark(), MILAN.intermediate(), MILAN.leaf(signing_key=rsa_key("other"))),
)
_chain(
    "snp.chain.name_mismatch",
    "intermediate-of-no-product",
    lambda: (MILAN.ark(), MILAN.intermediate(subject="SEV-Rome"), MILAN.leaf(issuer="SEV-Rome")),
)
_chain(
    "snp.chain.name_mismatch",
    "root-of-another-product",
    lambda: (
        MILAN.ark(subject="ARK-Genoa", issuer="ARK-Genoa"),
        MILAN.intermediate(issuer="ARK-Genoa"),
        MILAN.leaf(),
    ),
)
_chain(
    "snp.chain.name_mismatch",
    "root-not-self-issued",
    lambda: (MILAN.ark(issuer="ARK-Genoa"), MILAN.intermediate(), MILAN.leaf()),
)
_chain(
    "snp.chain.algorithm",
    "intermediate-RSA-2048",
    lambda: (
        MILAN.ark(),
        MILAN.intermediate(public_key=rsa_key("small", 2048).public_key()),
        MILAN.leaf(signing_key=rsa_key("small", 2048)),
    ),
)
_chain(
    "snp.chain.algorithm",
    "leaf-P-256",
    lambda: (
        MILAN.ark(),
        MILAN.intermediate(),
        MILAN.leaf(public_key=ec.generate_private_key(ec.SECP256R1()).public_key()),
    ),
)
_SALT_32 = der.PSS.replace(b"\x02\x01\x30", b"\x02\x01\x20")
_chain(
    "snp.chain.algorithm",
    "leaf-other-salt",
    lambda: (
        MILAN.ark(),
        MILAN.intermediate(),
        MILAN.leaf(inner_algorithm=_SALT_32, outer_algorithm=_SALT_32),
    ),
)
_chain(
    "snp.chain.algorithm",
    "leaf-two-algorithms",
    lambda: (MILAN.ark(), MILAN.intermediate(), MILAN.leaf(inner_algorithm=_SALT_32)),
)

# --- leaf extensions -----------------------------------------------------------------------------
for _each in ("version", "name", "bl", "tee", "snp", "ucode", "hwid"):
    leaf_with(
        "snp.cert.extension_missing", MILAN, f"without-{_each}", extensions=extended(MILAN, without=_each)
    )
leaf_with("snp.cert.extension_missing", TURIN, "without-fmc", extensions=extended(TURIN, without="fmc"))
leaf_with("snp.cert.extension_missing", VLEK, "without-csp", extensions=extended(VLEK, without="csp"))
for _oid in (leaf.HWID, leaf.SPL["ucode"], leaf.PRODUCT_NAME):
    _again = [*MILAN.extensions(), next(e for e in MILAN.extensions() if e[0] == _oid)]
    leaf_with("snp.cert.extension_repeated", MILAN, f"repeats-{_oid[-3:]}", extensions=_again)
for _name, _value in {
    "long-form": b"\x02\x02\x00\x18", "negative": b"\x02\x01\x98", "two-octets": b"\x02\x02\x01\x18",
    "trailing": b"\x02\x01\x18\x00", "octet-string": b"\x04\x01\x18", "empty": b"",
}.items():  # fmt: skip
    leaf_with("snp.cert.malformed", MILAN, f"snp-{_name}", extensions=extended(MILAN, snp=_value))
leaf_with("snp.cert.malformed", MILAN, "name-utf8", extensions=extended(MILAN, name=b"\x0c\x05Milan"))
leaf_with("snp.cert.malformed", MILAN, "name-cut", extensions=extended(MILAN, name=b"\x16\x06Milan"))
leaf_with("snp.cert.malformed", MILAN, "name-control", extensions=extended(MILAN, name=b"\x16\x05Mil\x00n"))
leaf_with(
    "snp.cert.malformed", MILAN, "critical", extensions=[*MILAN.extensions(), ("1.2.3.4", True, b"\5\0")]
)
leaf_with(
    "snp.cert.product_mismatch",
    MILAN,
    "hwid-in-octet-string",
    extensions=extended(MILAN, hwid=der.tlv(4, MILAN.hwid)),
)
leaf_with("snp.cert.product_mismatch", TURIN, "hwid-of-64", extensions=extended(TURIN, hwid=MILAN.hwid))
leaf_with("snp.cert.product_mismatch", MILAN, "fmc", extensions=extended(MILAN, fmc=level(1)))
leaf_with("snp.cert.product_mismatch", MILAN, "Genoa", extensions=extended(MILAN, name=ia5("Genoa")))
leaf_with("snp.cert.product_mismatch", MILAN, "Milano", extensions=extended(MILAN, name=ia5("Milano")))
leaf_with("snp.cert.signer_mismatch", MILAN, "VCEK-with-CSP", extensions=extended(MILAN, csp=ia5("CN=x")))
leaf_with("snp.cert.signer_mismatch", VLEK, "VLEK-with-hwid", extensions=extended(VLEK, hwid=MILAN.hwid))
for _forge in (MILAN, TURIN, VLEK):
    for _part in _forge.tcb:
        _other = {**_forge.tcb, _part: _forge.tcb[_part] + 1}
        leaf_with("snp.cert.tcb_mismatch", _forge, f"{_part}+1", extensions=_forge.extensions(tcb=_other))
for _forge in (MILAN, GENOA, TURIN):
    _other_chip = _forge.hwid[:-1] + b"\1"
    leaf_with(
        "snp.cert.chip_id_mismatch", _forge, "other-chip", extensions=_forge.extensions(hwid=_other_chip)
    )
    stating("snp.cert.chip_id_mismatch", _forge, chip_id=bytes(64))
stating("snp.cert.chip_id_mismatch", TURIN, chip_id=TURIN.hwid.ljust(63, b"\0") + b"\1")
leaf_with("snp.cert.chip_id_mismatch", MILAN, "zero-hwid", extensions=MILAN.extensions(hwid=bytes(64)))


@fault("snp.cert.chip_id_mismatch")
def both_masked() -> AttestationResult:
    last = MILAN.leaf(extensions=MILAN.extensions(hwid=bytes(64)))
    offered = [MILAN.ark(), MILAN.intermediate(), last, MILAN.crl()]
    return judge(MILAN, report=MILAN.report(chip_id=bytes(64)), endorsements=offered)


stating("snp.cert.product_mismatch", MILAN, cpuid=(0x19, 0x11, 1))
stating("snp.cert.product_mismatch", GENOA, cpuid=(0x19, 0x01, 1))


# --- who signed ----------------------------------------------------------------------------------
@fault("snp.cert.signer_mismatch")
def a_vcek_where_the_report_names_a_vlek() -> AttestationResult:
    return judge(MILAN, report=MILAN.report(key_info=1 << 2))


@fault("snp.cert.signer_mismatch")
def a_vlek_where_the_report_names_a_vcek() -> AttestationResult:
    return judge(VLEK, report=VLEK.report(key_info=0))


leaf_with("snp.cert.signer_mismatch", MILAN, "VLEK-name-under-ASK", subject="SEV-VLEK")


@fault("snp.cert.signer_mismatch")
def a_vlek_name_under_the_vcek_intermediate() -> AttestationResult:
    last = MILAN.leaf(subject="SEV-VLEK", extensions=VLEK.extensions())
    offered = [MILAN.ark(), MILAN.intermediate(), last, MILAN.crl()]
    return judge(MILAN, report=MILAN.report(key_info=1 << 2), endorsements=offered)
