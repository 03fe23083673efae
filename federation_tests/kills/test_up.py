"""`run/up.json`, as `make up` writes it (DESIGN section 8): what scripts lean on."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import httpx

from examples import up
from federation_tests.kills.town import HOME, Town
from federation_tests.plan import CLINIC, CLOUD
from federation_tests.sse import request
from receipts.commands.receipt import load_trust


async def test_the_file_says_how_to_use_what_runs(here: Town, tmp_path: Path) -> None:
    about = tmp_path / "up.json"
    about.write_text("what a killed round left")
    up.write(about, here.federation)
    assert stat.S_IMODE(about.stat().st_mode) == 0o600  # it holds API keys
    stated = json.loads(about.read_text("utf-8"))
    assert set(stated) == {"domains", "trust"}
    assert set(stated["domains"]) == {CLINIC, CLOUD}
    for name, domain in stated["domains"].items():
        assert set(domain) == {"base_url", "api_key", "pids"}
        assert domain["base_url"].startswith("http://127.0.0.1:")
        assert domain["base_url"].endswith("/v1")
        assert set(domain["pids"]) == {program.pid for program in here.federation.of(name)}
        for pid in domain["pids"]:
            os.kill(pid, 0)  # raises unless it lives
        headers = {"Authorization": f"Bearer {domain['api_key']}"}
        async with httpx.AsyncClient(base_url=domain["base_url"], headers=headers, trust_env=False) as http:
            assert (await http.get("/models")).status_code == httpx.codes.OK
    load_trust(Path(stated["trust"]))  # raises unless it is a whole trust file
    clinic = stated["domains"][CLINIC]
    headers = {"Authorization": f"Bearer {clinic['api_key']}"}
    async with httpx.AsyncClient(base_url=clinic["base_url"], headers=headers, trust_env=False) as http:
        answer = await http.post("/chat/completions", json=request("a b", policy=HOME) | {"stream": False})
    assert answer.json()["choices"][0]["message"]["content"] == "a b "
    here.promised.add(answer.json()["comity"]["receipt"])
