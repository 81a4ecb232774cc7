"""SIGTERM on every ASGI server: a body under way goes on for the grace, then yields, whatever its form."""

import asyncio
import base64
import hashlib
import os
import select
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from tests.support import tus
from tests.support.processes import eventually, running_asgi, running_server
from tusd_py.leaving import Leaving
from tusd_py.ports import Sink

KIB = 1024
SOURCE = os.urandom(1024 * KIB)
SHA1 = base64.b64encode(hashlib.sha1(SOURCE).digest()).decode()

UVICORN = ("uvicorn", "--port", "{port}", "--factory", "tusd_py.app:create_app")
HYPERCORN = ("hypercorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "10", "tusd_py.app:create_app()")
MOUNTED = """
from starlette.applications import Starlette
from starlette.routing import Mount
from tusd_py import create_app

app = Starlette(routes=[Mount("/", create_app())])
"""
SERVERS = ("ours", "two workers", "httptools", "h11", "tls", "hypercorn", "hypercorn's worker", "mounted")
FORMS = ("small", "large", "chunked", "checksum", "small chunked", "chunked checksum")
CASES = [
    *(("ours", form, method) for form in FORMS for method in ("PATCH", "POST")),
    *((kind, form, "PATCH") for kind in SERVERS[1:] for form in ("large", "chunked")),
]


@contextmanager
def leaving_server(kind: str, folder: Path) -> "Iterator[tuple[int, subprocess.Popen[bytes]]]":
    """A server of this kind that lets bodies go on for a second after SIGTERM; gives its port and process."""
    env = {"TUSD_PY_GRACE": "1"}
    command: tuple[str, ...]
    match kind:
        case "ours" | "two workers":
            workers = "2" if kind == "two workers" else "1"
            with running_server(folder, "--grace", "1", "--workers", workers) as server:
                yield int(server.url.split(":")[2].partition("/")[0]), server.process
            return
        case "httptools" | "h11":
            command = (*UVICORN, "--http", kind)
        case "tls":
            folder.mkdir(exist_ok=True)
            trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "pem")
            pem = str(folder / "pem")
            command = (*UVICORN, "--http", "tusd_py.server:KernelProtocol", "--ssl-keyfile", pem, "--ssl-certfile", pem)
        case "hypercorn":
            command = (*HYPERCORN, "--workers", "0")
        case "hypercorn's worker":  # it gets no signal: its parent tells it to end, and it cancels what runs
            command = (*HYPERCORN, "--graceful-timeout", "1", "--workers", "1")
        case _:
            folder.mkdir(exist_ok=True)
            (folder / "mounted_uploads.py").write_text(MOUNTED)
            command = ("uvicorn", "--port", "{port}", "--app-dir", str(folder), "mounted_uploads:app")
    with running_asgi(folder, command, **env) as running:
        yield running


