"""XML and XML-DSig used against the reader: each attack ends in one named refusal, or changes nothing."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.gpu.rim.canonical import MAX_DOCUMENT_BYTES
from attestation.gpu.rim.document import MAX_DEPTH, MAX_ELEMENTS
from attestation.gpu.rim.manifest import stated_version, verify_manifest
from attestation.gpu.tests.judging import (
    DRIVER_MANIFEST,
    GOOD,
    VBIOS_MANIFEST,
    codes,
    collateral,
    judge,
)
from attestation.testing.nvidia_manifest import C14N11, DS, ENVELOPED, ManifestForge
from attestation.testing.nvidia_report import value_of
from schemas.canonical import sha256
from schemas.errors import Refused

DOCUMENT = DRIVER_MANIFEST.document().decode()
EVIL = DRIVER_MANIFEST.resource(7, active=True).replace(value_of(7).hex(), "ab" * 48)
SIGNATURE = DOCUMENT[DOCUMENT.index("<ds:Signature ") : DOCUMENT.index("</SoftwareIdentity>")]
ROOT = DOCUMENT[: DOCUMENT.index(">") + 1]


def text(change: Callable[[str], str]) -> bytes:
    """The good document after a change of its text: nobody signs it again."""
    changed = change(DOCUMENT)
    assert changed != DOCUMENT
    return changed.encode()


def signed(**signature: str) -> bytes:
    """A document whose signature says something else, signed by the manifest signer."""
    return replace(DRIVER_MANIFEST, signature=signature).document()


def put(before: str, what: str) -> bytes:
    return text(lambda good: good.replace(before, what + before, 1))


def swap(old: str, new: str) -> bytes:
    return text(lambda good: good.replace(old, new, 1))


def paying(resources: str) -> bytes:
    return replace(DRIVER_MANIFEST, resources=resources).document()


def tampered(name: str, old: str, new: str) -> bytes:
    """One resource of a signed document says something else."""
    one = DRIVER_MANIFEST.resource(7)
    assert old in one
    del name
    return paying(one.replace(old, new))


SPACES = st.sampled_from(["", "\n    ", ' "quoted" &lt; &gt; '])
HASH = 'xmlns:h="http://www.w3.org/2001/04/xmlenc#sha384"'


def measured(declared: str, prefix: str = "h", inside: str = "") -> str:
    """A measurement that declares its own prefix."""
    return (
        f'<ns0:Resource {declared} type="Measurement" index="8" active="True" alternatives="1" '
        f'{prefix}:Hash0="{value_of(8).hex()}" name="" size="48">{inside}</ns0:Resource>'
    )


TRANSFORM = f'<ds:Transform Algorithm="{{}}"/><ds:Transform Algorithm="{C14N11}"/>'
XPATH = "http://www.w3.org/TR/1999/REC-xpath-19991116"
C14N10 = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
ATTACKS: dict[str, dict[str, bytes]] = {
    "rim_malformed": {
        "doctype": put("<SoftwareIdentity", "<!DOCTYPE SoftwareIdentity>"),
        "entity": put("<SoftwareIdentity", '<!DOCTYPE s [<!ENTITY e "x">]>'),
        "external entity": put("<SoftwareIdentity", '<!DOCTYPE s [<!ENTITY e SYSTEM "file:///etc/passwd">]>'),
        "billion laughs": put("<SoftwareIdentity", '<!DOCTYPE s [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>'),
        "unknown entity": swap("NVIDIA Corporation", "NVIDIA &e; Corporation"),
        "comment in a value": swap("<ns0:Payload>", "<ns0:Payload><!-- x -->"),
        "comment behind the root": text(lambda good: good + "<!-- x -->"),
        "processing instruction": put("<SoftwareIdentity", '<?xml-stylesheet href="x"?>'),
        "cdata": swap("<ns0:Payload>", "<ns0:Payload><![CDATA[ ]]>"),
        "xml attribute": swap('version="1.0">', 'version="1.0" xml:base="x">'),
        "xml id": swap("<ns0:Payload>", '<ns0:Payload xml:id="x">'),
        "another encoding": DOCUMENT.encode("utf-16"),
        "declared encoding": put("<SoftwareIdentity", '<?xml version="1.0" encoding="iso-8859-1"?>'),
        "more than was declared": text(
            lambda good: '<?xml version="1.0" encoding="ascii"?>' + good.replace("NVIDIA", "NVIDIÄ")),
        "two roots": text(lambda good: good + "<a/>"),
        "cut short": DOCUMENT.encode()[:-30],
        "too large": text(lambda good: good + " " * MAX_DOCUMENT_BYTES),
        "too deep": swap("<ns0:Payload>", "<ns0:Payload>" + "<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH),
        "too many elements": swap("<ns0:Payload>", "<ns0:Payload>" + "<a/>" * 2 * MAX_ELEMENTS),
        "relative namespace": swap('xmlns:ns2="http:', 'xmlns:ns2="h'),
        "duplicate attribute": swap('edition="GPU"', 'edition="GPU" edition="GPU"'),
        "not signed": text(lambda good: good.replace(SIGNATURE, "")),
        "another root": swap("SoftwareIdentity xmlns", "SoftwareIdentity2 xmlns").replace(
            b"</SoftwareIdentity>", b"</SoftwareIdentity2>"
        ) + b"<",
        "index twice": paying(DRIVER_MANIFEST.resource(7) * 2),
        "index twice, one inactive": paying(
            DRIVER_MANIFEST.resource(7) + DRIVER_MANIFEST.resource(7, active=False)),
        "index beyond": tampered("index", 'index="7"', 'index="64"'),
        "index with a zero": tampered("index", 'index="7"', 'index="07"'),
        "active without a value": paying(
            '<ns0:Resource type="Measurement" index="7" active="True" alternatives="0" name="" size="48"/>'),
        "alternatives too few": tampered("alternatives", 'alternatives="1"', 'alternatives="0"'),
        "alternatives too many": tampered("alternatives", 'alternatives="1"', 'alternatives="2"'),
        "hash of another number": tampered("hash", "Hash0", "Hash1"),
        "size": tampered("size", 'size="48"', 'size="47"'),
        "not hex": tampered("hash", value_of(7).hex(), "zz" * 48),
        "active in another spelling": tampered("active", 'active="True"', 'active="true"'),
        "a prefix that means something else": paying(measured('xmlns:h="urn:x"')),
        "a prefix that means something else inside": paying(measured('xmlns:ns2="urn:x"', "ns2")),
        "a value that means something else": tampered("hash", "ns2:Hash0", "ns0:Hash0"),
        "a value in no namespace": tampered("hash", "ns2:Hash0", "Hash0"),
        "a measurement of another kind": tampered("tag", "ns0:Resource", "ns0:File"),
        "a measurement in another namespace": paying(
            DRIVER_MANIFEST.resource(7).replace("<ns0:Resource", '<ns0:Resource xmlns:ns0="urn:x"')),
        "a payload inside": paying(f"<ns0:Payload>{DRIVER_MANIFEST.resource(7)}</ns0:Payload>"),
        "another payload": replace(DRIVER_MANIFEST, extra='<x:Payload xmlns:x="urn:x"/>').document(),
        "another type": tampered("type", 'type="Measurement"', 'type="Other"'),
        "a child inside": tampered("child", "/>", "><a/></ns0:Resource>"),
        "two payloads": replace(DRIVER_MANIFEST, extra="<ns0:Payload/>").document(),
        "value not base64": signed(value="!!!!"),
        "value too short": signed(value=base64.b64encode(bytes(95)).decode()),
    },
    "rim_signature_wrapping": {
        "object with a resource": signed(inside=f"<ds:Object>{EVIL}</ds:Object>"),
        "empty object": signed(inside="<ds:Object/>"),
        "two signatures": put("<ds:Signature ", SIGNATURE),
        "signature moved inside": text(
            lambda good: good.replace(SIGNATURE, "").replace("</ns0:Payload>", SIGNATURE + "</ns0:Payload>")
        ),
        "whole document wrapped": text(
            lambda good: f"{ROOT}<ns0:Payload>{EVIL}</ns0:Payload>{good}</SoftwareIdentity>"
        ),
        "reference to an id": signed(uri="#x"),
        "reference to a file": signed(uri="file:///etc/passwd"),
        "reference to the network": signed(uri="http://127.0.0.1:1/x"),
        "second reference": signed(references='<ds:Reference URI="#x"/>'),
        "something else in KeyInfo": signed(key_info="<ds:RetrievalMethod/>"),
    },
    "rim_algorithm_refused": {
        "c14n 1.0": signed(c14n=C14N10),
        "c14n with comments": signed(c14n=C14N11 + "#WithComments"),
        "hmac": signed(method="http://www.w3.org/2001/04/xmldsig-more#hmac-sha384"),
        "hmac truncated": signed(algorithm_child="<ds:HMACOutputLength>1</ds:HMACOutputLength>"),
        "rsa": signed(method="http://www.w3.org/2001/04/xmldsig-more#rsa-sha384"),
        "sha-1": signed(digest_method=DS + "sha1"),
        "xpath": signed(transforms=TRANSFORM.format(XPATH)),
        "xslt": signed(transforms=TRANSFORM.format("http://www.w3.org/TR/1999/REC-xslt-19991116")),
        "one transform": signed(transforms=f'<ds:Transform Algorithm="{ENVELOPED}"/>'),
        "no transform": signed(transforms=""),
        "transform with parameters": signed(
            transforms=f'<ds:Transform Algorithm="{ENVELOPED}"><a/></ds:Transform>'
            f'<ds:Transform Algorithm="{C14N11}"/>'
        ),
    },
    "rim_digest_mismatch": {
        "meta renamed": text(lambda good: good.replace("Meta", "Mega")),
        "value changed": swap(value_of(7).hex(), "ab" * 48),
        "resource added": swap("</ns0:Payload>", EVIL.replace('index="7"', 'index="63"') + "</ns0:Payload>"),
        "payload added": swap("<ns0:Payload>", f"<ns0:Payload>{EVIL}</ns0:Payload><ns0:Payload>"),
        "resource made inactive": swap('active="True"', 'active="False"'),
        "text behind the signature": put("</SoftwareIdentity>", "x"),
        "digest of something else": signed(digest=base64.b64encode(bytes(48)).decode()),
    },
    "rim_signature_invalid": {
        "another key": replace(DRIVER_MANIFEST, key="nobody").document(),
        "another key, and nothing that can be read": replace(
            DRIVER_MANIFEST, key="nobody", resources="<ns0:Other/>").document(),
        "namespace rebound": swap('xmlns:ns2="http', 'xmlns:ns2="urn:http'),
        "value of zeros": signed(value=base64.b64encode(bytes(96)).decode()),
        "signed info changed": swap("<ds:SignedInfo>", "<ds:SignedInfo> "),
        "key of the attacker beside the chain": replace(
            DRIVER_MANIFEST, key="nobody", signature={}).document(),
    },
    "rim_chain_untrusted": {
        "a stranger's, and unreadable": replace(
            DRIVER_MANIFEST, changes={"authority": {"signer": "nobody"}}, resources="<a/>").document(),
        "three certificates": text(lambda good: good.replace(
            good[good.rindex("<ds:X509Certificate>") : good.rindex("</ds:X509Data>")], "")),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "name"), [(code, name) for code, named in ATTACKS.items() for name in named]
)
def test_attack(code: str, name: str) -> None:
    with pytest.raises(Refused) as refused:
        verify_manifest(ATTACKS[code][name])
    assert refused.value.code == f"gpu.{code}"


@pytest.mark.parametrize("name", ATTACKS["rim_signature_wrapping"])
def test_an_attacked_manifest_blesses_no_other_value(name: str) -> None:
    """The device shows the attacker's value; the genuine issue lies beside the attacked one."""
    device = replace(GOOD, measurements={7: bytes.fromhex("ab" * 48)})
    documents = [ATTACKS["rim_signature_wrapping"][name], *collateral(GOOD)]
    found = judge(device, endorsements=documents)
    assert (found.verdict, found.reason) == ("contraindicated", "gpu.measurement_mismatch")


