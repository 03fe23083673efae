"""An operator's own server in the place of the embedded one: `NATS_URL`, as every program reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from examples.launch import launched
from federation.found import free_port
from federation_tests.engine import echo, new_engine
from federation_tests.plan import CLINIC, Changes, found_scripted
from federation_tests.sse import request
from federation_tests.world import point_at


async def test_all_programs_go_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    founded = found_scripted(tmp_path / "town", datetime.now(UTC), Changes(domains=(CLINIC,)))
    own = founded.bus.server(port=free_port())
    assert own.port != founded.bus_port  # every program's file names the other one
    await own.start()
    monkeypatch.setenv("NATS_URL", own.url)
    try:
        async with new_engine() as engine:
            engine.script = echo()
            point_at(founded, CLINIC, "ward-1", engine.address)
            async with launched(founded, tmp_path) as running:
                assert running.server.pid is None  # nothing embedded was started
                headers = {"Authorization": f"Bearer {running.api_key(CLINIC)}"}
                async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=60.0) as http:
                    body = request("over there", stream=False)
                    answer = await http.post(f"{running.base_url(CLINIC)}/chat/completions", json=body)
    finally:
        await own.stop()
    assert answer.json()["choices"][0]["message"]["content"] == "over there "
