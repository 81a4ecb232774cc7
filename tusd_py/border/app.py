"""The ASGI border: routes, the body, CORS, errors.

What a request means is decided in protocol/, what is done about it in engine.py.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HTTPRequest
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..engine import Engine
from ..metrics import count_body, exposition
from ..ports import LeaseLost, WrongLedger
from ..protocol import tus1
from ..protocol.fields import build_content_disposition, build_content_type, parse_metadata
from ..protocol.messages import Append, Create, Describe, Download, Inspect, Reply, Request, Terminate
from ..protocol.refusals import BodyLost, Internal, Refusal, Unavailable, UploadLocked
from ..protocol.upload import Upload
from ..settings import Settings
from ..wiring import Service
from .body import AsgiBody, carrier_of
from .forwarded import Proxies

LINGER_BYTES = 64 * 1024 * 1024  # read and dropped behind a refusal, so that the client gets to read it: a connection
LINGER_S = 2.0  # that is closed over unread bytes is reset, and the answer is lost on the way
CANCELLED_S = 1.0  # to answer a request that the server has cancelled: hypercorn sends nothing on HTTP/2 any more

log = logging.getLogger("tusd_py")


def create_app(settings: Settings | None = None) -> Starlette:
    """Return the upload server as an ASGI application; without settings the TUSD_PY_... variables tell.

    It can be mounted into another Starlette or FastAPI application: Mount("/", create_app(settings)). It then opens
    its ledger at the first request; give lifespan=app.router.lifespan_context to the parent to open it at the start.
    """
    settings = settings or Settings.from_env()
    service = Service(settings)
    uploads = Uploads(service)

    async def healthz(request: HTTPRequest) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: HTTPRequest) -> Response:
        try:
            await (await service.engine()).ready()
        except Unavailable as exc:
            return JSONResponse({"status": "unavailable", "detail": exc.detail}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def metrics(request: HTTPRequest) -> Response:
        return Response(exposition(), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route(settings.base_path.rstrip("/") or "/", uploads),
            Route(settings.base_path + "{upload_id:path}", uploads),
        ],
        middleware=[
            Middleware(TusResumable),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origin,
                allow_methods=["POST", "HEAD", "PATCH", "DELETE", "GET", "OPTIONS"],
                allow_headers=["*"],
                expose_headers=tus1.EXPOSED_HEADERS,
                max_age=86400,  # seconds; browsers cut it to what they allow
            ),
        ],
        lifespan=service.lifespan,
    )


class TusResumable:
    """Puts Tus-Resumable on the answers that did not come from the dialect: preflights, 404s of the router.

    "The `Tus-Resumable` header MUST be included in every request and response except for `OPTIONS` requests." (Core)
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Tus-Resumable", tus1.VERSION)
                if scope["method"] == "OPTIONS":
                    headers.setdefault("Tus-Version", tus1.VERSION)
            await send(message)

        await self._app(scope, receive, tell if scope["type"] == "http" else send)


class Uploads:
    """The ASGI application under the base path."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._proxies = Proxies(service.settings.behind_proxy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        request = self._request(scope, headers)
        body = self._body(scope, receive, 0 if has_no_body(headers, scope["http_version"]) else None)
        if "expect" not in headers:  # a client that waits to be asked for the body may be refused without it
            body.begin()
        try:
            try:
                engine = await self._service.engine()
                await check_body_is_there(scope, headers, body)
                if request.is_streamed and not await body.has_more() and body.ended:
                    request = replace(request, is_streamed=False)  # the stream has ended at once
                work = carry_out(engine, request, body)
                answer = await (work if body.ended else self._service.leaving.carry(body, work))
            except Refusal as refusal:
                answer = tus1.refused(refusal, request.method)
            except WrongLedger as wrong:  # mounted, and opened by this request; `tusd-py serve` looks before
                log.error("%s", wrong)
                answer = tus1.refused(Unavailable("The upload ledger is not that of the upload folder"), request.method)
            except LeaseLost as lost:
                # Taken over while this request was frozen or too slow: what was not acknowledged is sent again.
                locked = UploadLocked(f"Another request has taken over: {lost}; ask for the offset and resume")
                answer = tus1.refused(locked, request.method)
            except Exception:
                log.exception("%s %s failed", request.method, request.uri)
                answer = tus1.refused(Internal("The server failed; what was acknowledged is safe"), request.method)
            if is_cancelled():
                with suppress(TimeoutError):
                    async with asyncio.timeout(CANCELLED_S):
                        await send_answer(answer, body, scope, receive, send)
            else:
                await send_answer(answer, body, scope, receive, send)
        finally:
            body.close()
            if body.moved:
                count_body(body.carried_by, body.moved)

    def _body(self, scope: Scope, receive: Receive, length: int | None) -> AsgiBody:
        """Return the request's body, carried by the kernel where the server can (kernel.py) and the settings allow."""
        carrier = carrier_of(scope) if self._settings.splice == "auto" else None
        make = carrier.body if carrier else AsgiBody
        return make(receive, length, self._settings.read_timeout)

    def _request(self, scope: Scope, headers: Mapping[str, tuple[str, ...]]) -> Request:
        client = scope.get("client")
        path = scope.get("root_path", "") + self._settings.base_path
        query = scope["query_string"].decode("latin-1")
        return Request(
            method=scope["method"],
            upload_id=scope["path_params"].get("upload_id", ""),
            headers=headers,
            creation_url=self._proxies.creation_url(
                scope["scheme"], headers, client[0] if client and client[0] else None, path, scope["path"]
            ),
            uri=scope["path"] + ("?" + query if query else ""),
            is_streamed=is_streamed(headers, scope["http_version"]),
            remote_addr=f"{client[0]}:{client[1]}" if client else "",
        )


