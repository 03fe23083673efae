"""Scene 7: an auditor with nothing but files. Every domain has stopped; no network is there to ask."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from examples.demo import show
from examples.demo.stage import CLINIC, DoesNotHold, Stage, expect
from receipts import bundle
from schemas import envelope
from schemas.keys import SigningKey

NO_NETWORK: Final = ("unshare", "--user", "--net", "--map-root-user")
"""A network of its own without any device in it, where the system lets a user make one."""
WORDS: Final = {0: "holds", 1: "does not hold", 3: "something is missing"}
FORGED: Final = "forged"
WITHHELD: Final = "withheld"
AT_ONCE: Final = 2  # verifications side by side


async def audit(stage: Stage) -> None:
    """7 the auditor verifies all receipts offline; one forged and one missing receipt are exposed"""
    before = NO_NETWORK if await can_go_offline() else ()
    show.note(stage.console, _surroundings(before))
    whole = next((filed for filed in stage.filed if filed.exit_code == 0), None)
    if whole is None:
        raise DoesNotHold("there is no whole receipt to audit: earlier scenes did not hold")
    forged, withheld = forge(whole.path), withhold(whole.path)
    trust = str(stage.federation.founded.domain(CLINIC) / "trust.toml")
    checks = [(filed.path, filed.about, filed.exit_code) for filed in stage.filed]
    checks += [(forged, f"{whole.about}: forged", 1), (withheld, f"{whole.about}: Execution withheld", 3)]
    seen = await _verified(stage, [path for path, _, _ in checks], trust, before)
    rows = [(_short(path), about, seen[path]["exit"], _verdict(seen[path])) for path, about, _ in checks]
    show.verdicts(stage.console, rows)
    for path, about, wanted in checks:
        expect(
            seen[path]["exit"] == wanted, f"exit code {wanted} for {path.name} ({about})", seen[path]["exit"]
        )
    expect("signature" in _faults(seen[forged]), "the forgery fails by its signature", _faults(seen[forged]))
    missing = _faults(seen[withheld])
    expect("execution-link" in missing, "the missing Execution is named", missing)
    for filed in stage.filed:
        if filed.exit_code == 3:
            owed = _faults(seen[filed.path])
            expect(set(owed) == {"execution-link"}, "nothing but the owed Execution is missing", owed)
    for proved in sorted(hardware(list(seen.values()))):
        show.note(stage.console, f"proved again from raw evidence: {proved}")
    await _logs(stage, before)
    show.holds(
        stage.console, "every receipt was judged from files alone; the forged and the missing one show"
    )


async def _verified(
    stage: Stage, paths: list[Path], trust: str, before: tuple[str, ...]
) -> dict[Path, dict[str, Any]]:
    """What `comity receipt verify` says of each file; its exit code under `exit`."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(path: Path) -> dict[str, Any]:
        async with turn:
            code, said = await stage.comity(
                "receipt", "verify", str(path), "--trust", trust, "--json", before=before
            )
        report: dict[str, Any] = json.loads(said)
        expect(report["exit"] == code, f"the exit code of {path.name} is the one it states", code)
        return report

    return dict(zip(paths, await asyncio.gather(*map(one, paths)), strict=True))


def hardware(reports: list[dict[str, Any]]) -> set[str]:
    """What each kind of node was proved to be: its TEE, and how its GPUs are bound where it has any."""
    claims = [claim for report in reports for receipt in report["receipts"] for claim in receipt["claims"]]
    return {claim["text"] for claim in claims if (claim["claim"], claim["verdict"]) == ("attested", "proved")}


async def can_go_offline() -> bool:
    """Whether commands can be run in a network namespace of their own here."""
    try:
        process = await asyncio.create_subprocess_exec(
            *NO_NETWORK, "true", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return False
    return await process.wait() == 0


def _surroundings(before: tuple[str, ...]) -> str:
    where = "in a network namespace without any device" if before else "with every domain stopped"
    return f"`comity receipt verify` runs {where}"


def forge(path: Path) -> Path:
    """The same bundle with an Execution that claims other usage, signed by a key of the forger's."""
    held = bundle.read(path.read_bytes())
    envelopes = dict(held.envelopes)
    digest, statement = _execution(held)
    payload = json.loads(envelope.read(statement).payload)
    payload["predicate"]["usage"]["outputTokens"] += 100_000
    forged = envelope.sign(envelope.STATEMENT, json.dumps(payload).encode(), SigningKey.generate())
    del envelopes[digest]
    envelopes[envelope.read(forged).digest] = forged
    return _write(path, FORGED, replace(held, envelopes=envelopes))


def withhold(path: Path) -> Path:
    """The same bundle without its Execution."""
    held = bundle.read(path.read_bytes())
    digest, _ = _execution(held)
    envelopes = {key: data for key, data in held.envelopes.items() if key != digest}
    return _write(path, WITHHELD, replace(held, envelopes=envelopes))


def _execution(held: bundle.Bundle) -> tuple[bytes, bytes]:
    for digest, data in held.envelopes.items():
        if "execution-receipt" in json.loads(envelope.read(data).payload)["predicateType"]:
            return digest, data
    raise ValueError("the bundle holds no Execution")


def _write(path: Path, kind: str, changed: bundle.Bundle) -> Path:
    target = path.with_name(f"{path.stem}.{kind}.receipt")
    target.write_bytes(bundle.write(changed))
    return target


def _faults(report: dict[str, Any]) -> dict[str, str]:
    """Claims that failed, or that are required and not proved, with their codes."""
    missing = report.get("missing", [])
    return {
        claim["claim"]: str(claim["code"])
        for claim in report.get("claims", [])
        if claim["verdict"] == "failed" or claim["claim"] in missing
    }


def _verdict(report: dict[str, Any]) -> str:
    """In words, with the claims that decided."""
    failed = [claim["claim"] for claim in report["claims"] if claim["verdict"] == "failed"]
    decided = failed or report.get("missing", [])
    words = WORDS.get(report["exit"], "cannot be read")
    return f"{words} ({', '.join(decided)})" if decided else words


def _short(path: Path) -> str:
    """The number and the first letters of a receipt's file name."""
    return f"{path.name[:9]}…"


async def _logs(stage: Stage, before: tuple[str, ...]) -> None:
    """Each domain's transparency log, where it lies: is it what its checkpoints were signed over?"""
    for domain in stage.federation.founded.plan.domains:
        folder = stage.federation.founded.domain(domain.name)
        manifest = folder / "shared" / "manifests" / f"{domain.name}.json"
        (log,) = json.loads(envelope.read(manifest.read_bytes()).payload)["logs"]
        database = str(folder / "state" / "broker.db")
        code, said = await stage.comity(
            "log", "fsck", database, "--vkey", log["vkey"], "--json", before=before
        )
        expect(code == 0, f"the log of {domain.name} holds", said)
        found = json.loads(said)
        size = "1 leaf" if found["leaves"] == 1 else f"{found['leaves']} leaves"
        show.note(stage.console, f"log of {domain.name}: {size}, {found['checkpoints']} checkpoints, holds")
