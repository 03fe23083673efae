"""Everything a request can end in but an answer: typed, with its HTTP status and OpenAI's error shape.

`code` of the wire is one word of this table; the exact reason stands in `error.comity.code`. Texts
name fields, rules and domains, and never quote a prompt, an answer or a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from schemas.canonical import Json
from schemas.descriptors.extension import InvalidField
from schemas.errors import ComityError, Refused, Undecided, Unreadable

MS_PER_S = 1000


class RequestProblem(ComityError):
    """Why a request got no answer. Subclasses fix status, word and OpenAI type."""

    status: ClassVar[int]
    word: ClassVar[str]
    openai_type: ClassVar[str]

    def __init__(
        self,
        code: str,
        text: str,
        *,
        param: str | None = None,
        detail: Mapping[str, Json] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(code, text)
        self.param = param
        self.detail = dict(detail or {})
        self.retry_after_ms = retry_after_ms

    def body(self, request_id: str | None = None) -> dict[str, Json]:
        """`{"error": {message, type, param, code, comity}}`"""
        comity: dict[str, Json] = {"code": self.code}
        if request_id is not None:
            comity["request"] = request_id
        if self.retry_after_ms is not None:
            comity["retry_after"] = self._retry_after_s()
        return {
            "error": {
                "message": self.text,
                "type": self.openai_type,
                "param": self.param,
                "code": self.word,
                "comity": comity | self.detail,
            }
        }

    def headers(self) -> dict[str, str]:
        """Headers that belong to this problem wherever it is answered."""
        if self.retry_after_ms is None:
            return {}
        return {"Retry-After": str(self._retry_after_s())}

    def _retry_after_s(self) -> int:
        return -(-(self.retry_after_ms or 0) // MS_PER_S)


class Invalid(RequestProblem, Unreadable):
    """The request cannot be read as what it should be; `param` is the field."""

    status, word, openai_type = 400, "invalid", "invalid_request_error"


class Unauthenticated(RequestProblem, Refused):
    """No credential, or none that we know. The text does not say which part was wrong."""

    status, word, openai_type = 401, "unauthenticated", "authentication_error"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="comity"'}


class Forbidden(RequestProblem, Refused):
    """The caller is known and may not do this."""

    status, word, openai_type = 403, "forbidden", "permission_error"


class NotFound(RequestProblem, Refused):
    """There is no such thing, or it is another tenant's: the two look the same."""

    status, word, openai_type = 404, "not_found", "invalid_request_error"


class Infeasible(RequestProblem, Refused):
    """No allowed plan can do this: an honest refusal with the rules that bind (routing.md 1)."""

    status, word, openai_type = 409, "infeasible", "infeasible_error"

    def __init__(
        self,
        text: str,
        *,
        binding: Sequence[str],
        eliminated: Mapping[str, int],
        best_achievable: Mapping[str, Json],
        smallest_relaxation: Mapping[str, Json] | None,
        rejected: Sequence[Mapping[str, Json]] = (),
        receipt: str | None = None,
        code: str = "request.infeasible",
    ) -> None:
        """binding: a minimal set of rules that conflict. eliminated: candidates lost per rule.

        best_achievable: per numeric rule the best value if that rule alone were relaxed.
        smallest_relaxation: the fewest rules to drop and what becomes possible; None if nothing helps.
        rejected: per domain, the rules that reject it. receipt: id of the signed refusal.
        """
        detail: dict[str, Json] = {
            "binding": list(binding),
            "eliminated": dict(eliminated),
            "best_achievable": dict(best_achievable),
            "smallest_relaxation": None if smallest_relaxation is None else dict(smallest_relaxation),
            "rejected": [dict(entry) for entry in rejected],
        }
        self.receipt = receipt
        if receipt is not None:
            detail["receipt"] = receipt
        super().__init__(code, text, detail=detail)

    def headers(self) -> dict[str, str]:
        """The stock client repeats a 409 by itself; this one will not change. A refusal is a receipt too."""
        receipt = {} if self.receipt is None else {"X-Comity-Receipt": self.receipt}
        return {"x-should-retry": "false", **receipt}


class Shed(RequestProblem, Undecided):
    """Too much at once; come again after `retry_after_ms`."""

    status, word, openai_type = 429, "shed", "rate_limit_error"

    def __init__(self, code: str, text: str, *, retry_after_ms: int) -> None:
        super().__init__(code, text, retry_after_ms=retry_after_ms)


class Upstream(RequestProblem, Undecided):
    """A domain, node or engine failed, or proved less than it must."""

    status, word, openai_type = 502, "upstream", "upstream_error"


class Unavailable(RequestProblem, Undecided):
    """This broker takes no work now: it drains or is not ready."""

    status, word, openai_type = 503, "unavailable", "server_error"

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "Connection": "close"}


class Deadline(RequestProblem, Undecided):
    """The request's time is over."""

    status, word, openai_type = 504, "deadline", "timeout_error"


class Defect(RequestProblem):
    """A defect of ours. The text tells the caller nothing; the log tells the operator."""

    status, word, openai_type = 500, "internal", "server_error"


PROBLEMS: tuple[type[RequestProblem], ...] = (
    Invalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    Infeasible,
    Shed,
    Upstream,
    Unavailable,
    Deadline,
    Defect,
)


def problem_of(error: Exception) -> RequestProblem:
    """Any exception as a problem: a field's, one that is typed already, one of the house, or a defect."""
    if isinstance(error, RequestProblem):
        return error
    if isinstance(error, InvalidField):
        return Invalid(error.code, error.text, param=error.field)
    if isinstance(error, TimeoutError):
        return Deadline("request.timeout", "the request's time is over")
    if isinstance(error, ComityError):
        return Upstream(error.code, error.text)
    return Defect("broker.defect", "an unexpected error in this broker; its log has the details")
