"""The child program beside the node: llama.cpp's own server, on a loopback port that it picks itself.

    python -m domain_agent.node.engine_llamacpp --model FILE --alias NAME --slots-dir DIR --report-fd N

The first line of standard input is the key that every request must carry, so that no other program
on the machine can use the engine or read its slots. Standard input stays open for as long as the
node lives: its end is the node's end, and then this process ends too. One JSON line on the report
descriptor says where the engine listens. A crash here leaves nothing behind but an empty folder.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
from typing import Any

CONTEXT_TOKENS = 4096  # shared by all slots
THREADS = 1  # more threads on a busy machine spin at barriers: 71 tok/s became 4 (routing.md 13)
HTTP_THREADS_SPARE = 4  # beside one per slot: health, metrics, slots, erase
QUIET = 0  # llama.cpp's log level that never writes a prompt
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def flags(*, parallel: int, context: int, threads: int) -> list[str]:
    """What the engine is started with, as evidence names it (NodeConfiguration.engine_flags)."""
    return [
        f"n_ctx={context}",
        f"n_parallel={parallel}",
        f"n_threads={threads}",
        "cache_ram_mib=0",
        "cache_idle_slots=false",
        "slot_prompt_similarity=0",
        "prompt_logging=off",
    ]


def _parameters(options: argparse.Namespace, key: str) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.model
    parameters.model_alias = {options.alias}
    parameters.n_ctx, parameters.n_parallel = options.context, options.parallel
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = options.threads
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.api_keys = [key]
    parameters.n_threads_http = options.parallel + HTTP_THREADS_SPARE
    parameters.endpoint_metrics = parameters.endpoint_slots = True
    parameters.slot_save_path = options.slots_dir  # needed for erasing; nothing is saved there
    # State moves between slots, and so between scopes, by these three: the node alone chooses slots.
    parameters.cache_ram_mib, parameters.cache_idle_slots = 0, False
    parameters.slot_prompt_similarity = 0.0
    parameters.verbosity = QUIET
    return parameters


def _die_with_parent() -> None:
    """Linux sends SIGKILL here when the node ends, however it ends; elsewhere standard input tells."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended in between
        sys.exit(1)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="engine_llamacpp", description="llama.cpp beside one Comity node")
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--alias", required=True, help="name of the model in requests")
    parser.add_argument("--slots-dir", required=True, help="private folder on memory-backed storage")
    parser.add_argument("--parallel", type=int, default=2, help="slots (default 2)")
    parser.add_argument("--context", type=int, default=CONTEXT_TOKENS, help="tokens, all slots together")
    parser.add_argument("--threads", type=int, default=THREADS, help="decode and batch threads")
    parser.add_argument("--report-fd", type=int, required=True, help="descriptor for the address")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Load the model, say where it listens, and stay until the node ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the node's to handle: it drains
    _die_with_parent()
    options = _options(arguments)
    key = sys.stdin.buffer.readline().decode("ascii").strip()
    import xllamacpp

    server = xllamacpp.Server(_parameters(options, key))
    with os.fdopen(options.report_fd, "w") as report:
        report.write(json.dumps({"address": server.listening_address}) + "\n")
    sys.stdin.buffer.read()
    os._exit(0)  # the server's threads would otherwise be joined while they wait for requests


if __name__ == "__main__":
    main(sys.argv[1:])
