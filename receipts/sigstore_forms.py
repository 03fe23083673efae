"""The documents that stock Sigstore tools read, by their media types (receipts.md 17.3, 17.4)."""

from __future__ import annotations

from typing import Final

from schemas.canonical import Json

BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
TRUST_TYPE: Final = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
ROOT_TYPE: Final = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
SIGNING_TYPE: Final = "application/vnd.dev.sigstore.signingconfig.v0.2+json"


def trust_configuration(root: Json) -> dict[str, Json]:
    """A trusted root as `--trust-config` takes it; of signing it wants to hear, and nothing is said."""
    return {"mediaType": TRUST_TYPE, "trustedRoot": root, "signingConfig": {"mediaType": SIGNING_TYPE}}
