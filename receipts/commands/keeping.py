"""`comity log admit | accuse | convict | erase | expire`: what a domain does to its own log.

Each opens the log as the broker does, which must be stopped, with its keys and after asking the
witnesses: a log that was set back must not sign again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from pydantic.alias_generators import to_camel

from receipts.log import TransparencyLog
from receipts.retention import check_erasable
from receipts.statements.notice import Accusation, Gap, Notice
from receipts.statements.receipt import MODELS, Receipt
from receipts.statements.statement import parse_receipt, receipt_kind
from receipts.verify.pinned import PinnedTrust, under_charter
from receipts.witnessing.equivocation import MAX_DOCUMENT_BYTES, late
from receipts.witnessing.remembered import remember
from schemas import envelope
from schemas.canonical import Json
from schemas.errors import ConfigurationError, Refused
from schemas.files import read_up_to
from schemas.papers.trust import FederationTrust
from schemas.primitives import format_time

RETENTION_OVER: Final = "retention-over"

M = TypeVar("M", Gap, Accusation)

Opener: TypeAlias = Callable[[Path], AbstractAsyncContextManager[TransparencyLog]]
"""A broker's settings → its log, opened with its keys, the witnesses asked. Raises `ComityError`."""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands and their arguments."""
    admit = _parser(commands, "admit", "sign that receipts of ours were lost, and log it")
    admit.add_argument("--peer", required=True, metavar="DOMAIN", help="whose sequence has the gap")
    admit.add_argument("--first", required=True, type=int, metavar="N", help="first lost number")
    admit.add_argument("--last", required=True, type=int, metavar="N", help="last lost number")
    admit.add_argument("--reason", required=True, metavar="WORD", help="such as disk-lost")
    accuse = _parser(commands, "accuse", "sign that a peer withholds a receipt that its next one names")
    accuse.add_argument("--peer", required=True, metavar="DOMAIN", help="who withholds it")
    accuse.add_argument("--number", required=True, type=int, metavar="N", help="the number withheld")
    convict = _parser(commands, "convict", "log a document that shows somebody saying two things")
    what = convict.add_mutually_exclusive_group(required=True)
    what.add_argument("--document", type=Path, metavar="FILE", help="an equivocation, JSON")
    what.add_argument("--promise", type=Path, metavar="FILE", help="an inclusion promise that was kept late")
    convict.add_argument(
        "--checkpoint", type=Path, metavar="FILE", action="append", default=[],
        help="with --promise: the log's checkpoint, cosigned after the deadline; repeat it for other copies",
    )  # fmt: skip
    for each in (admit, accuse, convict):
        each.add_argument("--out", type=Path, metavar="FILE", help="write the signed statement here, too")
    erase = _parser(commands, "erase", "erase all receipts of a request; a tombstone stays")
    erase.add_argument("--request", required=True, metavar="ID", help="request id, as receipts state it")
    erase.add_argument("--reason", required=True, metavar="WORD", help="such as gdpr-17")
    erase.add_argument("--authority", required=True, metavar="WORD", help="who ordered it")
    expire = _parser(commands, "expire", "erase what no longer must be kept")
    expire.add_argument("--dry-run", action="store_true", help="only list it")


def _parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text)
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="the broker's settings")
    return parser


def run(arguments: argparse.Namespace, opener: Opener) -> int:
    """Run one of the commands; prints one JSON object. Raises `ComityError`."""
    result = asyncio.run(_run(arguments, opener))
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


async def _run(arguments: argparse.Namespace, opener: Opener) -> dict[str, Json]:
    now = datetime.now(UTC)
    async with opener(arguments.config) as log:
        match arguments.command:
            case "admit":
                return _written(await log.state(_gap(arguments, log, now)), arguments.out)
            case "accuse":
                return _written(await log.state(await _accusation(arguments, log, now)), arguments.out)
            case "convict":
                notice = await remember(log, _trusted(log), _document(arguments), now)
                if notice is None:
                    raise Refused("log.convicted", "this document stands in the log already")
                return _written(notice, arguments.out)
            case "erase":
                words = {"reason": arguments.reason, "authority": arguments.authority}
                await log.erase(arguments.request, **words, at=now)
                return {"erased": [arguments.request]}
        return await _expire(log, now, dry_run=arguments.dry_run)


