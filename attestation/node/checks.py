"""What `NodeEvidence` adds to a CPU report: the binding, the challenge, the engine, the enrolment.

Every value here is inside the 64 bytes that the hardware signed (schemas/proof/binding.py), so a failing
`check_report_data` voids all the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from attestation.expected import NodeExpectations
from attestation.result import Check, compared, failed, not_evaluated, passed, undecided
from schemas.canonical import sha256
from schemas.errors import Refused
from schemas.proof.binding import verify_challenge
from schemas.proof.evidence import ModelFile, NodeConfiguration, NodeEvidence

CLOCK_TOLERANCE: Final = 30  # seconds: replicas of one broker issue challenges on several clocks
SEAL_KEY_BYTES: Final = 1216  # X-Wing public key
_SESSION: Final = "session.md"
_LOOPBACK: Final = re.compile(
    r"(unix:|/)[\x21-\x7e]+|(https?://)?(127(\.\d{1,3}){3}|localhost|\[::1\])(:\d{1,5})?(/[\x21-\x7e]*)?"
)


@dataclass(frozen=True, slots=True)
class IssuedChallenge:
    """A challenge that *we* issued."""

    domain: str
    """Our own name: it is inside the leaf, so nobody answers with another's challenge."""
    value: bytes
    """32 random bytes."""
    issued_at: float
    """POSIX seconds on our clock."""


def platform_digest(chip_id: bytes) -> bytes:
    """The name under which a domain enrols a machine (32 bytes). `chip_id`: 64 bytes as in the report."""
    return sha256(b"comity platform v1\0", chip_id)


def check_expectations(wanted: NodeExpectations | None) -> Check:
    """Without [node] nothing about the engine was demanded: that is not enough to affirm a node."""
    name, code = "node.expectations", "node.expectations_unset"
    if wanted is None:
        return undecided(name, code, "no [node] in the expectations", "a [node] table", "DESIGN 14")
    return passed(name, "stated", "a [node] table", "DESIGN 14")


def check_report_data(stated: NodeEvidence, report_data: bytes | None) -> Check:
    """The hardware vouches for exactly what is stated (session.md 1)."""
    name, clause, expected = "node.report_data", f"{_SESSION} 1", stated.expected_report_data()
    if report_data is None:
        return not_evaluated(name, "no report was read", clause)
    holds = report_data == expected
    return compared(name, "node.report_data.mismatch", holds, report_data.hex(), expected.hex(), clause)


def check_seal_key(stated: NodeEvidence) -> Check:
    """An X-Wing public key has one length (draft-connolly-cfrg-xwing-kem 5.2)."""
    return compared(
        "node.seal_key", "node.seal_key.malformed", len(stated.seal_key) == SEAL_KEY_BYTES,
        f"{len(stated.seal_key)} bytes", f"{SEAL_KEY_BYTES} bytes", f"{_SESSION} 1",
    )  # fmt: skip


def check_challenge(
    stated: NodeEvidence, challenges: Sequence[IssuedChallenge], wanted: NodeExpectations | None, at: float
) -> tuple[Check, float | None]:
    """The quote answers a challenge of ours, recently enough on our clock (session.md 2).

    Returns the check and the issue time of the newest challenge that is answered.
    """
    name, clause = "node.challenge", f"{_SESSION} 2"
    newest_first = sorted(challenges, key=lambda each: each.issued_at, reverse=True)
    newest = next((each.issued_at for each in newest_first if _answers(stated, each, at)), None)
    if newest is None:
        seen = f"{len(challenges)} of ours, none answered"
        return undecided(name, "node.challenge_missing", seen, "an answer to our challenge", clause), None
    limit = wanted.max_attestation_age if wanted else 0
    age = max(0.0, at - newest)
    seen, required = f"{age:.0f} s old", f"at most {limit} s"
    if wanted is not None and age > limit:
        return undecided(name, "node.challenge_stale", seen, required, clause), newest
    return passed(name, seen, required, clause), newest


def _answers(stated: NodeEvidence, challenge: IssuedChallenge, at: float) -> bool:
    """A challenge that was issued after the moment of judgement cannot have been answered before it."""
    if challenge.issued_at > at + CLOCK_TOLERANCE:
        return False
    return _is_under(stated, challenge.domain, challenge.value)


def _is_under(stated: NodeEvidence, domain: str, challenge: bytes) -> bool:
    try:
        path = stated.challenge_path(domain)
        verify_challenge(domain, challenge, path, bytes.fromhex(stated.challenge_root))
    except Refused:
        return False
    return True


