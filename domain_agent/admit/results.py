"""The agent's word about its nodes: each appraisal as an EAR in a JWT (RFC 9711), signed by the domain.

It is an assertion of this domain's verifier, for its operator and its auditors. Peers appraise the
raw evidence themselves, and nothing here admits anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from attestation.appraise import NodeAppraisal
from attestation.ear import sign_ear, verify_ear
from schemas.canonical import Json
from schemas.errors import Refused
from schemas.keys import SigningKey
from schemas.papers.manifest import Role
from schemas.papers.trust import FederationTrust

ROLE: Final[Role] = "attestation-verifier"
MIN_LIFETIME_S: Final = 1  # seconds: a result that is over at once still says what was found


@dataclass(frozen=True, slots=True)
class ResultIssuer:
    """Signs what this agent found."""

    domain: str
    key: SigningKey = field(repr=False)
    """Registered in our manifest for `ROLE`."""

    def issue(self, appraisal: NodeAppraisal, now: float) -> str:
        """The result as a JWT, good for as long as the appraisal. now: POSIX seconds."""
        lifetime = max(MIN_LIFETIME_S, int(appraisal.expires_at) - int(now))
        return sign_ear(appraisal.result, self.key, issuer=self.domain, issued_at=int(now), lifetime=lifetime)


def verify_result(token: str, trust: FederationTrust, domain: str, at: datetime) -> Mapping[str, Json]:
    """The claims of a result that `domain` issued. Raises `Refused` or `Unreadable`.

    The key comes from the manifest that the charter pins, never from the token.
    """
    refusal = Refused("ear.signature_invalid", f"not signed by a registered verifier of {domain}")
    for key in trust.keys(domain, ROLE, at):
        try:
            return verify_ear(token, key, issuer=domain, at=int(at.timestamp()))
        except Refused as error:
            if error.code != refusal.code:
                raise
    raise refusal
