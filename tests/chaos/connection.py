"""HTTP on a bare connection: it shows every answer unchanged and can be closed in every way."""

import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from tests.chaos.plan import How

Address = tuple[str, int]

CONNECT_S = 5.0
ANSWER_S = 90.0  # longer than nginx waits for a replica (75 s), so that nginx gives up first
STEP = 64 * 1024  # bytes handed to the kernel at once
SIZES = (8192, 1, 65536, 4096, 100_000, 17)  # of chunks, in bytes; 4,096 is what Java sends


class NoAnswer(Exception):
    """The connection broke, or no answer came in time; the text is a short reason."""


@dataclass(frozen=True)
class Answer:
    """An answer: status and headers (names in lower case)."""

    status: int
    headers: Mapping[str, str]

    @property
    def is_ours(self) -> bool:
        """Whether it came from a replica, not from nginx."""
        return "tus-resumable" in self.headers

    @property
    def offset(self) -> int:
        """The Upload-Offset of an answer that has one."""
        return int(self.headers["upload-offset"])


class Connection:
    """One connection. It sends nothing twice by itself."""

    def __init__(self, address: Address, ended: Callable[[], bool]) -> None:
        """Connect. ended: checked during long waits, which end with NoAnswer once it is true. Raises NoAnswer."""
        self.address = address
        self.reusable = True
        self._ended = ended
        self._received = b""
        try:
            self._sock = socket.create_connection(address, timeout=CONNECT_S)
        except OSError as exc:
            raise NoAnswer(f"connect: {type(exc).__name__}") from exc
        self._sock.setblocking(False)

    def send_head(
        self, method: str, path: str, headers: Mapping[str, str], length: int | None, *, chunked: bool = False
    ) -> None:
        """Send the head of a request; length is that of the body in bytes, None without a body. Raises NoAnswer.

        chunked: announce chunked coding instead of the length.
        """
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.address[0]}:{self.address[1]}", "Tus-Resumable: 1.0.0"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if length is not None:
            lines.append("Content-Type: application/offset+octet-stream")
            lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}")
        head = "\r\n".join([*lines, "", ""]).encode()
        if self.send(head) < len(head):
            raise NoAnswer("answered before the request was sent")

    def send(self, data: bytes, rate: float = float("inf")) -> int:
        """Send data, at a rate in bytes per second, until an answer comes; return the bytes sent. Raises NoAnswer."""
        begun_at = moved_at = time.monotonic()
        sent = 0
        while sent < len(data):
            now = time.monotonic()
            due = min(len(data), int((now - begun_at) * rate) + STEP) if rate != float("inf") else len(data)
            waiting = [self._sock] if due > sent else []
            readable, writable, _ = select.select([self._sock], waiting, [], 0.02 if not waiting else 0.5)
            if readable:
                return sent
            if writable:
                try:
                    sent += self._sock.send(data[sent : min(due, sent + STEP)])
                    moved_at = now
                except OSError as exc:
                    raise NoAnswer(f"send: {type(exc).__name__}") from exc
            elif waiting and (now - moved_at > ANSWER_S or self._ended()):
                raise NoAnswer("send: the server does not read")
        return sent

    def send_nowait(self, data: bytes) -> int:
        """Send as much as the kernel accepts without waiting; return the bytes sent."""
        pushed = 0
        with suppress(OSError):
            while pushed < len(data):
                pushed += self._sock.send(data[pushed : pushed + STEP])
        return pushed

    def read_answer(self, timeout_s: float = ANSWER_S, *, bodiless: bool) -> Answer:
        """Read an answer, drop its body, and return it. Raises NoAnswer."""
        give_up_at = time.monotonic() + timeout_s
        while b"\r\n\r\n" not in self._received:
            self._receive(give_up_at)
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        answer = Answer(int(lines[0].split()[1]), headers)
        length = 0 if bodiless or answer.status == 204 else int(headers.get("content-length", "0"))
        while len(self._received) < length:
            self._receive(give_up_at)
        self._received = self._received[length:]
        self.reusable = self.reusable and headers.get("connection", "").lower() != "close"
        return answer

    def _receive(self, give_up_at: float) -> None:
        while not select.select([self._sock], [], [], 0.5)[0]:
            if time.monotonic() > give_up_at or self._ended():
                raise NoAnswer("none in time")
        try:
            piece = self._sock.recv(65536)
        except OSError as exc:
            raise NoAnswer(f"receive: {type(exc).__name__}") from exc
        if not piece:
            raise NoAnswer("closed")
        self._received += piece

    def close(self, how: How = How.FIN) -> None:
        """Close the connection with FIN or RST. A How.SILENT connection is not closed: do not call this for it."""
        if how is How.RST:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how is How.FIN:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        self.reusable = False
        self._sock.close()


def encode_chunked(body: bytes, *, is_whole: bool) -> bytes:
    """Return a body in chunked coding, in chunks of several sizes; the last chunk is there only if is_whole."""
    chunks: list[bytes] = []
    at = 0
    while at < len(body):
        piece = body[at : at + SIZES[len(chunks) % len(SIZES)]]
        chunks.append(b"%x\r\n%s\r\n" % (len(piece), piece))
        at += len(piece)
    return b"".join([*chunks, b"0\r\n\r\n" if is_whole else b""])
