"""The engine of these tests: a real OpenAI-compatible server on loopback that follows a script.

By default it echoes what it was asked, word by word, so that a mixed or lost chunk shows in the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from domain_agent.tests.engines import Script, ScriptedEngine, die_after, finish, hang_after, say, speak

__all__ = [
    "Script",
    "ScriptedEngine",
    "asked_for",
    "die_after",
    "echo",
    "fail",
    "finish",
    "hang_after",
    "hold_after",
    "new_engine",
    "say",
    "speak",
]

WARM_UP: Final = "Reply with the numbers from one to twenty"


def new_engine(script: Script | None = None) -> ScriptedEngine:
    """An engine that echoes unless it is told otherwise; not started."""
    return ScriptedEngine(script or echo())


def asked_for(body: dict[str, Any]) -> str:
    """The text of the last user turn."""
    turns = [turn for turn in body["messages"] if turn["role"] == "user"]
    return str(turns[-1]["content"])


def echo(pause_s: float = 0.0) -> Script:
    """Say what was asked, one word a chunk. A continuation goes on where the assistant's turn ends."""

    async def script(response: web.StreamResponse, body: dict[str, Any]) -> None:
        said = ""
        if body["messages"][-1]["role"] == "assistant":
            said = str(body["messages"][-1]["content"])
        rest = (asked_for(body) + " ").removeprefix(said)
        words = [word + " " for word in rest.split(" ") if word]
        for word in words:
            await say(response, word)
            await asyncio.sleep(pause_s)
        await finish(response, tokens=len(words))

    return script


def hold_after(*words: str, until: asyncio.Event, then: tuple[str, ...] = ()) -> Script:
    """Say these, wait for the event, say the rest and end well."""

    async def script(response: web.StreamResponse, body: dict[str, Any]) -> None:
        for word in words:
            await say(response, word)
        await until.wait()
        for word in then:
            await say(response, word)
        await finish(response, tokens=len(words) + len(then))

    return script


def fail(status: int) -> Callable[[ScriptedEngine], None]:
    """Make an engine answer with an HTTP error."""

    def apply(engine: ScriptedEngine) -> None:
        engine.status, engine.error_body = status, {"error": {"message": "scripted"}}

    return apply
