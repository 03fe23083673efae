"""Scenes 5 and 6: a node that lies, a node that is revoked, and a domain that dies in mid-sentence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import openai

from examples.demo import show
from examples.demo.requests import PERSONAL, PUBLIC
from examples.demo.stage import CHAT, CLOUD, HYPER, ROGUE, DoesNotHold, Stage, expect

JUDGED_S: Final = 60.0  # s for a fresh node to load its model and be judged
FIRST_TEXT_CHUNKS: Final = 5  # chunks that must have come before a scene interferes
LONG_ANSWER: Final = 160  # tokens: long enough to be interrupted


@dataclass(slots=True)
class Stream:
    """A streamed answer while it comes."""

    domain: str
    receipt: str
    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    comity: dict[str, Any] | None = None
    """The last chunk's `comity` member: only a complete answer has one."""
    failed: dict[str, Any] | None = None
    """The typed error that ended the stream instead."""
    model: str = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@asynccontextmanager
async def streaming(stage: Stage, prompt: str, policy: dict[str, Any]) -> AsyncIterator[Stream]:
    """A long answer through the stock client; entered once some text has come, left at its end."""
    async with stage.client() as client:
        events = await client.chat.completions.create(
            model=CHAT,
            max_tokens=LONG_ANSWER,
            temperature=0,
            stream=True,
            messages=[{"role": "user", "content": prompt}],
            extra_body={"comity": {"policy": policy}},
        )
        headers = events.response.headers
        stream = Stream(headers["x-comity-domain"], headers["x-comity-receipt"])
        enough = asyncio.Event()
        reading = asyncio.create_task(_read(events, stream, enough))
        try:
            await asyncio.wait({reading, asyncio.create_task(enough.wait())}, return_when="FIRST_COMPLETED")
            yield stream
            await reading
        finally:
            reading.cancel()


async def _read(events: openai.AsyncStream[Any], stream: Stream, enough: asyncio.Event) -> None:
    try:
        async for chunk in events:
            for choice in chunk.choices:
                stream.pieces.append(choice.delta.content or "")
                stream.finish_reason = choice.finish_reason or stream.finish_reason
            if len(stream.pieces) >= FIRST_TEXT_CHUNKS:
                enough.set()
            if "comity" in (chunk.model_extra or {}):
                stream.comity, stream.model = chunk.model_extra["comity"], chunk.model
    except openai.APIError as error:
        body = error.body if isinstance(error.body, dict) else {"message": error.message}
        stream.failed = {"code": error.code, **body}
    finally:
        enough.set()


async def lying_and_revoked(stage: Stage) -> None:
    """5 tampered evidence → never admitted; a node revoked in mid-run → the next request avoids it"""
    await _tampered(stage)
    await _revoked(stage)


async def _tampered(stage: Stage) -> None:
    """A node whose hardware measured another image asks to be admitted."""
    show.note(stage.console, f"{CLOUD} gets a further node, {ROGUE}: its chip measured an image nobody knows")
    await stage.federation.start(CLOUD, ROGUE)
    entry: dict[str, Any] = {}

    async def judged() -> bool:
        stage.federation.programs[f"{CLOUD}/{ROGUE}"].check()
        entry.update(await node_status(stage, CLOUD, ROGUE))
        return entry.get("reason") is not None

    expect(await stage.until(JUDGED_S, judged), f"{ROGUE} is judged within {JUDGED_S:.0f} s", entry)
    expect(not entry["admitted"], f"{ROGUE} is not admitted", entry)
    expect("measurement" in entry["reason"], "the measurement is the reason", entry)
    show.holds(stage.console, f"{ROGUE} is never admitted: {entry['reason']}")