def test_a_key_value_is_passed_over() -> None:
    """It proves nothing, and takes nothing away (xmldsig-core1 4.5)."""
    listed = DOCUMENT[DOCUMENT.index("<ds:X509Data>") : DOCUMENT.index("</ds:KeyInfo>")]
    named = "<ds:KeyValue>attacker</ds:KeyValue>" + listed
    assert verify_manifest(swap(listed, named)).golden == verify_manifest(DOCUMENT.encode()).golden


def test_line_ends_and_references_read_as_they_are_signed() -> None:
    """XML normalises them before anything is digested (XML 1.0 2.11, 3.3.3)."""
    good = verify_manifest(DOCUMENT.encode())
    for same in (DOCUMENT.replace("\n", "\r\n"), DOCUMENT.replace('name="GH100"', 'name="&#71;H100"')):
        assert verify_manifest(same.encode()).golden == good.golden


def test_other_spellings_of_the_same_document_read_alike() -> None:
    """As a tool may write it again: what is signed are its canonical bytes."""
    good = verify_manifest(DOCUMENT.encode())
    quoted = DOCUMENT.replace('colloquialVersion="550.90.07"', "colloquialVersion = '550.90.07'")
    for same in ("<?xml version='1.0' encoding='ASCII'?>\n" + DOCUMENT, quoted):
        assert verify_manifest(same.encode()).golden == good.golden
        assert stated_version(same.encode()) == "550.90.07"


