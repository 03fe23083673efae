"""What every scene works with: the running federation, a stock `openai` client, and the receipts so far."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import openai
from rich.console import Console

from examples.launch import RunningFederation
from receipts import bundle
from schemas import envelope

CLINIC: Final = "clinic.de"
CLOUD: Final = "cloud.fr"
HYPER: Final = "hyper.us"
CHAT: Final = "chat.small"
CODE: Final = "code.small"
ROGUE: Final = "rogue-1"
"""A further node of cloud.fr, whose chip reports another image than it should."""

REQUEST_S: Final = 90.0  # s for one answer; the machine may be busy
COMMAND_S: Final = 60.0  # s for one `comity` command
PROOF_S: Final = 10.0  # s for the proof of inclusion: it follows the answer within about one
POLL_S: Final = 0.2  # s between looks at something that cannot call us


class DoesNotHold(Exception):
    """A scene saw something else than it should have."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer as the application got it."""

    text: str
    model: str
    finish_reason: str | None
    comity: Mapping[str, Any]
    """The answer's `comity` member: domain, receipt, latency."""

    @property
    def domain(self) -> str:
        return str(self.comity["domain"])

    @property
    def receipt(self) -> str:
        return str(self.comity["receipt"])


@dataclass(frozen=True, slots=True)
class Filed:
    """A receipt bundle on disk, and the exit code that an auditor should get for it."""

    path: Path
    about: str
    exit_code: int


@dataclass(slots=True)
class Stage:
    """One play. Receipts are fetched and written to `receipts` while the domains live."""

    federation: RunningFederation
    console: Console
    receipts: Path
    filed: list[Filed] = field(default_factory=list)

    def client(self, domain: str = CLINIC) -> openai.AsyncOpenAI:
        """The stock client, as an application of that domain would make it."""
        return openai.AsyncOpenAI(
            base_url=self.federation.base_url(domain),
            api_key=self.federation.api_key(domain),
            max_retries=0,
            timeout=REQUEST_S,
        )

    async def ask(
        self, prompt: str, policy: Mapping[str, Any], model: str = CHAT, tokens: int = 32
    ) -> Answer:
        """One whole answer through clinic.de. Raises the client's own errors."""
        async with self.client() as client:
            answer = await client.chat.completions.create(
                model=model,
                max_tokens=tokens,
                temperature=0,
                messages=[{"role": "user", "content": prompt}],
                extra_body={"comity": {"policy": dict(policy)}},
            )
        choice, extra = answer.choices[0], answer.model_extra or {}
        return Answer(choice.message.content or "", answer.model, choice.finish_reason, extra["comity"])

    async def explain(self, policy: Mapping[str, Any], model: str = CHAT) -> dict[str, Any]:
        """What would happen to such a request, domain by domain (`POST /v1/explain`)."""
        message = {"role": "user", "content": "the same question"}
        body = {"model": model, "max_tokens": 32, "messages": [message], "comity": {"policy": dict(policy)}}
        response = await self.http("POST", "/explain", json=body)
        explained: dict[str, Any] = response.json()
        return explained

    async def http(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A bare HTTP request to clinic.de's broker, for what is not OpenAI's."""
        headers = {"Authorization": f"Bearer {self.federation.api_key(CLINIC)}"}
        async with httpx.AsyncClient(trust_env=False, timeout=REQUEST_S, headers=headers) as client:
            return await client.request(method, self.federation.base_url(CLINIC) + path, **options)

    async def file(self, receipt: str, about: str, *, exit_code: int = 0) -> None:
        """Fetch a receipt's bundle and keep it for the auditor, once every proof of inclusion is there.

        Raises `DoesNotHold` when there is no bundle, or a proof does not come in time.
        """
        path = self.receipts / f"{len(self.filed) + 1:02d}-{receipt}.receipt"

        async def proved() -> bool:
            response = await self.http("GET", f"/receipts/{receipt}")
            expect(
                response.status_code == httpx.codes.OK, f"receipt {receipt} can be had", response.text[:300]
            )
            path.write_bytes(response.content)
            return not unproved(bundle.read(response.content))

        expect(await self.until(PROOF_S, proved), "every receipt is proved to be logged", receipt)
        self.filed.append(Filed(path, about, exit_code))

    async def placed_on(self, receipt: str) -> str:
        """The thumbprint of the node that a Placement names."""
        response = await self.http("GET", f"/receipts/{receipt}")
        path = self.receipts / "looked-at.tmp"
        path.write_bytes(response.content)
        _, shown = await self.comity("receipt", "show", str(path), "--json")
        path.unlink()
        for entry in json.loads(shown)["statements"]:
            predicate = entry["statement"]["predicate"]
            if predicate.get("receiptId") == receipt:
                return str(predicate["plan"]["nodes"][0])
        raise DoesNotHold(f"receipt {receipt} names no node")

    async def agent(self, domain: str, *arguments: str) -> dict[str, Any]:
        """`comity agent …` of a domain, its answer as JSON."""
        config = str(self.federation.founded.domain(domain) / "agent.toml")
        code, said = await self.comity("agent", *arguments, "--config", config, "--json")
        expect(code == 0, f"comity agent {' '.join(arguments)} works", said)
        status: dict[str, Any] = json.loads(said)
        return status

    async def comity(self, *arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run `comity …` as a person would: exit code and what it said."""
        process = await asyncio.create_subprocess_exec(
            *before,
            sys.executable,
            "-m",
            "comity",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), COMMAND_S)
        assert process.returncode is not None
        return process.returncode, (out if process.returncode == 0 or out else err).decode()

    async def until(self, seconds: float, look: Callable[[], Awaitable[bool]]) -> bool:
        """Whether `look` came true within the time."""
        try:
            async with asyncio.timeout(seconds):
                while not await look():  # noqa: ASYNC110 - what is looked at cannot call us
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return False
        return True


def unproved(held: bundle.Bundle) -> list[bytes]:
    """Receipts of a bundle that are only promised to be logged. Nothing but receipts is logged."""
    found = []
    for digest, data in held.envelopes.items():
        kind = json.loads(envelope.read(data).payload)["predicateType"]
        if "-receipt/" in kind and digest not in held.proofs:
            found.append(digest)
    return found


def expect(holds: bool, what: str, seen: object) -> None:
    """Raise `DoesNotHold` unless it holds; says what should be and what was seen."""
    if not holds:
        raise DoesNotHold(f"expected: {what}\nseen: {seen}")
