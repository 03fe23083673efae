"""Model signatures by certificate: what the library signs holds under the pinned root, and nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import model_signing
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from receipts.makers.certificate import MAX_CHAIN, Certified, read_roots, verify_certified
from receipts.makers.tests.pki import (
    AT,
    CODE,
    DAY,
    DIGEST,
    SERVER,
    Holder,
    by_the_library,
    made,
    signer,
    write,
)
from receipts.model_signature import verify_model
from receipts.tests.conftest import code_of
from schemas.canonical import sha256
from schemas.errors import Refused, Unreadable
from schemas.keys import VerifyKey

ROOT = Holder("root", curve=ec.SECP384R1)
BETWEEN = Holder("between", ROOT, path_length=0)
MAKER = signer(BETWEEN)
GOOD = made(MAKER, BETWEEN)


def demanded(*roots: Holder, **changes: Any) -> Certified:
    values: dict[str, Any] = {"at": AT, "name": None, "roots": tuple(each.certificate for each in roots)}
    return Certified(**(values | changes))


UNDER = demanded(ROOT)


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
@pytest.mark.parametrize("rooted", [False, True])
def test_what_the_library_signs_holds(tmp_path: Path, curve: type[ec.EllipticCurve], rooted: bool) -> None:
    """Genuine signatures of model-signing, the root beside the chain or not; its own verifier agrees."""
    maker = signer(BETWEEN, curve=curve)
    data = by_the_library(tmp_path, maker, BETWEEN, *([ROOT] if rooted else []))
    found = verify_certified(data, UNDER)
    assert (found.digest, found.files) == (sha256(data).hex(), frozenset({DIGEST}))
    assert found.signer == f"certificate CN=maker under root {ROOT.digest}"
    assert found.holds(DIGEST) is found
    verifying: Any = model_signing.verifying.Config
    (root,) = write(tmp_path, ROOT)
    theirs = verifying().use_certificate_verifier(certificate_chain=[root])
    theirs.verify(tmp_path / "model.gguf", tmp_path / "model.sig")


def test_our_own_form_is_the_library_s(tmp_path: Path) -> None:
    """So that the refusals below are refusals of what could have been made."""
    theirs = json.loads(by_the_library(tmp_path, MAKER, BETWEEN))
    ours = json.loads(GOOD)
    assert theirs["verificationMaterial"] == ours["verificationMaterial"]
    assert {name: set(each) for name, each in theirs.items() if isinstance(each, dict)} == {
        name: set(each) for name, each in ours.items() if isinstance(each, dict)
    }


def test_the_order_above_the_signer_does_not_matter() -> None:
    upper = Holder("upper", ROOT)
    lower = Holder("lower", upper, extended=(CODE,))
    maker = signer(lower)
    for above in ((lower, upper), (upper, lower), (ROOT, upper, lower)):
        assert verify_certified(made(maker, *above), UNDER).files == {DIGEST}
    swapped = made(upper, maker, lower, by=maker)
    assert code_of(lambda: verify_certified(swapped, UNDER)) == "model.usage"


def test_a_root_pinned_by_digest_may_come_with_the_file() -> None:
    pinned = demanded(digests=frozenset({bytes.fromhex(ROOT.digest)}))
    assert verify_certified(made(MAKER, BETWEEN, ROOT), pinned).files == {DIGEST}
    assert code_of(lambda: verify_certified(GOOD, pinned)) == "model.chain"
    other = demanded(digests=frozenset({bytes(32)}))
    assert code_of(lambda: verify_certified(made(MAKER, BETWEEN, ROOT), other)) == "model.chain"
    assert code_of(lambda: verify_certified(made(MAKER, BETWEEN, ROOT), demanded())) == "model.chain"


@pytest.mark.parametrize("name", ["CN=maker", "maker@lab.example"])
def test_the_maker_may_be_named(name: str) -> None:
    assert verify_certified(GOOD, demanded(ROOT, name=name)).files == {DIGEST}
    for other in ("maker", "CN=maker2", "@lab.example", "CN=between"):
        wanted = demanded(ROOT, name=other)
        assert code_of(lambda wanted=wanted: verify_certified(GOOD, wanted)) == "model.maker"  # type: ignore[misc]


def test_every_certificate_must_be_valid_at_the_stated_moment() -> None:
    """Not at a moment that the file states: a certificate's start is its maker's choice."""
    short = signer(BETWEEN, since=AT, until=AT + DAY)
    data = made(short, BETWEEN)
    for at in (AT, AT + DAY):
        assert verify_certified(data, demanded(ROOT, at=at)).files == {DIGEST}
    for at in (AT - timedelta(seconds=1), AT + DAY + timedelta(seconds=1)):
        when = demanded(ROOT, at=at)
        assert code_of(lambda when=when: verify_certified(data, when)) == "model.chain"  # type: ignore[misc]
    gone = Holder("gone", ROOT, until=AT - DAY)
    assert code_of(lambda: verify_certified(made(signer(gone), gone), UNDER)) == "model.chain"
    old = Holder("old", until=AT - DAY)
    assert code_of(lambda: verify_certified(made(signer(old)), demanded(old))) == "model.chain"


STRANGER = Holder("root", curve=ec.SECP384R1)
"""Another root of the same name."""
NO_CA = Holder("no ca", ROOT, ca=False)
NO_SIGN = Holder("no sign", ROOT, usage=("digital_signature",))
NO_USAGE = Holder("no usage", ROOT, usage=None)
UNSAID = Holder("unsaid", ROOT, constraints=False)
DEEP = Holder("deep", BETWEEN)
FOR_SERVERS = Holder("for servers", ROOT, extended=(SERVER,))
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
NARROW = Holder("narrow", ROOT, more=(
    (x509.NameConstraints([x509.RFC822Name("other.example")], None), True),))  # fmt: skip

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "another root": (lambda: made(signer(STRANGER), STRANGER), "model.chain"),
    "its root brought along": (lambda: made(MAKER, Holder("between", STRANGER), STRANGER), "model.chain"),
    "no way up": (lambda: made(MAKER), "model.chain"),
    "an issuer that is no CA": (lambda: made(signer(NO_CA), NO_CA), "model.chain"),
    "an issuer that does not say so": (lambda: made(signer(UNSAID), UNSAID), "model.chain"),
    "an issuer that may not certify": (lambda: made(signer(NO_SIGN), NO_SIGN), "model.chain"),
    "an issuer without usages": (lambda: made(signer(NO_USAGE), NO_USAGE), "model.chain"),
    "a maker as issuer": (lambda: made(signer(MAKER), MAKER, BETWEEN), "model.chain"),
    "a path too long": (lambda: made(signer(DEEP), DEEP, BETWEEN), "model.chain"),
    "an issuer for servers": (lambda: made(signer(FOR_SERVERS), FOR_SERVERS), "model.usage"),
    "names that the issuer may not give": (lambda: made(signer(NARROW), NARROW), "model.chain"),
    "a CA as signer": (lambda: made(BETWEEN), "model.usage"),
    "the root as signer": (lambda: made(ROOT), "model.usage"),
    "for servers": (lambda: made(signer(BETWEEN, extended=(SERVER,)), BETWEEN), "model.usage"),
    "for encryption": (lambda: made(signer(BETWEEN, usage=("key_encipherment",)), BETWEEN), "model.usage"),
    "for nothing": (lambda: made(signer(BETWEEN, usage=None, extended=None), BETWEEN), "model.usage"),
    "an unknown critical word": (lambda: made(signer(BETWEEN, more=((UNKNOWN, True),)), BETWEEN),
                                 "model.chain"),
    "another key's signature": (lambda: made(MAKER, BETWEEN, by=signer(BETWEEN)),
                                "envelope.signature_invalid"),
    "another hash": (lambda: made(MAKER, BETWEEN, hashing=hashes.SHA384()), "envelope.signature_invalid"),
    "another curve": (lambda: made(signer(BETWEEN, curve=ec.SECP256K1), BETWEEN), "model.key"),
    "too many": (lambda: made(MAKER, *[BETWEEN] * MAX_CHAIN), "model.chain"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "code"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_hold(make: Callable[[], bytes], code: str) -> None:
    data = make()
    assert code_of(lambda: verify_certified(data, UNDER)) == code


@pytest.mark.parametrize("changes", [{"usage": None}, {"extended": None}, {"extended": (SERVER, CODE)}])
def test_one_stated_use_is_enough(changes: dict[str, Any]) -> None:
    assert verify_certified(made(signer(BETWEEN, **changes), BETWEEN), UNDER).files == {DIGEST}


def test_the_two_forms_are_never_mixed() -> None:
    """A file by certificate is none by key, one with both is neither, and neither reads the other."""
    own = VerifyKey.of(MAKER.key.public_key())
    assert code_of(lambda: verify_model(GOOD, [own])) == "model.bundle"
    outer = json.loads(GOOD)
    brought: dict[str, Any] = outer["verificationMaterial"]
    materials: list[dict[str, Any]] = [
        brought | {"publicKey": {"hint": ""}},
        {"publicKey": {"hint": ""}, "tlogEntries": []},
        {"certificate": brought["x509CertificateChain"]["certificates"][0]},
        {"tlogEntries": []},
    ]
    for material in materials:
        both = json.dumps(outer | {"verificationMaterial": material}).encode()
        assert code_of(lambda both=both: verify_certified(both, UNDER)) == "model.bundle"  # type: ignore[misc]
    both = json.dumps(outer | {"verificationMaterial": brought | {"publicKey": {"hint": ""}}}).encode()
    assert code_of(lambda: verify_model(both, [own])) == "model.bundle"


def changed(change: Callable[[Any], Any]) -> bytes:
    outer = json.loads(GOOD)
    change(outer)
    return json.dumps(outer).encode()


def chain(outer: Any) -> Any:
    return outer["verificationMaterial"]["x509CertificateChain"]["certificates"]


UNREADABLE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no certificates": (lambda outer: chain(outer).clear(), "model.chain"),
    "no certificate": (lambda outer: chain(outer).__setitem__(0, {"rawBytes": "AAAA"}), "der.length"),
    "more than its bytes": (lambda outer: chain(outer)[0].update(key="x"), "model.chain"),
    "junk behind": (
        lambda outer: chain(outer)[0].update(rawBytes=base64.b64encode(MAKER.der + b"\0").decode()),
        "der.length",
    ),
    "two signatures": (
        lambda outer: outer["dsseEnvelope"].update(signatures=outer["dsseEnvelope"]["signatures"] * 2),
        "envelope.payload_type",
    ),
    "another payload type": (
        lambda outer: outer["dsseEnvelope"].update(payloadType="text/plain"), "envelope.payload_type",
    ),
    "an older form": (
        lambda outer: outer.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"),
        "model.media_type",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "code"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read(change: Callable[[Any], Any], code: str) -> None:
    data = changed(change)
    assert code_of(lambda: verify_certified(data, UNDER)) == code


def test_what_is_no_root() -> None:
    assert len(read_roots(ROOT.pem + BETWEEN.pem)) == 2
    assert code_of(lambda: read_roots(MAKER.pem)) == "model.root_ca"
    assert code_of(lambda: read_roots(ROOT.pem + MAKER.pem)) == "model.root_ca"
    for data in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ROOT.pem * 17):
        assert code_of(lambda data=data: read_roots(data)) == "model.roots"  # type: ignore[misc]


def test_a_pinned_issuer_is_a_root() -> None:
    """What is pinned is believed; nobody above it is asked."""
    found = verify_certified(made(MAKER), demanded(BETWEEN))
    assert found.signer.endswith(f"under root {BETWEEN.digest}")


@given(st.integers(0, 8191), st.binary(min_size=1, max_size=2), st.booleans())
def test_any_touch_is_refused_or_changes_nothing_that_was_signed(at: int, junk: bytes, inner: bool) -> None:
    """In the file, or in a certificate of it."""
    if inner:
        der = MAKER.der
        cut = at % len(der)
        touched = der[:cut] + junk + der[cut + 1 :]
        data = changed(lambda outer: chain(outer)[0].update(rawBytes=base64.b64encode(touched).decode()))
    else:
        cut = at % len(GOOD)
        data = GOOD[:cut] + junk + GOOD[cut + 1 :]
    with suppress(Unreadable, Refused):
        assert verify_certified(data, demanded(ROOT, name="CN=maker")).files == {DIGEST}
