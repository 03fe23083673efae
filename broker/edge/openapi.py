"""The OpenAPI description of the edge, with the routes that FastAPI does not see, and a page to read it.

The page is ours and stands alone: a sovereign domain's documentation loads no script from elsewhere.
"""

from __future__ import annotations

from html import escape
from typing import Any, Final

from broker.problems import (
    PROBLEMS,
    Deadline,
    Defect,
    Forbidden,
    Infeasible,
    Invalid,
    RequestProblem,
    Shed,
    Unauthenticated,
    Unavailable,
    Upstream,
)
from schemas.descriptors.chat import MEMBERS
from schemas.descriptors.extension import Extension

CHAT_PATH: Final = "/v1/chat/completions"
EXPLAIN_PATH: Final = "/v1/explain"
PAGE_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_REF: Final = "#/components/schemas/"
_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h2{margin-top:2rem;font-family:ui-monospace,monospace;font-size:1rem;background:#eef3f8;padding:.4rem}"
    "td{padding:0 1rem .2rem 0;vertical-align:top}"
)


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add the plain routes, their schemas and the errors to what FastAPI generated."""
    schemas: dict[str, Any] = {}
    document["components"] = {"schemas": schemas}
    extension = Extension.model_json_schema(ref_template=_REF + "{model}")
    schemas.update(extension.pop("$defs", {}))
    schemas |= {"Comity": extension, "ChatRequest": _chat_request(), "Error": _error()}
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    for operation in (each for path in document["paths"].values() for each in path.values()):
        operation["responses"].pop("422", None)  # FastAPI's own: no route of ours validates through it
    chat = errors(Invalid, Infeasible, Shed, Upstream, Unavailable, Deadline)
    document["paths"][CHAT_PATH] = {
        "post": _operation("Answer a conversation", _CHAT_TEXT, _chat_answers() | chat)
    }
    asked: dict[int | str, Any] = {
        "200": {"description": "JSON"},
        **errors(Invalid, Shed, Unavailable, Deadline),
    }
    document["paths"][EXPLAIN_PATH] = {"post": _operation("Say what would happen", _EXPLAIN_TEXT, asked)}
    return document


_CHAT_TEXT: Final = (
    "OpenAI's request, with an optional object `comity`; the same fields can come as `X-Comity-*` headers. "
    "The answer carries a member `comity` {request, domain, receipt, promise, latency} and the headers "
    "X-Comity-Request, X-Comity-Domain, X-Comity-Receipt and X-Comity-Latency. In a stream the member comes "
    "in the last chunk before `[DONE]`, whose `choices` are empty, and the latency only there. A stream that "
    "fails ends with a chunk `error` and without `[DONE]`: it is not complete. A member of the body that is "
    "not known, or holds what it may not, is a 400 that names it. With `policy.allow_degraded`, where nobody "
    "meets the floors in `quality` or the variant, they are let go of; the member then says `degraded`, and "
    "in `lowered` which."
)
_EXPLAIN_TEXT: Final = (
    "Takes the same body and runs nothing: which domains could serve it, by which rules others are out."
)


def _operation(summary: str, text: str, answers: dict[int | str, Any]) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": _REF + "ChatRequest"}}}}
    return {
        "summary": summary,
        "description": text,
        "requestBody": body,
        "responses": answers,
    }


def _chat_answers() -> dict[int | str, Any]:
    names = ("X-Comity-Request", "X-Comity-Domain", "X-Comity-Receipt", "X-Comity-Latency")
    headers = {name: {"schema": {"type": "string"}} for name in names}
    content: dict[str, Any] = {"application/json": {}, "text/event-stream": {}}
    return {"200": {"description": "chat.completion, or its chunks", "headers": headers, "content": content}}


def _chat_request() -> dict[str, Any]:
    known = {name: {"description": text} if text else {} for name, text in sorted(MEMBERS.items())}
    return {
        "type": "object",
        "required": ["model", "messages"],
        "properties": known
        | {
            "model": {
                "type": "string",
                "description": "A capability class, `class/variant`, or either `@version`",
            },
            "messages": {"type": "array", "items": {"type": "object"}, "minItems": 1},
            "stream": {"type": "boolean"},
            "comity": {"$ref": _REF + "Comity"},
        },
        "additionalProperties": False,
    }


def _error() -> dict[str, Any]:
    words = [problem.word for problem in PROBLEMS]
    fields: dict[str, Any] = {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "param": {"type": ["string", "null"], "description": "The field that is wrong"},
        "code": {"enum": words},
        "comity": {"type": "object", "description": "Exact code, request id and the problem's own detail"},
    }
    return {"type": "object", "properties": {"error": {"type": "object", "properties": fields}}}


_HEADERS: Final[dict[type[RequestProblem], dict[str, str]]] = {
    Unauthenticated: {"WWW-Authenticate": "How to send a key"},
    Infeasible: {
        "X-Comity-Receipt": "The signed refusal",
        "x-should-retry": "false: the stock client would repeat a 409 by itself",
    },
    Shed: {"Retry-After": "Seconds until another try may find room"},
    Unavailable: {"Connection": "close"},
}


def errors(*kinds: type[RequestProblem]) -> dict[int | str, dict[str, Any]]:
    """These problems by status, and those that every request with a key may end in."""
    content = {"application/json": {"schema": {"$ref": _REF + "Error"}}}
    wanted = {Unauthenticated, Forbidden, Defect, *kinds}
    return {
        str(problem.status): {
            "description": f"{problem.word}: {problem.__doc__}",
            "headers": {
                name: {"schema": {"type": "string"}, "description": text}
                for name, text in _HEADERS.get(problem, {}).items()
            },
            "content": content,
        }
        for problem in PROBLEMS
        if problem in wanted
    }


def page(document: dict[str, Any]) -> str:
    """The description as one HTML page without scripts."""
    operations = [
        _section(path, method, operation)
        for path, methods in sorted(document["paths"].items())
        for method, operation in methods.items()
    ]
    title, text = escape(document["info"]["title"]), escape(document["info"].get("description", ""))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title}</h1><p>{text}</p><p>Machine-readable: <a href=/openapi.json>/openapi.json</a></p>"
        + "".join(operations)
        + "</html>"
    )


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{escape(status)}<td>{escape(str(answer.get('description', '')))}"
        for status, answer in sorted(operation.get("responses", {}).items())
    ]
    return (
        f"<h2>{escape(method.upper())} {escape(path)}</h2>"
        f"<p><b>{escape(operation.get('summary', ''))}</b></p>"
        f"<p>{escape(operation.get('description', ''))}</p><table>{''.join(rows)}</table>"
    )
