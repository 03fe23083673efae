"""Step 1 of a request: from an OpenAI body and headers to an `Accepted`, or a 400 that names the field.

The tenant's floor can only be added to; nothing that the caller wrote is ignored silently. What goes
on to the engine is what the application sent, less the `comity` object.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.edge.accepting.body import read_object, write_object
from broker.edge.exchange import Accepted, Tenant
from broker.problems import Invalid
from schemas.descriptors.chat import check_contents, check_members
from schemas.descriptors.request import Home, InvalidField, describe, parse_tags
from schemas.errors import Unreadable

EXTENSION: Final = "comity"
ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
SPEAKING: Final = ROLES - {"assistant", "function"}
"""Whose turns cannot be without content; an assistant's may be calls of tools alone."""
_PLAIN_MEMBERS: Final = (
    "model messages stream stream_options max_tokens max_completion_tokens temperature top_p stop user "
    "presence_penalty frequency_penalty metadata store n logprobs tools tool_choice response_format "
    "safety_identifier"
)
PLAIN_MEMBERS: Final = frozenset(_PLAIN_MEMBERS.split())
"""Members that a plain request may have. One with any other is never continued after a loss."""
ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How one broker reads requests."""

    home: Home
    """Its domain and where that stands, by the charter's endorsed profile."""
    currency: str
    """The charter's, in which budgets are stated."""

    def accept(self, data: bytes, headers: Mapping[str, str], tenant: Tenant, received_ns: int) -> Accepted:
        """The request, fully checked. Raises `Invalid` that names the field, and nothing else."""
        _check_encoding(headers)
        body = read_object(data)
        extended = EXTENSION in body
        try:
            extension = parse_tags(body.pop(EXTENSION, None), headers)
            extension.budget.check_currency(self.currency)
            check_members(body)
            check_messages(body.get("messages"))
            include_usage = _includes_usage(body)
            forwarded = write_object(body) if extended else data
            descriptor = describe(
                body,
                extension,
                floor=tenant.floor,
                home=self.home,
                request_id=secrets.token_hex(ID_BYTES),
                body_bytes=len(forwarded),
            )
        except InvalidField as error:
            raise Invalid(error.code, error.text, param=error.field) from None
        except Unreadable as error:
            raise Invalid(error.code, error.text, param="body") from None
        return Accepted(tenant, descriptor, forwarded, is_plain(body), received_ns, include_usage)


def _check_encoding(headers: Mapping[str, str]) -> None:
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        text = "Content-Encoding: compressed bodies are not read"
        raise Invalid("request.encoding", text, param="Content-Encoding")


def check_messages(messages: Any) -> None:
    """A conversation is there, its turns have roles we know, and say something. Raises `InvalidField`."""
    check_contents(messages)
    for at, message in enumerate(messages):
        if message["role"] not in ROLES:
            raise InvalidField(f"messages.{at}.role", f"one of {', '.join(sorted(ROLES))} is expected")
        if message["role"] in SPEAKING and message.get("content") is None:
            raise InvalidField(f"messages.{at}.content", "text or a list of parts is expected")


def _includes_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    wanted = options.get("include_usage", False) if isinstance(options, dict) else None
    if not isinstance(wanted, bool):
        raise InvalidField("stream_options", "an object is expected, with include_usage true or false")
    return wanted


def is_plain(body: Mapping[str, Any]) -> bool:
    """Plain text, one choice, no tools, grammar, logprobs or seed (session.md 8).

    Judged by what is known to be harmless: a member nobody has heard of makes a request not plain.
    """
    return (
        PLAIN_MEMBERS.issuperset(body)
        and body.get("n") in (None, 1)
        and not body.get("logprobs")
        and not body.get("tools")
        and body.get("tool_choice") in (None, "none")
        and body.get("response_format") in (None, {"type": "text"})
        and all(_is_plain_message(message) for message in body["messages"])
        and body["messages"][-1]["role"] != "assistant"
    )


def _is_plain_message(message: Mapping[str, Any]) -> bool:
    return message["role"] in ("system", "developer", "user", "assistant") and (
        isinstance(message.get("content"), str) and message.keys() <= {"role", "content", "name"}
    )