def connect(port: int, kind: str) -> socket.socket:
    """Return a connection to the server."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    if kind == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(sock)
    return sock


def head_of(method: str, path: str, form: str, length: int) -> bytes:
    """Return the head of a request whose body comes in this form; the client waits to be asked for the body."""
    lines = [
        f"{method} {path} HTTP/1.1",
        *("Host: h", "Tus-Resumable: 1.0.0", "Expect: 100-continue", f"Content-Type: {tus.BYTES['Content-Type']}"),
        f"Upload-Length: {length}" if method == "POST" else "Upload-Offset: 0",
        "Transfer-Encoding: chunked" if "chunked" in form else f"Content-Length: {length}",
    ]
    if "checksum" in form:
        lines.append(f"Upload-Checksum: sha1 {SHA1}")
    return "\r\n".join([*lines, "", ""]).encode()


def piece(data: bytes, form: str) -> bytes:
    """Return bytes of a body as they go over the wire."""
    return b"%x\r\n%s\r\n" % (len(data), data) if "chunked" in form else data


@pytest.mark.parametrize(("kind", "form", "method"), CASES)
def test_a_body_yields_when_its_server_leaves(tmp_path: Path, kind: str, form: str, method: str) -> None:
    length = (60 if "small" in form else 900) * KIB
    first, second = SOURCE[: length // 3], SOURCE[length // 3 : length // 2]
    path = "/files/"
    with leaving_server(kind, tmp_path) as (port, process):
        if method == "PATCH":
            with connect(port, kind) as sock:
                ask = f"POST /files/ HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\nUpload-Length: {length}\r\n\r\n"
                sock.sendall(ask.encode())
                path += tus.answer(sock)[1]["location"].rpartition("/")[2]
        with connect(port, kind) as sock:
            sock.sendall(head_of(method, path, form, length))

            assert 100 == tus.answer(sock)[0]

            sock.sendall(piece(first, form))
            process.send_signal(signal.SIGTERM)
            sock.sendall(piece(second, form))
            status, headers = tus.answer(sock)
        process.wait(20)
    stored = 0 if "checksum" in form else length // 2
    if method == "POST":
        path = "/files/" + headers["location"].rpartition("/")[2]

        assert (201, str(stored)) == (status, headers["upload-offset"])
    elif "checksum" in form or "chunked" in form:
        assert (503, str(stored), "1") == (status, headers["upload-offset"], headers["retry-after"])
    else:
        assert (204, str(stored)) == (status, headers["upload-offset"])
    with running_server(tmp_path) as server:
        url = server.url + tus.upload_id(path)

        assert stored == tus.offset_of(url)
        assert 204 == tus.patch(url, stored, SOURCE[stored:length]).status_code
    assert SOURCE[:length] == (tmp_path / "uploads" / tus.upload_id(path)).read_bytes()


class Running:
    """A body under way, and the work that uses it."""

    def __init__(self) -> None:
        self.received_at = 0.0
        self.ended = False
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        self._stopped.set()

    async def work(self) -> str:
        await self._stopped.wait()
        await asyncio.sleep(0)  # it has something left to do
        return "yielded"

    async def move(self, sink: Sink, at_most: int | None) -> int:
        raise AssertionError

    async def has_more(self) -> bool:
        raise AssertionError

    async def hurry(self) -> None:
        raise AssertionError


@pytest.mark.anyio
async def test_a_body_whose_request_is_cancelled_yields_in_order() -> None:
    body = Running()
    carrying = asyncio.create_task(Leaving(0.0).carry(body, body.work()))
    await asyncio.sleep(0)
    carrying.cancel()

    assert "yielded" == await carrying


@pytest.mark.anyio
async def test_finish_waits_for_every_body_and_for_none_that_hangs() -> None:
    leaving, bodies = Leaving(0.0), [Running(), Running()]
    carrying = [asyncio.create_task(leaving.carry(body, body.work())) for body in bodies]
    hanging = asyncio.create_task(leaving.carry(Running(), asyncio.Event().wait()))
    await asyncio.sleep(0.01)
    await leaving.finish(0.1)

    assert ["yielded", "yielded"] == [one.result() for one in carrying]
    assert not hanging.done()

    await leaving.finish(0.0)
    hanging.cancel()
    await asyncio.sleep(0)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_signal_reaches_every_body_and_then_whoever_heard_it_before(when: str) -> None:
    """Also a body that begins when the process is leaving already; the former handler is back at the end."""
    heard: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        ours, leaving, body = signal.getsignal(signal.SIGTERM), Leaving(0.0), Running()
        with leaving.listening():
            if when == "before":
                signal.raise_signal(signal.SIGTERM)
                await asyncio.sleep(0.01)
            carrying = asyncio.create_task(leaving.carry(body, body.work()))
            if when == "after":
                await asyncio.sleep(0.01)
                signal.raise_signal(signal.SIGTERM)

            assert "yielded" == await asyncio.wait_for(carrying, 5)
        assert [signal.SIGTERM] == heard
        assert ours is signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, former)


@pytest.mark.anyio
async def test_a_handler_that_the_server_has_put_back_stays() -> None:
    former = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with Leaving(0.0).listening():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.SIG_IGN == signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, former)


@pytest.mark.anyio
async def test_asyncios_own_handler_still_hears() -> None:
    heard, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, heard.set)
    try:
        with Leaving(0.0).listening():
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(heard.wait(), 5)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@pytest.mark.parametrize("who", ["PATCH", "DELETE", "HEAD"])
@pytest.mark.parametrize("form", FORMS)
def test_a_body_that_yields_to_another_request_answers_the_same(tmp_path: Path, form: str, who: str) -> None:
    """A PATCH or a DELETE wants the upload; HEAD asks a client that is silent."""
    length = (60 if "small" in form else 900) * KIB
    part = SOURCE[: length // 3]
    stored = 0 if "checksum" in form else len(part)
    with running_server(tmp_path) as server:
        url, port = tus.create(server.url, length), int(server.url.split(":")[2].partition("/")[0])
        with connect(port, "ours") as sock:
            sock.sendall(head_of("PATCH", "/files/" + tus.upload_id(url), form, length))

            assert 100 == tus.answer(sock)[0]

            sock.sendall(piece(part, form))
            match who:
                case "PATCH":
                    assert tus.patch(url, stored, SOURCE[stored:length]).status_code in (204, 409)  # what is on its way
                case "DELETE":
                    assert 204 == httpx.delete(url, headers=tus.TUS).status_code
                case _:
                    readable = eventually(lambda: tus.head(url) and select.select([sock], [], [], 0)[0])

                    assert [sock] == readable
            status, headers = tus.answer(sock)
    if "checksum" in form or "chunked" in form:
        assert (503, "1") == (status, headers["retry-after"])
    else:
        assert 204 == status
    assert int(headers["upload-offset"]) in ({stored} if who == "HEAD" else {0, stored})


@pytest.mark.parametrize("kind", ["hypercorn", "hypercorn's worker"])
def test_an_http2_body_without_a_length_yields_when_its_server_leaves(tmp_path: Path, kind: str) -> None:
    """The worker has cancelled what sends on HTTP/2 by then: the head of the answer gets through, and nothing hangs."""
    (tmp_path / "video").write_bytes(SOURCE)
    with leaving_server(kind, tmp_path) as (port, process), (tmp_path / "video").open("rb") as video:
        url = f"http://127.0.0.1:{port}/files/"
        url += tus.upload_id(tus.create(url, len(SOURCE)))
        options = ["--max-time", "30", "--limit-rate", "50k", "-X", "PATCH", "-T", "-"]
        for name, text in {**tus.BYTES, "Upload-Offset": "0"}.items():
            options += ["-H", f"{name}: {text}"]
        command = ["curl", "-si", "--http2-prior-knowledge", *options, url]
        with subprocess.Popen(command, stdin=video, stdout=subprocess.PIPE) as curl:
            assert curl.stdout
            eventually(lambda: tus.offset_of(url) > 0)
            process.terminate()
            answer = curl.stdout.read().decode().lower()

        assert 0 == process.wait(20)
    assert answer.startswith("http/2 503")
    assert 0 < int(answer.partition("upload-offset: ")[2].split()[0]) < len(SOURCE)