async def check_body_is_there(scope: Scope, headers: Mapping[str, tuple[str, ...]], body: AsgiBody) -> None:
    """Raise BodyLost when the ASGI server has lost the body to an Upgrade header, as uvicorn on plain httptools does.

    The application sees an empty body then, and the bytes may come as further requests.
    """
    announced = "transfer-encoding" in headers or headers.get("content-length", ("0",)) != ("0",)
    if "upgrade" in headers and announced and "tusd_py.http1" not in scope.get("extensions", {}):
        if await body.has_more():
            return
        raise BodyLost(
            "The body was lost: the server stopped reading at the Upgrade header; send the request without it",
            headers=(("Connection", "close"),),
        )


async def carry_out(engine: Engine, request: Request, body: AsgiBody) -> Reply | Response:
    """Return the answer to a request. Raises Refusal, LeaseLost."""
    match tus1.read(request):
        case Describe():
            return tus1.described(engine.limits)
        case Create() as create:
            return tus1.created(await engine.create(create, body, request), request)
        case Append() as append:
            return tus1.appended(await engine.append(append, body, request), append, is_whole=body.ended)
        case Inspect(upload_id):
            return tus1.inspected(await engine.inspect(upload_id))
        case Terminate(upload_id):
            await engine.terminate(upload_id)
            return tus1.terminated()
        case Download(upload_id):
            upload, path = await engine.locate(upload_id)
            return download(upload, path, request)


def download(upload: Upload, path: Path, request: Request) -> Response:
    """Return the answer to a GET: the file, a range of it, or 304. A browser never runs what was uploaded."""
    metadata = parse_metadata(upload.metadata)
    headers = {
        "ETag": f'"{upload.id}"',  # the bytes of a finished upload never change
        "Cache-Control": "private, no-cache",  # kept by the browser, asked for again: an upload can be terminated
        "Content-Disposition": build_content_disposition(metadata),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; sandbox",
    }
    if headers["ETag"] in request.headers.get("if-none-match", ()):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, headers=headers, media_type=build_content_type(metadata))


def is_cancelled() -> bool:
    """Return whether the server has cancelled this request, which has yielded for that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def send_answer(answer: Reply | Response, body: AsgiBody, scope: Scope, receive: Receive, send: Send) -> None:
    """Send what carry_out() returned, or what stands for what it raised."""
    if isinstance(answer, Reply):
        await send_reply(answer, body, send)
    else:
        await answer(scope, receive, send)


async def send_reply(reply: Reply, body: AsgiBody, send: Send) -> None:
    """Send the reply. When the body was not read to its end the connection is closed, after the reply got through."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    if reply.status != 204:
        headers.append((b"content-length", str(len(reply.body)).encode()))
    if body.ended:
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})
        return
    if (b"connection", b"close") not in headers:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": True})
    await body.discard(LINGER_BYTES, LINGER_S)
    await send({"type": "http.response.body", "body": b""})


def headers_of(scope: Scope) -> dict[str, tuple[str, ...]]:
    """Return all values of every header, in order."""
    headers: dict[str, tuple[str, ...]] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        headers[name] = (*headers.get(name, ()), raw_value.decode("latin-1"))
    return headers


def has_no_body(headers: Mapping[str, tuple[str, ...]], http_version: str) -> bool:
    """Return whether no body comes, as far as the headers say; the length of one is the dialect's to judge."""
    if is_streamed(headers, http_version):
        return False
    return "transfer-encoding" not in headers and headers.get("content-length", ("0",)) == ("0",)


def is_streamed(headers: Mapping[str, tuple[str, ...]], http_version: str) -> bool:
    """Return whether only the stream says if there is a body: HTTP/2 and HTTP/3 without Content-Length.

    In HTTP/1 such a request has no body (RFC 9112, 6.3).
    """
    return not http_version.startswith("1") and "transfer-encoding" not in headers and "content-length" not in headers
