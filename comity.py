"""The front door: one console script, one three-line function per room.

Each command's own arguments and work live in its room (`<room>/commands.py`); imports stand inside
the functions so that verifying a receipt never loads a server. Exit codes: docs/cli.md.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receipts.log import TransparencyLog

__version__ = "0.1.0"


def federation(arguments: list[str]) -> int:
    """charter, keys, NATS accounts"""
    from federation.commands import main as run

    return run(arguments)


def broker(arguments: list[str]) -> int:
    """the border: serve applications and peers"""
    from broker.commands import main as run

    return run(arguments)


def agent(arguments: list[str]) -> int:
    """the interior: admit nodes, advertise capabilities"""
    from domain_agent.commands import main as run

    return run(arguments)


def node(arguments: list[str]) -> int:
    """the program beside the engine"""
    from domain_agent.node.commands import main as run

    return run(arguments)


def attest(arguments: list[str]) -> int:
    """verify and show hardware evidence"""
    from attestation.commands import main as run

    return run(arguments)


def receipt(arguments: list[str]) -> int:
    """verify and show receipts, offline"""
    from broker.select.replayed import SELECTION
    from receipts.commands.receipt import main as run

    return run(arguments, selection=SELECTION)


def log(arguments: list[str]) -> int:
    """check a transparency log, or write to one's own"""
    from receipts.commands.log import main as run

    def opener(settings: Path) -> AbstractAsyncContextManager[TransparencyLog]:
        from broker.starting.assemble import own_log

        return own_log(settings)

    return run(arguments, opener=opener)


def audit(arguments: list[str]) -> int:
    """audit whole logs, or two against each other, offline"""
    from broker.select.replayed import SELECTION
    from receipts.audit.commands import main as run

    return run(arguments, selection=SELECTION)


def witness(arguments: list[str]) -> int:
    """watch other domains' logs, over HTTP"""
    from receipts.witnessing.commands import main as run

    return run(arguments)


def policy(arguments: list[str]) -> int:
    """check and explain policies"""
    from schemas.policy.commands import main as run

    return run(arguments)


def schema(arguments: list[str]) -> int:
    """print the JSON Schemas of what crosses a border"""
    from receipts.published import PUBLISHED
    from schemas.commands import main as run

    return run(arguments, more=PUBLISHED)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    command.__name__: command
    for command in (federation, broker, agent, node, attest, receipt, log, audit, witness, policy, schema)
}


def usage() -> str:
    lines = ["usage: comity COMMAND ...", ""]
    lines += [f"  {name:<11} {command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "comity COMMAND --help tells more; comity --version names this release."])


def main() -> None:
    """Run one command and exit with its code; a defect of ours is 70, never a verdict."""
    from schemas.errors import ComityError

    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())  # noqa: T201
        sys.exit(0)
    if name in ("-V", "--version"):
        print(f"comity {__version__}")  # noqa: T201
        sys.exit(0)
    if name not in COMMANDS:
        print(f"comity: no command {name!r}\n\n{usage()}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    # Programs that serve log as JSON; a command's own sentence says already what the bus would not do.
    logging.getLogger("comity.bus").addHandler(logging.NullHandler())
    try:
        code = COMMANDS[name](arguments)
        sys.stdout.flush()
    except ComityError as error:
        print(f"comity {name}: {error}", file=sys.stderr)  # noqa: T201
        code = error.exit_code
    except BrokenPipeError:  # whoever read us left: what we found was not said, and 0 would be a verdict
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141  # as a shell says that SIGPIPE ended a program
    except SystemExit as stop:
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        code = 141  # tables are drawn by a library that would end with 1, which is a verdict
    except KeyboardInterrupt:
        code = 130
    except Exception:
        import traceback

        traceback.print_exc()
        code = 70
    sys.exit(code)


if __name__ == "__main__":
    main()
