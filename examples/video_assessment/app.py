"""The service: POST /hooks receives callbacks, a worker assesses the videos, GET /assessments shows the results."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from . import pages
from .assess import NotAVideo, assess
from .hooks import BadHook, BadSignature, read_hook
from .store import Store

MAX_BODY = 1024 * 1024  # bytes; a callback has a few kilobytes
MAX_LISTED = 1000

log = logging.getLogger("video_assessment")


@dataclass(frozen=True, slots=True)
class Settings:
    """The service's settings."""

    secret: str  # shared with the upload server: whsec_ and Base64
    videos_dir: Path  # the upload folder's path on this host
    database: Path


def create_app(settings: Settings) -> Starlette:
    """Return the service as an ASGI application."""
    store = Store(settings.database)
    news = asyncio.Event()

    async def hooks(request: Request) -> Response:
        body = await read_body(request)
        if body is None:
            return problem(413, f"the body is larger than {MAX_BODY} bytes")
        try:
            hook = read_hook(settings.secret, request.headers, body)
        except BadSignature as exc:
            return problem(401, f"the signature is not valid: {exc}")
        except BadHook as exc:
            return problem(422, str(exc))
        if hook is None:
            return JSONResponse({"ignored": "only finished uploads are assessed"})
        assessment_id = await asyncio.to_thread(store.add, hook)
        if assessment_id is None:
            return JSONResponse({"repeated": hook.event_id})
        news.set()
        return JSONResponse({"id": assessment_id}, status_code=202)

    async def listing(request: Request) -> Response:
        limit = request.query_params.get("limit", "100")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 0 < int(limit) <= MAX_LISTED):
            return problem(400, f"limit must be a number from 1 to {MAX_LISTED}")
        found = await asyncio.to_thread(store.newest, int(limit))
        return HTMLResponse(pages.listing(found)) if wants_html(request) else JSONResponse(found)

    async def one(request: Request) -> Response:
        found = await asyncio.to_thread(store.one, request.path_params["assessment_id"])
        if found is None:
            return problem(404, "there is no such assessment")
        return HTMLResponse(pages.one(found)) if wants_html(request) else JSONResponse(found)

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        working = asyncio.create_task(work(store, settings.videos_dir, news))
        yield
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    return Starlette(
        routes=[
            Route("/hooks", hooks, methods=["POST"]),
            Route("/assessments", listing),
            Route("/assessments/{assessment_id}", one),
            Route("/healthz", healthz),
        ],
        lifespan=lifespan,
    )


async def work(store: Store, videos_dir: Path, news: asyncio.Event) -> None:
    """Assess waiting videos until cancelled. A job that a crash interrupted is still waiting."""
    while True:
        news.clear()
        for job in await asyncio.to_thread(store.waiting):
            await asyncio.to_thread(assess_one, store, videos_dir, job)
        await news.wait()


def assess_one(store: Store, videos_dir: Path, job: dict[str, Any]) -> None:
    """Assess one video and store the result."""
    try:
        # Only the name is used: the volume may be mounted elsewhere on this host, and a path could leave the folder.
        path = (videos_dir / Path(job["path"]).name).resolve()
        if path.parent != videos_dir.resolve():
            raise NotAVideo(f"{job['path']} is not in the videos folder")
        store.done(job["id"], assess(path))
    except (NotAVideo, OSError) as exc:
        store.failed(job["id"], str(exc))
    except Exception as exc:  # an unexpected error in one video must not stop the others
        log.exception("assessment %s failed", job["id"])
        store.failed(job["id"], f"{type(exc).__name__}: {exc}")


async def read_body(request: Request) -> bytes | None:
    """Return the body, or None if it is larger than MAX_BODY."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            return None
    return body


def wants_html(request: Request) -> bool:
    """Return whether the client accepts HTML, as browsers do."""
    return "text/html" in request.headers.get("accept", "")


def problem(status: int, detail: str) -> Response:
    """Return an error in the form of RFC 9457."""
    content = {"status": status, "detail": detail}
    return JSONResponse(content, status_code=status, media_type="application/problem+json")