def test_measurements_may_be_written_in_several_ways() -> None:
    """With prefixes of their own, with more values than C14N counts, with white space inside, among text."""
    many = replace(DRIVER_MANIFEST, values={7: [bytes([n]) * 48 for n in range(12)]}).resource(7)
    found = verify_manifest(paying(f"{many} text {measured(HASH, inside=chr(10))}"))
    assert {index: len(values) for index, values in found.golden.items()} == {7: 12, 8: 1}
    assert found.golden[8] == (value_of(8),)
    named = replace(DRIVER_MANIFEST, name="ns0:Payload x", extra="<ns0:Note>ns0:Payload </ns0:Note>")
    assert verify_manifest(named.document()).golden == verify_manifest(DOCUMENT.encode()).golden


@st.composite
def payloads(draw: st.DrawFn) -> tuple[str, dict[int, tuple[bytes, ...]]]:
    """Measurements in any spelling, and what they demand."""
    text, golden = "", {}
    for index in draw(st.lists(st.integers(0, 63), unique=True, max_size=6)):
        size, active = draw(st.integers(1, 64)), draw(st.booleans())
        values = draw(st.lists(st.binary(min_size=size, max_size=size), min_size=active, max_size=12))
        declared, prefix = draw(
            st.sampled_from([("", "ns2"), (HASH, "h"), (HASH.replace(":h", ":ns2"), "ns2")])
        )
        case = draw(st.sampled_from([str.upper, str.lower]))
        hashes = [f'{prefix}:Hash{n}="{case(value.hex())}"' for n, value in enumerate(values)]
        attributes = [
            'type="Measurement"', f'index="{index}"', f'active="{active}"', f'size="{size}"',
            f'alternatives="{len(values)}"', *hashes, *draw(st.sampled_from([[], ['name="a &lt; &gt;"']])),
        ]  # fmt: skip
        opened = " ".join(
            [draw(st.sampled_from(["ns0:Resource", "Resource"])), *draw(st.permutations(attributes))]
        )
        name = opened.split(" ")[0]
        text += f"<{opened} {declared}>{draw(st.sampled_from(['', ' ']))}</{name}>" + draw(SPACES)
        if active:
            golden[index] = tuple(sorted(values))
    return text, golden


