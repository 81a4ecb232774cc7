"""Clients that leave at once behind their bytes, or end only their own side: what arrived counts, and is answered."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import tus
from tests.support.processes import eventually, running_asgi, running_server

KIB = 1024
SOURCE = os.urandom(800 * KIB)
LENGTHS = (1, 1000, 64 * KIB - 1, 64 * KIB, 200 * KIB, 800 * KIB)
UVICORN = ("uvicorn", "--port", "{port}", "--factory", "tusd_py.app:create_app")
Place = tuple[str, int, "socket.AddressFamily"]  # host or path, port, family


@pytest.fixture(scope="module", params=["tcp", "unix", "none", "asyncio"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Where a server listens: ours on TCP, on a unix socket, without fsync, on asyncio's loop."""
    folder = tmp_path_factory.mktemp("departures")
    match request.param:
        case "asyncio":
            command = (*UVICORN, "--loop", "asyncio", "--http", "tusd_py.server:KernelProtocol")
            with running_asgi(folder, command) as (port, _):
                yield "127.0.0.1", port, socket.AF_INET
        case "unix":
            with running_server(folder, "--unix-socket", str(folder / "s")):
                yield str(folder / "s"), 0, socket.AF_UNIX
        case _:
            flags = ("--durability", "none") if request.param == "none" else ()
            with running_server(folder, *flags) as server:
                yield "127.0.0.1", urlsplit(server.url).port or 0, socket.AF_INET


def connect(place: Place) -> socket.socket:
    """Return a connection to the server."""
    host, port, family = place
    sock = socket.socket(family)
    sock.settimeout(20)
    sock.connect(host if family == socket.AF_UNIX else (host, port))
    return sock


def ask(place: Place, method: str, path: str, *lines: str) -> tuple[int, dict[str, str]]:
    """Return status and headers of the answer to a request without a body."""
    with connect(place) as sock:
        sock.sendall(head_of(method, path, *lines))
        return tus.answer(sock)


def head_of(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: h", "Tus-Resumable: 1.0.0", *lines, "", ""]).encode()


def create(place: Place, length: int) -> str:
    """Return the path of a new upload."""
    location = ask(place, "POST", "/files/", f"Upload-Length: {length}")[1]["location"]
    return "/files/" + location.rpartition("/")[2]


def appending(path: str, length: int, coding: str, body: bytes, *, is_whole: bool) -> bytes:
    """Return a PATCH of a body that is announced with length, in this coding; a body that is not whole has no end."""
    announced = f"Content-Length: {length}"
    if coding == "chunked":
        announced, body = "Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(body), body)
        body += b"0\r\n\r\n" if is_whole else b""
    return head_of("PATCH", path, "Upload-Offset: 0", f"Content-Type: {tus.BYTES['Content-Type']}", announced) + body


def offset_of(place: Place, path: str) -> int:
    status, headers = ask(place, "HEAD", path)
    return int(headers["upload-offset"]) if status == 200 else -1


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("part", [1.0, 0.5], ids=["whole", "half"])
def test_a_client_that_leaves_at_once_keeps_every_byte_that_arrived(
    place: Place, part: float, how: str, coding: str
) -> None:
    # At a reset a client's kernel drops what it has not sent: what fits the server's window is sure to arrive.
    leave_at_once(place, LENGTHS if how == "FIN" else LENGTHS[:4], part, how, coding)


def leave_at_once(place: Place, lengths: tuple[int, ...], part: float, how: str, coding: str) -> None:
    """Send this part of a body of each length, and leave; all of it must be there."""
    for length in lengths:
        path, sent = create(place, length), max(1, int(length * part))
        with connect(place) as sock:
            sock.sendall(appending(path, length, coding, SOURCE[:sent], is_whole=part == 1.0))
            if how == "RST" and place[2] == socket.AF_INET:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        eventually(lambda path=path, sent=sent: sent == offset_of(place, path), what=f"{sent} of {length} bytes")  # type: ignore[misc]


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_half_closed_client_gets_its_answer(place: Place, length: int, coding: str) -> None:
    """Whole bodies 204; of half a body what arrived, 503 where a 204 would be taken for a failure."""
    for sent in {length, max(1, length // 2)}:
        path = create(place, length)
        with connect(place) as sock:
            sock.sendall(appending(path, length, coding, SOURCE[:sent], is_whole=sent == length))
            sock.shutdown(socket.SHUT_WR)
            status, headers = tus.answer(sock)

            assert (204 if sent == length or coding == "length" else 503) == status
            assert str(sent) == headers["upload-offset"]
            while sock.recv(65536):  # to the end: the server closes behind its answer
                pass
        assert sent == offset_of(place, path)


@pytest.mark.parametrize("method", ["POST", "HEAD", "GET", "OPTIONS", "DELETE"])
def test_a_half_closed_client_gets_the_answer_to_every_method(place: Place, method: str) -> None:
    path = create(place, 0)
    with connect(place) as sock:
        sock.sendall(
            head_of(method, "/files/" if method == "POST" else path, *["Upload-Length: 5"][: method == "POST"])
        )
        sock.shutdown(socket.SHUT_WR)

        assert {"POST": 201, "HEAD": 200, "GET": 200}.get(method, 204) == tus.answer(sock)[0]


def test_requests_pipelined_by_a_half_closed_client_are_all_answered(place: Place) -> None:
    paths = [create(place, 1000) for _ in range(5)]
    requests = [appending(path, 1000, "length", SOURCE[:1000], is_whole=True) for path in paths]
    with connect(place) as sock:
        sock.sendall(b"".join(requests))
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while piece := sock.recv(65536):
            received += piece

    assert 5 == received.count(b"HTTP/1.1 204")
    assert [1000] * 5 == [offset_of(place, path) for path in paths]


@pytest.mark.parametrize("implementation", ["httptools", "h11"])
def test_uvicorns_own_protocol_loses_no_small_body_of_a_client_that_leaves_at_once(
    tmp_path: Path, implementation: str
) -> None:
    """It drops what it has read when the connection is lost: the application reads ahead of everything else."""
    with running_asgi(tmp_path, (*UVICORN, "--http", implementation)) as (port, _):
        place = "127.0.0.1", port, socket.AF_INET
        for how in ("FIN", "RST"):
            for coding in ("length", "chunked"):
                for part in (1.0, 0.5):
                    leave_at_once(place, LENGTHS[:3], part, how, coding)
