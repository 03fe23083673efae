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
from schemas.descriptors.request import Home, InvalidField, describe, parse_tags
from schemas.errors import Unreadable

EXTENSION: Final = "comity"
MAX_MESSAGES: Final = 4096
ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
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
        body = read_object(data)
        extended = EXTENSION in body
        try:
            extension = parse_tags(body.pop(EXTENSION, None), headers)
            extension.budget.check_currency(self.currency)
            check_messages(body)
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


def check_messages(body: Mapping[str, Any]) -> None:
    """A conversation is there and its turns have roles. Raises `InvalidField`."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        raise InvalidField("messages", f"a list of 1 to {MAX_MESSAGES} messages is expected")
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidField(f"messages.{at}", "an object is expected")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise InvalidField(f"messages.{at}.role", f"one of {', '.join(sorted(ROLES))} is expected")


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