@given(payloads())
@settings(max_examples=40)
def test_measurements_in_any_spelling_are_read_as_they_are_meant(
    payload: tuple[str, dict[int, tuple[bytes, ...]]],
) -> None:
    text, golden = payload
    found = verify_manifest(paying(text)).golden
    assert {index: tuple(sorted(values)) for index, values in found.items()} == golden


def test_a_measurement_that_is_not_active_needs_no_value() -> None:
    idle = '<ns0:Resource type="Measurement" index="63" active="False" alternatives="0" name="" size="48"/>'
    found = verify_manifest(paying(DRIVER_MANIFEST.resource(7) + idle))
    assert found.golden == {7: (value_of(7),)}


def issue(**changes: object) -> ManifestForge:
    return replace(DRIVER_MANIFEST, **changes)  # type: ignore[arg-type]


def test_several_issues_of_one_id_are_kept_and_the_matching_one_is_used() -> None:
    other = issue(values={7: [bytes(48)]})
    for issues in ([other, DRIVER_MANIFEST], [DRIVER_MANIFEST, other]):
        found = judge(endorsements=collateral(GOOD, [*issues, VBIOS_MANIFEST]))
        assert found.verdict == "affirming"
        manifests = found.stated()["manifests"]
        assert isinstance(manifests, dict)
        driver = manifests["driver"]
        assert isinstance(driver, dict)
        assert isinstance(driver["issues"], dict)
        assert sorted(map(str, driver["issues"].values())) == ["differs", "matches"]
        assert driver["sha256"] == verify_manifest(DRIVER_MANIFEST.document()).digest


