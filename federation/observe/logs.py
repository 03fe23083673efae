"""Logs of every program as JSON lines on stderr: what happened, to which request. Never content.

Foreign exceptions may quote what they choked on, so that of those only the type and the places in
our code are written; the text is kept for errors of the house alone.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TextIO

from schemas.errors import ComityError

MAX_TEXT: Final = 2000  # characters of one field
MAX_FRAMES: Final = 20  # innermost frames of a traceback
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_fields: ContextVar[Mapping[str, str]] = ContextVar("comity_log_fields")


@contextmanager
def log_fields(**fields: str) -> Iterator[None]:
    """Every log line inside says these, for example `request` and `negotiation`."""
    token = _fields.set({**_fields.get({}), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object per record: time, level, logger, event, the fields in force, and `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:MAX_TEXT],
            **_fields.get({}),
        }
        line.update((name, value) for name, value in record.__dict__.items() if name not in _STANDARD)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"], line["at"] = _exception(record.exc_info[1], record.exc_info[2])
        return json.dumps(line, ensure_ascii=False, default=str)


def start_logging(level: str, stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (stderr) as JSON lines. Replaces earlier handlers."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its start-up lines say nothing that ours do not


def _exception(error: BaseException, trace: TracebackType | None) -> tuple[str, list[str]]:
    text = str(error)[:MAX_TEXT] if isinstance(error, ComityError) else type(error).__name__
    frames = traceback.extract_tb(trace)[-MAX_FRAMES:]
    return text, [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