def check_any_challenge(stated: NodeEvidence, challenge: bytes | None) -> Check:
    """For someone who holds a challenge but is no member: any domain's leaf may be the one."""
    name, clause = "node.challenge", f"{_SESSION} 2"
    if challenge is None:
        return not_evaluated(name, "no challenge was given: freshness is not judged", clause)
    if any(_is_under(stated, proof.domain, challenge) for proof in stated.challenges):
        return passed(name, "answered", "an answer to this challenge", clause)
    return undecided(name, "node.challenge_missing", "not answered", "an answer to this challenge", clause)


def check_configuration(stated: NodeConfiguration, wanted: NodeExpectations | None) -> list[Check]:
    """Engine, models and logging are what we expect (session.md 4)."""
    names = ("node.engine", "node.engine_digest", "node.models", "node.prompt_logging")
    clause = f"{_SESSION} 4"
    if wanted is None:
        return [not_evaluated(name, "no [node] expectations", clause) for name in names]
    return [
        _engine(stated, wanted, clause),
        _engine_digest(stated, wanted, clause),
        _models(stated, wanted, clause),
        compared("node.prompt_logging", "node.prompt_logging", not stated.prompt_logging,
                 "on" if stated.prompt_logging else "off", "off", clause),
    ]  # fmt: skip


def runs_inside(stated: NodeConfiguration) -> bool:
    """Whether the engine is said to run in the TEE, and at an address that only the TEE reaches."""
    return stated.engine == "in-tee" and _LOOPBACK.fullmatch(stated.engine_address) is not None


def _engine(stated: NodeConfiguration, wanted: NodeExpectations, clause: str) -> Check:
    seen = f"{stated.engine} at {stated.engine_address}"
    if wanted.engine == "any":
        return not_evaluated("node.engine", f"waived: {seen}", clause)
    return compared(
        "node.engine", "node.engine_outside_tee", runs_inside(stated), seen,
        "in-tee, on loopback or a Unix socket", clause,
    )  # fmt: skip


def _engine_digest(stated: NodeConfiguration, wanted: NodeExpectations, clause: str) -> Check:
    if wanted.engine_digests is None:
        return not_evaluated("node.engine_digest", f"waived: {stated.engine_digest}", clause)
    if wanted.engine == "any" and stated.engine == "outside-tee":
        # What runs elsewhere nobody hashed; that it runs elsewhere is a claim, denied for all but public.
        return not_evaluated("node.engine_digest", "an engine outside the TEE has none", clause)
    return compared(
        "node.engine_digest", "node.engine_not_listed", stated.engine_digest in wanted.engine_digests,
        stated.engine_digest, f"one of {len(wanted.engine_digests)} listed", clause,
    )  # fmt: skip


def _models(stated: NodeConfiguration, wanted: NodeExpectations, clause: str) -> Check:
    name = "node.models"
    capabilities = [model.capability for model in stated.models]
    if len(set(capabilities)) != len(capabilities):
        return failed(name, "node.model_repeated", "a capability twice", "one model each", clause)
    if wanted.models is None and wanted.published_models is None:
        return not_evaluated(name, "waived", clause)
    for model in stated.models:
        if not _model_allowed(model, wanted):
            seen = f"{model.capability} {model.digest}"
            return failed(name, "node.model_not_listed", seen, "listed digests", clause)
    return passed(name, f"{len(capabilities)} models", "listed digests", clause)


def _model_allowed(model: ModelFile, wanted: NodeExpectations) -> bool:
    """Listed by us for this capability (or waived), and published where a charter bounds us."""
    if wanted.published_models is not None and model.digest not in wanted.published_models:
        return False
    if wanted.models is None:
        return True
    allowed = wanted.models.get(model.capability, frozenset())
    return allowed is None or model.digest in allowed


def check_enrolment(
    domain: str,
    digest: bytes | None,
    enrolments: Mapping[str, frozenset[str]],
    wanted: NodeExpectations | None,
) -> Check:
    """A proven platform is enrolled by the domain that offers it, and by no other (session.md 3)."""
    name, clause = "node.enrolment", f"{_SESSION} 3"
    if digest is None:
        return not_evaluated(name, "no chip is proven: location is the provider's assertion", clause)
    holders = sorted(each for each, digests in enrolments.items() if digest.hex() in digests)
    seen = f"{digest.hex()} enrolled by {', '.join(holders) or 'nobody'}"
    if wanted is not None and wanted.enrolment == "any":
        return not_evaluated(name, f"waived: {seen}", clause)
    if len(holders) > 1:
        return failed(name, "node.platform_enrolled_twice", seen, f"{domain} alone", clause)
    return compared(name, "node.platform_not_enrolled", holders == [domain], seen, f"{domain} alone", clause)


def expiry(
    valid_until: float | None, challenged_at: float | None, wanted: NodeExpectations | None, at: float
) -> float:
    """The earliest of challenge age limit, nextUpdate and certificate ends; `at` where one is missing."""
    if valid_until is None or challenged_at is None or wanted is None:
        return at
    return min(valid_until, challenged_at + wanted.max_attestation_age)