def test_values_of_two_issues_are_never_merged() -> None:
    """Each issue fits half of the device; together they would fit all of it."""
    device = replace(GOOD, measurements={7: bytes(48), 21: bytes(48)})
    first, second = issue(values={7: [bytes(48)]}), issue(values={21: [bytes(48)]})
    found = judge(device, endorsements=collateral(GOOD, [first, second, VBIOS_MANIFEST]))
    assert codes(found) == ["measurement_mismatch"]


def test_alternatives_are_accepted() -> None:
    device = replace(GOOD, measurements={7: bytes(48)})
    several = issue(values={7: [value_of(7), bytes(48)]})
    assert judge(device, endorsements=collateral(GOOD, [several, VBIOS_MANIFEST])).verdict == "affirming"


def test_an_issue_under_its_services_id_must_be_of_that_device() -> None:
    """A service answer says which id it is for; another firmware's document is refused."""
    wrong = issue(version="550.90.08").document()
    found = judge(endorsements=[*collateral(GOOD, [VBIOS_MANIFEST]), service_answer(wrong)])
    assert codes(found)[0] == "rim_version_mismatch"
    answer = service_answer(DRIVER_MANIFEST.document(), digest="00" * 32)
    assert "rim_digest_mismatch" in codes(judge(endorsements=[*collateral(GOOD), answer]))
    answer = service_answer(DRIVER_MANIFEST.document(), digest=sha256(DRIVER_MANIFEST.document()).hex())
    good = collateral(GOOD)
    assert judge(endorsements=[good[0], answer, *good[2:]]).verdict == "affirming"


def service_answer(document: bytes, *, digest: str | None = None) -> bytes:
    """As NVIDIA's manifest service answers for the good device's driver."""
    stated = {"id": "NV_GPU_DRIVER_GH100_550.90.07", "rim": base64.b64encode(document).decode()}
    return json.dumps(stated if digest is None else {**stated, "sha256": digest}).encode()


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_manifest_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """Whatever still verifies states the same golden values."""
    damaged = bytearray(DOCUMENT.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    stated_version(bytes(damaged))
    try:
        found = verify_manifest(bytes(damaged))
    except Refused as error:
        assert error.code.startswith("gpu.rim_")  # noqa: PT017
    else:
        assert found.golden == verify_manifest(DOCUMENT.encode()).golden


@given(st.binary(max_size=300))
def test_random_bytes_are_no_manifest(data: bytes) -> None:
    with pytest.raises(Refused):
        verify_manifest(data)


def test_who_reads_no_manifest_loads_no_xml_library() -> None:
    """A device without one is appraised to its end before lxml is there (gpu.md 15)."""
    program = """
import sys
from datetime import UTC, datetime
import attestation.commands
from attestation.appraise import appraise_nvidia
found = appraise_nvidia(sys.stdin.buffer.read(), at=datetime(2026, 3, 1, tzinfo=UTC))
assert found.reason, found
sys.exit("lxml" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", program], input=GOOD.report(), check=False)
    assert ended.returncode == 0
