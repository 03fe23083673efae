"""A request that waits for its one answer, and what an answer says beside its bytes."""

from __future__ import annotations

import asyncio

from nats.aio.msg import Msg

from federation.serving import FAILURE_HEADER, failure_of
from schemas.errors import ComityError, Undecided


class Pending:
    """The client sets the future's result and trips over one that has an error: so we only cancel it."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._reason: ComityError | None = None

    def fail(self, reason: ComityError) -> None:
        """Stop waiting, for this reason. Harmless when it was answered."""
        if not self.answer.done():
            self._reason = reason
            self.answer.cancel()

    async def wait(self, seconds: float) -> Msg:
        """The answer. Raises `Undecided` (`bus.timeout`) or the reason of `fail`."""
        try:
            async with asyncio.timeout(seconds):
                return await self.answer
        except TimeoutError:
            raise Undecided("bus.timeout", f"{self.subject}: no answer in {seconds:g} s") from None
        except asyncio.CancelledError:
            if self._reason:
                raise self._reason from None
            raise
        finally:
            self.answer.cancel()  # does nothing to one that was answered


def check_answer(subject: str, message: Msg) -> None:
    """Raise what the server (nobody serves it) or the handler (its failure) said in headers."""
    headers = message.headers or {}
    if headers.get("Status") == "503":
        raise Undecided("bus.absent", f"{subject}: nobody serves it")
    if FAILURE_HEADER in headers:
        raise failure_of(headers[FAILURE_HEADER])