def _made(model: type[M], **values: Json) -> M:
    """The statement, read as strictly as one from elsewhere. Raises `Unreadable`."""
    return model.from_json({to_camel(name): value for name, value in values.items()})


def _gap(arguments: argparse.Namespace, log: TransparencyLog, now: datetime) -> Gap:
    if not 0 <= arguments.first <= arguments.last:
        raise ConfigurationError("log.gap", "--first and --last are numbers from 0, in that order")
    return _made(
        Gap,
        federation=log.identity.federation,
        issuer=log.identity.domain,
        peer=arguments.peer,
        first=arguments.first,
        last=arguments.last,
        reason=arguments.reason,
        time=format_time(now),
    )


async def _accusation(arguments: argparse.Namespace, log: TransparencyLog, now: datetime) -> Accusation:
    """Built on the peer's next receipt as we keep it. Raises `Refused` when we keep none."""
    data = await log.received(arguments.peer, arguments.number + 1)
    if data is None:
        wanted = f"number {arguments.number + 1} of {arguments.peer}"
        raise Refused("log.no_copy", f"no receipt {wanted} is kept here")
    shown = envelope.read(data).payload
    return _made(
        Accusation,
        federation=log.identity.federation,
        issuer=log.identity.domain,
        accused=arguments.peer,
        number=arguments.number,
        named=parse_receipt(shown, MODELS[receipt_kind(shown)]).prev,
        shown=data.decode(),
        time=format_time(now),
    )


def _document(arguments: argparse.Namespace) -> bytes:
    """The one that was brought, or the one that promise and checkpoint make. Raises `ComityError`."""
    if bool(arguments.promise) != bool(arguments.checkpoint):
        raise ConfigurationError("log.document", "--promise and --checkpoint go together")
    if arguments.document is not None:
        return _file(arguments.document)
    return late(_file(arguments.promise), [_file(path) for path in arguments.checkpoint]).write()


def _file(path: Path) -> bytes:
    return read_up_to(path, MAX_DOCUMENT_BYTES, "log.document")


def _trusted(log: TransparencyLog) -> PinnedTrust:
    """The members' keys under the charter that our own receipts go out with. Raises `ComityError`."""
    documents = log.identity.documents
    if documents.charter is None:
        raise ConfigurationError("log.charter", "this log has no charter that says whose keys are whose")
    pin, manifests = envelope.read(documents.charter).digest, documents.manifests.values()
    trust = FederationTrust.load(documents.charter, pin=pin, manifests=manifests, reference_values=())
    return under_charter(trust)


def _written(notice: Notice, out: Path | None) -> dict[str, Json]:
    if out is not None:
        try:
            out.write_bytes(notice.envelope)
        except OSError as error:
            raise ConfigurationError("log.output", f"{out}: {error.strerror}") from None
    return {"stated": notice.kind.name.lower(), "digest": notice.digest.hex()}


async def _expire(log: TransparencyLog, now: datetime, *, dry_run: bool) -> dict[str, Json]:
    """Erase each request all of whose receipts name a class whose time is over, and no hold."""
    due = await log.requests(lambda bodies: _is_due(bodies, now))
    for request_id in [] if dry_run else due:
        await log.erase(request_id, reason=RETENTION_OVER, authority=log.identity.domain, at=now)
    listed: list[Json] = [*due]
    return {"due": listed} if dry_run else {"erased": listed}


def _is_due(bodies: list[Receipt], now: datetime) -> bool:
    """A receipt that names no class has no end: only an order erases it."""
    try:
        return all(check_erasable(body.retention, now) is not None for body in bodies)
    except Refused:
        return False
