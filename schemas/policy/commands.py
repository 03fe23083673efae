"""`comity policy`: check sets before they are activated, explain verdicts, replay stored decisions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from schemas.canonical import Json, read_json, write_json
from schemas.descriptors.profile import DomainProfile
from schemas.descriptors.request import InvalidField
from schemas.descriptors.tags import Home, PolicyTags, complete
from schemas.errors import ComityError, ConfigurationError, Unreadable
from schemas.policy.facts import UNATTESTED, AttestedFacts, DomainFacts, RequestContext, Subject, Unusable
from schemas.policy.infeasible import policy_report
from schemas.policy.layers import Decision, Layers
from schemas.policy.mask import Columns, mask_of
from schemas.policy.packs import NATIONAL, canaries_beside, load_file, load_pack, read_bounded
from schemas.policy.policy_set import PolicySet
from schemas.policy.replay import MAX_RECORD_BYTES, DecisionRecord, replay
from schemas.primitives import parse_time

HOLDS, DOES_NOT_HOLD, UNDECIDED = 0, 1, 3
MAX_PROFILES_BYTES = 8 * 1024 * 1024  # a thousand profiles


def main(argv: list[str]) -> int:
    """Run one sub-command. Returns its exit code; raises `ComityError` for what cannot be read."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="comity policy", description="Check and explain policies.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="pass policy files through the load gate")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.add_argument(
        "--override", action="append", default=[], metavar="CANARY", help="a change that is meant"
    )
    check.set_defaults(run=_check)
    explain = commands.add_parser("explain", help="per domain: verdict, rules, layer")
    explain.add_argument(
        "--tags", required=True, metavar="JSON", help="policy tags, or a file that holds them"
    )
    explain.add_argument(
        "--profiles",
        required=True,
        type=Path,
        metavar="FILE",
        help="a JSON list of `comity schema DomainProfile`",
    )
    explain.add_argument("--consumer", metavar="DOMAIN", help="who asks; default: the first profile's")
    explain.add_argument("--at", metavar="RFC3339", help="the moment to judge at; default now")
    explain.add_argument("--unattested", action="store_true", help="ignore the TEEs that profiles claim")
    for layer in ("charter", "national", "tenant", "provider"):
        explain.add_argument(
            f"--{layer}", action="append", type=Path, metavar="FILE", help="in place of the pack"
        )
    explain.set_defaults(run=_explain)
    again = commands.add_parser("replay", help="make a stored decision again")
    again.add_argument("record", type=Path, metavar="RECORD")
    again.set_defaults(run=_replay)
    for command in (check, explain, again):
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _check(arguments: argparse.Namespace) -> int:
    """The worst of all files decides the exit code. Raises `ConfigurationError` for an unknown override."""
    _check_overrides(arguments.override, arguments.files)
    results: list[Json] = []
    codes = [HOLDS]
    for path in arguments.files:
        try:
            loaded = load_file(path, overrides=arguments.override)
        except ComityError as error:
            codes.append(error.exit_code)
            results.append({"file": str(path), "verdict": "refused", "code": error.code, "text": error.text})
            continue
        rules: list[Json] = [*sorted(loaded.rules)]
        results.append({"file": str(path), "verdict": "accepted", "digest": loaded.digest, "rules": rules})
    _print(arguments, {"files": results}, [_file_line(result) for result in results])
    return max(codes)


def _check_overrides(named: Iterable[str], files: Iterable[Path]) -> None:
    """A name that no canary has would let a changed one block, or its owner believe that it is recorded."""
    overrides = set(named)
    if overrides:
        known = {canary.name for path in files for canary in canaries_beside(path)}
        if unknown := sorted(overrides - known):
            text = f"--override: no canary of these files is called {unknown[0]!r}"
            raise ConfigurationError("policy.override", text[:300])


def _file_line(result: Json) -> str:
    match result:
        case {"file": str(file), "digest": str(digest), "rules": list(rules)}:
            return f"{file}: accepted, {len(rules)} rules, sha256:{digest}"
        case {"file": str(file), "code": str(code), "text": str(text)}:
            return f"{file}: refused, {code}: {text}"
    return ""