async def _revoked(stage: Stage) -> None:
    """Put out the node that is answering; the same question must go elsewhere."""
    prompt = "Describe in detail how a hospital welcomes a new patient."
    show.request(stage.console, prompt, "data_class=personal residency=EU")
    async with streaming(stage, prompt, PERSONAL) as stream:
        before = await stage.placed_on(stream.receipt)
        name = await node_id(stage, stream.domain, before)
        show.note(stage.console, f"{stream.domain} is answering on {name}; its operator revokes {name} now")
        await stage.agent(stream.domain, "revoke", name, "--class", "stale", "--reason", "drill")
    status = await node_status(stage, stream.domain, name)
    expect(not status["admitted"], f"{name} is not admitted any more", status)
    expect(stream.comity is not None, "a stale node may finish what it began", stream.failed)
    await stage.file(stream.receipt, f"finished on {name}, which was revoked meanwhile")
    answer = await stage.ask(prompt, PERSONAL)
    show.answered(stage.console, answer)
    after = await stage.placed_on(answer.receipt)
    expect(after != before, f"the next request avoids {name}", f"node {after}")
    await stage.file(answer.receipt, f"the next request, not on {name}")
    where = await node_id(stage, answer.domain, after)
    show.holds(stage.console, f"the next request avoids {name}: {answer.domain} answers on {where}")


async def killed(stage: Stage) -> None:
    """6 hyper.us killed in mid-stream → continues elsewhere or ends typed; never a silent change"""
    prompt = "Tell me a long story about a lighthouse keeper and the sea."
    show.request(stage.console, prompt, "data_class=public, streamed")
    async with streaming(stage, prompt, PUBLIC) as stream:
        expect(stream.domain == HYPER, "hyper.us begins", stream.domain)
        expect(stream.comity is None, "the answer is still coming", stream.text)
        programs = stage.federation.of(HYPER)
        show.note(stage.console, f"{HYPER} answers; SIGKILL to its {len(programs)} programs")
        shown = len(stream.pieces)
        await asyncio.gather(*(program.kill() for program in programs))
    show.note(stage.console, f"[italic]{_joint(stream, shown)}[/]")
    if stream.comity is None:
        expect(stream.failed is not None, "an answer that is not complete ends with a typed error", stream)
        expect(stream.finish_reason is None, "it is not reported complete", stream.finish_reason)
        show.holds(stage.console, f"the stream ended with a typed error: {stream.failed}")
    else:
        await _continued(stage, stream)
    last = str(stream.comity["receipt"]) if stream.comity else stream.receipt
    await stage.file(last, "begun by hyper.us, which died and owes its Execution", exit_code=3)


async def _continued(stage: Stage, stream: Stream) -> None:
    assert stream.comity is not None
    after = str(stream.comity["domain"])
    expect(after != HYPER, "another domain finished it", stream.comity)
    expect(stream.comity.get("began", {}).get("domain") == HYPER, "the answer says who began", stream.comity)
    models = await stage.explain(PUBLIC)
    offered = {plan["plan"].split()[1] for plan in models["plans"]}
    expect(stream.model in offered, "the very same model went on", (stream.model, offered))
    show.note(stage.console, f"[dim]{stream.comity['latency']}[/]")
    show.holds(stage.console, f"{after} went on with the same model, and the answer says so")


def _joint(stream: Stream, at: int) -> str:
    """The text around the place where the stream went over to another node."""
    before, after = "".join(stream.pieces[:at]), "".join(stream.pieces[at:])
    return " ".join(f"… {before[-80:]} ⟂ {after[:80]} …".split()).replace("[", "(")


async def node_status(stage: Stage, domain: str, name: str) -> dict[str, Any]:
    """What the domain's agent says about a node; empty while it knows none."""
    nodes = (await stage.agent(domain, "status"))["nodes"]
    return next((node for node in nodes if node["node_id"] == name), {})


async def node_id(stage: Stage, domain: str, thumbprint: str) -> str:
    """The domain's own name for the node with this signing key."""
    for node in (await stage.agent(domain, "status"))["nodes"]:
        if node.get("node_sign") == thumbprint:
            return str(node["node_id"])
    raise DoesNotHold(f"{domain} knows no node with key {thumbprint}")
