"""The scenarios. The client uses bare sockets and sendfile, so that it needs little CPU time itself."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
HEAD = "HTTP/1.1\r\nHost: 127.0.0.1\r\nTus-Resumable: 1.0.0\r\n"


class Client:
    """One keep-alive connection to a server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._sock = self._connect()

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def create(self, length: int) -> str:
        """Return the path of a new upload."""
        status, headers = self.ask(f"POST /files/ {HEAD}Upload-Length: {length}\r\nContent-Length: 0\r\n\r\n".encode())
        assert status == 201, (status, headers)
        location = headers["location"]
        return "/" + location.split("://", 1)[-1].partition("/")[2] if "://" in location else location

    def patch(self, path: str, offset: int, file: Path, count: int) -> None:
        """Send count bytes of the file, from offset on, in one PATCH."""
        head = (
            f"PATCH {path} {HEAD}Content-Type: application/offset+octet-stream\r\n"
            f"Upload-Offset: {offset}\r\nContent-Length: {count}\r\n\r\n"
        )
        self._sock.sendall(head.encode())
        with file.open("rb") as source:
            self._sock.sendfile(source, offset, count)
        status, headers = self._answer()
        assert (status, headers.get("upload-offset")) == (204, str(offset + count)), (status, headers)

    def head(self, path: str) -> None:
        """Send a HEAD."""
        assert self.ask(f"HEAD {path} {HEAD}\r\n".encode())[0] == 200

    def ask(self, request: bytes) -> tuple[int, dict[str, str]]:
        """Send a request without a body; return the status and headers of the answer."""
        self._sock.sendall(request)
        return self._answer(is_head=request.startswith(b"HEAD"))

    def _answer(self, *, is_head: bool = False) -> tuple[int, dict[str, str]]:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = self._sock.recv(65536)
            if not piece:
                raise ConnectionError("closed")
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        left = 0 if is_head else int(headers.get("content-length", 0)) - len(body)
        while left > 0:
            left -= len(self._sock.recv(left))
        if headers.get("connection", "").lower() == "close":
            self._sock.close()
            self._sock = self._connect()
        return int(lines[0].split()[1]), headers


@dataclass(frozen=True)
class Scenario:
    """One scenario. run() carries it out and returns the number of units; its docstring goes into the report."""

    name: str
    unit: str  # "MiB" or "requests"
    run: Callable[[int, Path], float]  # given the port and a file of random bytes


def one_big(port: int, file: Path) -> float:
    """One PATCH with the whole file."""
    size = file.stat().st_size
    client = Client(port)
    client.patch(client.create(size), 0, file, size)
    return size / MIB


def eight_at_once(port: int, file: Path) -> float:
    """Eight PATCHes at once, each with an eighth of the file."""
    size = file.stat().st_size // 8

    def one() -> None:
        client = Client(port)
        client.patch(client.create(size), 0, file, size)

    at_once([one] * 8)
    return size * 8 / MIB


def in_chunks(port: int, file: Path) -> float:
    """A quarter of the file in PATCHes of 5 MiB, one after the other."""
    chunk = 5 * MIB
    count = max(1, file.stat().st_size // 4 // chunk)
    client = Client(port)
    path = client.create(count * chunk)
    for n in range(count):
        client.patch(path, n * chunk, file, chunk)
    return count * chunk / MIB


def small(port: int, file: Path) -> float:
    """A creation and one PATCH of 16 KiB, 100 times on each of 4 connections; one upload counts as one request."""

    def some() -> None:
        client = Client(port)
        for _ in range(100):
            client.patch(client.create(16 * KIB), 0, file, 16 * KIB)

    at_once([some] * 4)
    return 400


def heads(port: int, file: Path) -> float:
    """HEAD of one upload, 500 times on each of 4 connections."""
    path = Client(port).create(10)

    def some() -> None:
        client = Client(port)
        for _ in range(500):
            client.head(path)

    at_once([some] * 4)
    return 2000


def slow(port: int, file: Path) -> float:
    """500 clients at 20 kB/s each for 5 s; the interesting figures are CPU time and memory."""
    clients = [Client(port) for _ in range(500)]
    length, piece = 100_000, b"x" * 2000
    socks = []
    for client in clients:
        path = client.create(length)
        head = f"PATCH {path} {HEAD}Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
        client._sock.sendall((head + f"Content-Length: {length}\r\n\r\n").encode())
        socks.append(client)
    begun_at = time.monotonic()
    for n in range(50):
        for client in socks:
            client._sock.sendall(piece)
        time.sleep(max(0.0, begun_at + (n + 1) * 0.1 - time.monotonic()))
    for client in socks:
        status, headers = client._answer()
        assert (status, headers["upload-offset"]) == (204, str(length)), (status, headers)
    return length * 500 / MIB


SCENARIOS = [
    Scenario("one big PATCH", "MiB", one_big),
    Scenario("eight at once", "MiB", eight_at_once),
    Scenario("5 MiB chunks", "MiB", in_chunks),
    Scenario("16 KiB uploads", "requests", small),
    Scenario("HEAD", "requests", heads),
    Scenario("500 slow clients", "MiB", slow),
]


def at_once(calls: list[Callable[[], None]]) -> None:
    """Run each call in a thread of its own; raise the first exception that one of them raised."""
    failures: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