def _explain(arguments: argparse.Namespace) -> int:
    """0 when at least one domain is allowed, 1 when none is, 3 when one could not be decided."""
    at = parse_time(arguments.at) if arguments.at else datetime.now(UTC)
    profiles = _profiles(arguments.profiles)
    home = _home(arguments.consumer, profiles)
    request = RequestContext.of(
        complete(_tags(arguments.tags), home),
        consumer=home.domain,
        tenant="explain",
        application="explain",
        max_price=None,
        allow_debug=False,
        simulated_allowed=True,
    )
    layers = _layers(arguments)
    subjects = [_subject(profile, at, unattested=arguments.unattested) for profile in profiles]
    decisions = [layers.decide(request, subject) for subject in subjects]
    lines = [line for decision in decisions for line in _decision_lines(decision)]
    answer: dict[str, Json] = {"domains": [decision.as_json() for decision in decisions]}
    verdicts = {decision.verdict for decision in decisions}
    usable = [subject for subject in subjects if isinstance(subject, Subject)]
    if "allow" not in verdicts and usable:
        columns, names = Columns.of(usable), [subject.domain.domain for subject in usable]
        found = policy_report(request, columns, mask_of(layers).apply(request, columns), names)
        answer["infeasible"] = found.as_json()
        lines += [f"dropping {', '.join(r.rules)} would allow {r.candidates}" for r in found.relaxations]
    _print(arguments, answer, lines)
    if "error" in verdicts:
        return UNDECIDED
    return HOLDS if "allow" in verdicts else DOES_NOT_HOLD


def _decision_lines(decision: Decision) -> list[str]:
    lines = [f"{decision.domain}: {decision.verdict} ({', '.join(decision.reasons)})"]
    lines += [
        f"  {said.layer}/{said.policy_set}: {said.verdict} ({', '.join(said.rules)})"
        for said in decision.layer_verdicts
        if said.verdict != "allow"
    ]
    return lines + [f"  incident: {error}" for error in decision.errors]


def _replay(arguments: argparse.Namespace) -> int:
    decision = replay(DecisionRecord.read(read_bounded(arguments.record, MAX_RECORD_BYTES)))
    _print(arguments, decision.as_json(), ["the decision holds", *_decision_lines(decision)])
    return HOLDS


def _tags(given: str) -> PolicyTags:
    text = given.encode() if given.lstrip().startswith("{") else read_bounded(Path(given), MAX_PROFILES_BYTES)
    try:
        return PolicyTags.read(text)
    except Unreadable as error:
        raise InvalidField("tags", error.text) from None


def _profiles(path: Path) -> list[DomainProfile]:
    listed = read_json(read_bounded(path, MAX_PROFILES_BYTES), limit=MAX_PROFILES_BYTES)
    if not isinstance(listed, list) or not listed:
        raise Unreadable("policy.profiles", f"{path}: a JSON list of domain profiles is expected")
    return [DomainProfile.from_json(entry) for entry in listed]


def _home(consumer: str | None, profiles: Sequence[DomainProfile]) -> Home:
    known = {profile.domain: profile for profile in profiles}
    profile = known.get(consumer or profiles[0].domain)
    if profile is None:
        raise ConfigurationError("policy.consumer", f"{consumer} is none of the profiles' domains")
    return Home(profile.domain, tuple(profile.jurisdictions))


def _subject(profile: DomainProfile, at: datetime, *, unattested: bool) -> Subject | Unusable:
    """With the TEE that the profile claims: an explanation judges plans, not evidence."""
    facts = DomainFacts.of(profile, profile.domain, at)
    if isinstance(facts, Unusable):
        return facts
    claim = max(profile.tee, key=lambda tee: tee.assurance, default=None)
    if claim is None or unattested:
        return Subject(facts, UNATTESTED, 0)
    attested = AttestedFacts(
        assurance=claim.assurance,
        simulated=claim.platform == "simulated",
        debug_allowed=False,
        confidential_gpu=claim.confidential_gpu,
        engine_in_tee=True,
        binding_mode="none",
        enrolled=True,
        age_s=0,
    )
    return Subject(facts, attested, 0)


def _layers(arguments: argparse.Namespace) -> Layers:
    def sets(layer: str, *packs: str) -> list[PolicySet]:
        files: list[Path] | None = getattr(arguments, layer)
        return [load_file(path) for path in files] if files else [load_pack(name) for name in packs]

    return Layers.of(
        charter=sets("charter", "charter"),
        national=sets("national", *NATIONAL),
        tenant=sets("tenant", "tenant-default"),
        provider=sets("provider", "provider-default"),
    )


def _print(arguments: argparse.Namespace, answer: dict[str, Json], lines: Sequence[str]) -> None:
    text = write_json(answer).decode() if arguments.json else "\n".join(lines)
    sys.stdout.write(text + "\n")
