"""The HTTP interface of a broker: OpenAI's routes, receipts, traces, health and metrics.

The two routes that carry prompts are plain ASGI; the others are FastAPI's. Every error has OpenAI's shape.
"""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from broker.edge.accepting.body import CallerLeft, read_body
from broker.edge.chat import BODY_S, ChatCompletions, Edge, within
from broker.edge.exchange import Model, Tenant
from broker.edge.openapi import CHAT_PATH, EXPLAIN_PATH, PAGE_HEADERS, complete, errors, page
from broker.edge.replying.reply import JSON_TYPE
from broker.problems import (
    Defect,
    Forbidden,
    Invalid,
    NotFound,
    RequestProblem,
    Unavailable,
    Upstream,
    problem_of,
)
from schemas.canonical import Json, write_json
from schemas.errors import ComityError

BUNDLE_TYPE: Final = "application/zip"
MAX_ID_CHARS: Final = 128
_DESCRIPTION: Final = (
    "One sovereign domain's border. Send OpenAI-style requests with policy tags; get an answer with a "
    "receipt that anyone can check offline, or a typed refusal that says why. A path that is not here is a "
    "404, a method that it does not have a 405, in the same shape as every error."
)


class EdgeApp(FastAPI):
    """FastAPI with our routes in its description, and the hot one in front of its stack.

    Measured: the stack of middlewares costs an eighth of what the whole edge does for a request.
    """

    def __init__(self, edge: Edge, **settings: Any) -> None:
        super().__init__(**settings)
        self._chat = ChatCompletions(edge)
        self.router.routes.append(Route(CHAT_PATH, self._chat, methods=["POST"]))  # answers 405

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == CHAT_PATH and scope["method"] == "POST":
            await self._chat(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = complete(super().openapi())
        return self.openapi_schema


def build_app(edge: Edge) -> EdgeApp:
    """The ASGI application of one broker."""
    app = EdgeApp(
        edge,
        title=f"Comity broker of {edge.domain}",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it would record paths and headers
    )
    app.add_exception_handler(ComityError, _answer_problem)
    app.add_exception_handler(CallerLeft, _answer_problem)  # nobody reads it, and nothing went wrong here
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_problem)
    _add_questions(app, edge)
    _add_records(app, edge)
    _add_operations(app, edge)
    return app


def _add_questions(app: EdgeApp, edge: Edge) -> None:
    async def explain(request: Request) -> Response:
        received_ns, headers = time.perf_counter_ns(), Headers(scope=request.scope)
        tenant = _tenant(edge, request)
        with edge.gate.enter():
            async with within(BODY_S, "request.body_slow", "the body did not arrive in time"):
                data = await read_body(request.receive, headers.get("content-length"))
            accepted = edge.acceptance.accept(data, headers, tenant, received_ns)
            return _json({"request": accepted.request_id, **await edge.dispatch.explain(accepted)})

    app.router.routes.append(Route(EXPLAIN_PATH, explain, methods=["POST"]))

    @app.get("/v1/models", summary="What may be asked for right now", responses=errors(), response_model=None)
    async def models(request: Request) -> Response:
        found = await edge.dispatch.models(_tenant(edge, request))
        return _json({"object": "list", "data": [_model(model) for model in found]})

    @app.get(
        "/v1/models/{name:path}", summary="One capability", responses=errors(NotFound), response_model=None
    )
    async def model(name: str, request: Request) -> Response:
        found = await edge.dispatch.models(_tenant(edge, request))
        wanted = next((entry for entry in found if entry.id == name), None)
        if wanted is None:
            raise NotFound("model.unknown", "no domain offers this now", param="model")
        return _json(_model(wanted))


def _add_records(app: EdgeApp, edge: Edge) -> None:
    @app.get(
        "/v1/receipts/{receipt_id}",
        summary="The receipt bundle, for `comity receipt verify`",
        responses=errors(NotFound, Upstream) | {200: {"content": {BUNDLE_TYPE: {}}}},
        response_model=None,
    )
    async def receipt(receipt_id: str, request: Request) -> Response:
        tenant = _tenant(edge, request)
        bundle = await edge.dispatch.receipt(receipt_id, tenant) if _is_id(receipt_id) else None
        if bundle is None:
            raise NotFound("receipt.unknown", "you have no receipt with this id", param="receipt_id")
        disposition = f'attachment; filename="{receipt_id}.receipt"'
        return Response(bundle, media_type=BUNDLE_TYPE, headers={"Content-Disposition": disposition})

    @app.get(
        "/v1/traces/{name}",
        summary="Where one request's time went: its spans here, by trace id or request id",
        responses=errors(NotFound),
        response_model=None,
    )
    async def trace(name: str, request: Request) -> Response:
        tenant = _tenant(edge, request)
        found = edge.observability.traces.find(tenant.name, name)
        if found is None:
            raise NotFound(
                "trace.unknown", "you have no trace with this id, or it was forgotten", param="name"
            )
        return _json(found)


def _add_operations(app: EdgeApp, edge: Edge) -> None:
    unready: dict[int | str, dict[str, Any]] = {503: {"description": "Not now: `missing` says why"}}
    anybody: dict[str, Any] = {"openapi_extra": {"security": []}, "response_model": None}

    @app.get("/healthz", summary="Whether requests can be served", responses=unready, **anybody)
    @app.get("/healthz/ready", summary="The same", responses=unready, **anybody)
    async def ready() -> Response:
        missing = "draining" if edge.gate.draining else edge.dispatch.ready()
        state: dict[str, Json] = {"live": True, "ready": missing is None, "missing": missing}
        return _json(state, 200 if missing is None else Unavailable.status)

    @app.get("/healthz/live", summary="Whether the process answers at all", **anybody)
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/metrics", summary="For Prometheus", **anybody)
    async def metrics() -> Response:
        body, media = edge.observability.metrics.exposition()
        return Response(body, media_type=media)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page(app.openapi()), headers=PAGE_HEADERS)


def _tenant(edge: Edge, request: Request) -> Tenant:
    return edge.authenticator.authenticate(request.scope["headers"])


def _model(model: Model) -> dict[str, Json]:
    return {
        "id": model.id,
        "object": "model",
        "created": 0,
        "owned_by": ", ".join(model.owned_by),
        "comity": {"domains": list(model.owned_by)},
    }


def _is_id(text: str) -> bool:
    return len(text) <= MAX_ID_CHARS and text.replace("-", "").replace("_", "").isalnum() and text.isascii()


def _json(value: dict[str, Json], status: int = 200) -> Response:
    return Response(write_json(value), status, media_type=JSON_TYPE)


async def _answer_problem(_: Request, error: Exception) -> Response:
    problem = problem_of(error)
    return Response(write_json(problem.body()), problem.status, problem.headers(), JSON_TYPE)


async def _answer_http(request: Request, error: Exception) -> Response:
    """What the router itself refuses, in our shape."""
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path[:MAX_ID_CHARS]}: {error.detail}"
    kinds: dict[int, type[RequestProblem]] = {404: NotFound, 403: Forbidden, 500: Defect}
    problem = kinds.get(error.status_code, Invalid)("request.route", text)
    response = await _answer_problem(request, problem)
    response.status_code = error.status_code
    response.headers.update(error.headers or {})
    return response
