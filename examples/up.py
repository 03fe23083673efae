"""`make up`: the demo federation, running until it is told to stop.

Writes `run/up.json`: {"domains": {"clinic.de": {"base_url", "api_key", "pids"}, …}, "trust": PATH}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from examples.launch import RunningFederation, launched
from examples.simulated import Simulated, found_simulated
from examples.workplace import fresh_folder, waited
from schemas.errors import ComityError

RUN: Final = Path("run")
ROUND: Final = "up"  # folder inside `run/` for what this federation makes


def main() -> int:
    """Found, start, say how to use it, wait. Exit code 0 after a stop that was asked for."""
    parser = argparse.ArgumentParser(prog="make up", description="Keep the demo federation running.")
    parser.add_argument("--run", type=Path, default=RUN, metavar="DIR", help="where files go (default run/)")
    run: Path = parser.parse_args().run.resolve()
    console = Console()
    try:
        with fresh_folder(run / ROUND) as folder:
            about = run / "up.json"
            about.unlink(missing_ok=True)  # what a killed round left names ports of nobody
            with console.status("founding three domains"):
                simulated = found_simulated(folder, datetime.now(UTC))
            try:
                asyncio.run(_keep(simulated, folder, about, console))
            finally:
                about.unlink(missing_ok=True)
    except ComityError as error:
        console.print(f"[red]up: {error}[/]", soft_wrap=True)
        return error.exit_code
    return 0


async def _keep(simulated: Simulated, folder: Path, about: Path, console: Console) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    began = waited()
    with console.status("starting") as status:
        async with launched(simulated.founded, folder, said=status.update) as federation:
            status.stop()
            write(about, federation)
            explain(console, federation, about, began())
            await stop.wait()


def write(about: Path, federation: RunningFederation) -> None:
    """Write `up.json` in one step, readable by its owner alone: it holds API keys."""
    names = [domain.name for domain in federation.founded.plan.domains]
    stated = {
        "domains": {
            name: {
                "base_url": federation.base_url(name),
                "api_key": federation.api_key(name),
                "pids": [program.pid for program in federation.of(name)],
            }
            for name in names
        },
        "trust": str(federation.founded.domain(names[0]) / "trust.toml"),
    }
    fresh = about.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(stated, file, indent=2)
    os.replace(fresh, about)


def explain(console: Console, federation: RunningFederation, about: Path, seconds: float) -> None:
    """Say how to send a request."""
    first = federation.founded.plan.domains[0].name
    url, key = federation.base_url(first), federation.api_key(first)
    console.print(f"\nThree domains are up after {seconds:.0f} s; {about} names them all.\n")
    console.print(f"[bold]{first}[/]  base URL  {url}\n{' ' * len(first)}  API key   {key}\n", soft_wrap=True)
    print(_CURL.format(url=url, key=key))
    print(_CLIENT.format(url=url, key=key))
    print(f"Receipts: curl -H 'Authorization: Bearer {key}' {url}/receipts/ID -o r.receipt")
    trust = federation.founded.domain(first) / "trust.toml"
    print(f"          {sys.executable} -m comity receipt verify r.receipt --trust {trust}\n")
    console.print("Stop with Ctrl-C.")


_CURL: Final = """curl -s {url}/chat/completions -H 'Authorization: Bearer {key}' \\
  -H 'Content-Type: application/json' -d '{{"model": "chat.small", "max_tokens": 32,
  "messages": [{{"role": "user", "content": "What is a hospital?"}}],
  "comity": {{"policy": {{"data_class": "personal", "residency": ["EU"]}}}}}}'
"""

_CLIENT: Final = """from openai import OpenAI
client = OpenAI(base_url="{url}", api_key="{key}")
answer = client.chat.completions.create(
    model="chat.small", max_tokens=32,
    messages=[{{"role": "user", "content": "What is a hospital?"}}],
    extra_body={{"comity": {{"policy": {{"data_class": "public"}}}}}},
)
print(answer.choices[0].message.content, answer.model_extra["comity"]["receipt"])
"""


if __name__ == "__main__":
    sys.exit(main())
