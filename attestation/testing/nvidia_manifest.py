"""Reference manifests of a made-up vendor: good ones, and every shape that XML-DSig could be abused in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from lxml import etree

from attestation.testing.nvidia import ISSUES, Certified, sign
from attestation.testing.nvidia_report import value_of

ROOT_CN: Final = "NVIDIA CoRIM signing Root CA"
DRIVER_INDICES: Final = (7, *range(21, 41))
VBIOS_INDICES: Final = (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12)
SWITCH_INDICES: Final = tuple(range(31))
SIGNED_FROM: Final = datetime(2025, 6, 1, tzinfo=UTC)
SIGNED_UNTIL: Final = datetime(2027, 6, 1, tzinfo=UTC)

SWID: Final = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
DS: Final = "http://www.w3.org/2000/09/xmldsig#"
C14N11: Final = "http://www.w3.org/2006/12/xml-c14n11"
ENVELOPED: Final = DS + "enveloped-signature"
ECDSA: Final = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#sha384"


@dataclass(frozen=True)
class ManifestForge:
    """One signed manifest, good until a field is replaced."""

    version: str = "550.90.07"
    product: str = "GH100"
    name: str | None = None
    edition: str = "GPU"
    indices: Sequence[int] = DRIVER_INDICES
    count: int = 64
    values: Mapping[int, Sequence[bytes]] = field(default_factory=dict)
    """Index → accepted values, where not the good one alone."""
    maker: str = "5703"
    resources: str | None = None
    """In place of the payload's content."""
    extra: str = ""
    """Signed content behind the payload."""
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`signer`, `authority`, `chip`, `root` → what its certificate says differently."""
    key: str = "manifest signer"
    """Which key signs."""
    signature: Mapping[str, str] = field(default_factory=dict)
    """Parts of the signature element that differ (see `_signature`)."""

    def certified(self) -> dict[str, Certified]:
        chip = f"NVIDIA Reference Value {self.product} CA"
        middle = f"NVIDIA Reference Value L3 {self.product} 001"
        good = {
            "signer": Certified("HCC RIM L4 Signer", "manifest signer", middle, middle, 11, False,
                                ("digital_signature",), not_before=SIGNED_FROM, not_after=SIGNED_UNTIL),
            "authority": Certified(middle, middle, chip, chip, 12, True, ISSUES, path_length=0),
            "chip": Certified(chip, chip, ROOT_CN, "manifest root", 13, True, ISSUES),
            "root": Certified(ROOT_CN, "manifest root", ROOT_CN, "manifest root", 14, True, ISSUES),
        }  # fmt: skip
        return {
            name: Certified(**{**vars(each), **self.changes.get(name, {})}) for name, each in good.items()
        }

    def resource(self, index: int, *, active: bool | None = None) -> str:
        values = self.values.get(index, [value_of(index)])
        on = index in self.indices if active is None else active
        hashes = " ".join(f'ns2:Hash{n}="{value.hex()}"' for n, value in enumerate(values))
        return (
            f'<ns0:Resource type="Measurement" index="{index}" active="{on}" alternatives="{len(values)}" '
            f'{hashes} name="Measurement_{index}" size="48"/>'
        )

    def unsigned(self) -> str:
        """The document with `{signature}` where its signature belongs."""
        resources = self.resources
        if resources is None:
            resources = "\n".join(self.resource(index) for index in range(self.count))
        return (
            f'<SoftwareIdentity xmlns="{SWID}" xmlns:ns0="{SWID}" '
            'xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" corpus="false" '
            f'name="{self.name or self.product}" tagId="{"ab" * 48}" version="1.0">\n'
            '<ns0:Entity name="NVIDIA Corporation" role="softwareCreator tagCreator"/>\n'
            '<ns0:Meta xmlns:ns1="https://trustedcomputinggroup.org/resource/'
            'tcg-reference-integrity-manifest-rim-information-model/" '
            f'colloquialVersion="{self.version}" edition="{self.edition}" product="{self.product}" '
            f'ns1:FirmwareManufacturerId="{self.maker}"/>\n'
            f"<ns0:Payload>{resources}</ns0:Payload>{self.extra}\n"
            "{signature}</SoftwareIdentity>\n"
        )

    def document(self) -> bytes:
        """The signed document."""
        return _document(self.unsigned(), self.key, tuple(c.der() for c in self.certified().values()),
                         tuple(sorted(self.signature.items())))  # fmt: skip


@lru_cache(maxsize=512)
def _document(
    unsigned: str, key: str, certificates: tuple[bytes, ...], changes: tuple[tuple[str, str], ...]
) -> bytes:
    return unsigned.replace("{signature}", _signature(unsigned, key, certificates, dict(changes))).encode()


def _signature(unsigned: str, key: str, certificates: tuple[bytes, ...], changes: Mapping[str, str]) -> str:
    """The element. changes: `uri`, `c14n`, `method`, `digest_method`, `transforms`, `digest`, `value`,
    `references` (a second one), `key_info` (in place of it), `inside` (behind KeyInfo), `algorithm_child`.
    """
    canonical = _canonical(unsigned.replace("{signature}", ""))
    digest = changes.get("digest") or base64.b64encode(hashlib.sha384(canonical).digest()).decode()
    transforms = changes.get(
        "transforms", f'<ds:Transform Algorithm="{ENVELOPED}"/><ds:Transform Algorithm="{C14N11}"/>'
    )
    reference = (
        f'<ds:Reference URI="{changes.get("uri", "")}"><ds:Transforms>{transforms}</ds:Transforms>'
        f'<ds:DigestMethod Algorithm="{changes.get("digest_method", SHA384)}"/>'
        f"<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>"
    )
    info = (
        f'<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{changes.get("c14n", C14N11)}"/>'
        f'<ds:SignatureMethod Algorithm="{changes.get("method", ECDSA)}">{changes.get("algorithm_child", "")}'
        f"</ds:SignatureMethod>{reference}{changes.get('references', '')}</ds:SignedInfo>"
    )
    whole = unsigned.replace("{signature}", f'<ds:Signature xmlns:ds="{DS}">{info}</ds:Signature>')
    root = etree.fromstring(whole.encode())
    signed = etree.tostring(root.find(f".//{{{DS}}}SignedInfo"), method="c14n")
    value = changes.get("value") or base64.b64encode(sign(key, signed)).decode()
    listed = "".join(
        f"<ds:X509Certificate>{base64.b64encode(each).decode()}</ds:X509Certificate>" for each in certificates
    )
    key_info = changes.get("key_info", f"<ds:X509Data>{listed}</ds:X509Data>")
    return (
        f'<ds:Signature xmlns:ds="{DS}">{info}<ds:SignatureValue>{value}</ds:SignatureValue>'
        f"<ds:KeyInfo>{key_info}</ds:KeyInfo>{changes.get('inside', '')}</ds:Signature>"
    )


def _canonical(text: str) -> bytes:
    canonical: bytes = etree.tostring(etree.fromstring(text.encode()), method="c14n", with_comments=False)
    return canonical


def manifests_for(chip: str, driver: str, vbios: str) -> list[bytes]:
    """The good manifests of a device."""
    if chip == "LS_10":
        return [
            ManifestForge(
                version=vbios, product="LS10", edition="SWITCH", indices=SWITCH_INDICES, count=31
            ).document()
        ]
    product = {"GB20X": "GB202"}.get(chip, chip)
    return [
        ManifestForge(version=driver, product=product).document(),
        ManifestForge(version=vbios.upper(), product=product, indices=VBIOS_INDICES).document(),
    ]
