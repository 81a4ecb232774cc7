"""HTTP/1.1 on the wire: Upgrade, trailers, transfer codings and what is not HTTP; no byte of a body is lost to them."""

import asyncio
import itertools
import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support import tus
from tests.support.processes import running_app, running_server
from tusd_py import Settings, create_app
from tusd_py.border.http1 import MAX_FRAMING, MAX_TRAILERS
from tusd_py.border.kernel import KernelProtocol

KIB = 1024
LEAST = 64 * KIB  # the kernel carries bodies from this size on
UPGRADE = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer as it came over the wire."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def code(self) -> str:
        """The stable code of a refusal."""
        code: str = json.loads(self.body)["code"]
        return code


class Wire:
    """A raw connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._received = b""

    def send(self, *parts: str | bytes) -> None:
        self.sock.sendall(b"".join(part.encode() if isinstance(part, str) else part for part in parts))

    def _more(self) -> None:
        piece = self.sock.recv(65536)
        assert piece, f"closed after {self._received!r}"
        self._received += piece

    def answer(self, *, to_head: bool = False) -> Answer:
        """Return the next answer."""
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status_line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        status = int(status_line.split()[1])
        length = 0 if to_head else int(headers.get("content-length", "0"))
        while len(self._received) < length:
            self._more()
        body, self._received = self._received[:length], self._received[length:]
        return Answer(status=status, headers=headers, body=body)

    def is_closed(self) -> bool:
        """Return whether nothing more comes and the connection ends."""
        try:
            return not self._received and self.sock.recv(65536) == b""
        except ConnectionResetError:
            return True

    def create(self, length: int) -> str:
        """Return the path of a new upload."""
        self.send(f"POST /files/ HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\nUpload-Length: {length}\r\n\r\n")
        return urlsplit(self.answer().headers["location"]).path

    def offset(self, path: str) -> int:
        """Return what HEAD says."""
        self.send(f"HEAD {path} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\n\r\n")
        answer = self.answer(to_head=True)
        assert 200 == answer.status
        return int(answer.headers["upload-offset"])


class Place:
    """A server's address and folder."""

    def __init__(self, folder: Path, family: "socket.AddressFamily", address: str | tuple[str, int]) -> None:
        self.folder = folder
        self._family = family
        self._address = address

    def connect(self) -> Wire:
        sock = socket.socket(self._family)
        sock.settimeout(20)
        sock.connect(self._address)
        return Wire(sock)

    def stored(self, path: str) -> bytes:
        return (self.folder / "uploads" / path.rpartition("/")[2]).read_bytes()

    def files(self) -> set[str]:
        """Return the names of the uploads in the folder."""
        return {path.name for path in (self.folder / "uploads").glob("*.info")}


@pytest.fixture(scope="module", params=["tcp", "unix"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("http1")
    if request.param == "tcp":
        with running_server(folder) as running:
            parts = urlsplit(running.url)
            assert parts.hostname and parts.port
            yield Place(folder, socket.AF_INET, (parts.hostname, parts.port))
    else:
        with running_server(folder, "--unix-socket", str(folder / "s")):
            yield Place(folder, socket.AF_UNIX, str(folder / "s"))


@pytest.fixture
def wire(place: Place) -> Iterator[Wire]:
    wire = place.connect()
    with wire.sock:
        yield wire


def head_of(method: str, path: str, *fields: str) -> str:
    """Return the head of a request with these header lines."""
    return f"{method} {path} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\n{''.join(fields)}\r\n"


OCTETS = "Content-Type: application/offset+octet-stream\r\n"


def patch_head(path: str, *fields: str, offset: int = 0) -> str:
    return head_of("PATCH", path, f"Upload-Offset: {offset}\r\n", OCTETS, *fields)


def chunked(body: bytes, trailers: str | bytes = "", piece: int = 7000) -> bytes:
    """Return a body in the chunked coding."""
    pieces = [body[n : n + piece] for n in range(0, len(body), piece)]
    end = trailers.encode() if isinstance(trailers, str) else trailers
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n" + end + b"\r\n"


def coded(body: bytes, form: str) -> tuple[str, bytes]:
    """Return the header line of a body and its bytes on the wire."""
    return (CHUNKED, chunked(body)) if form == "chunked" else (f"Content-Length: {len(body)}\r\n", body)


SIZES = [0, 10, LEAST - 1, LEAST, LEAST + 1, 300 * KIB]


@pytest.mark.parametrize("how", ["at once", "in pieces", "after 100"])
@pytest.mark.parametrize("value", ["h2c", "websocket", "TLS/1.0", "h2c, websocket", ""])
def test_an_upgrade_is_ignored(place: Place, value: str, how: str) -> None:
    """The body counts to its last byte, and so does what is pipelined behind it."""
    methods, forms = ("PATCH", "POST"), ("length", "chunked")
    connections = ("Connection: Upgrade\r\n", "Connection: keep-alive, upgrade\r\n", "")
    choices = zip(itertools.cycle(connections), itertools.product(methods, forms, SIZES), strict=False)
    for connection, (method, form, size) in choices:
        body = os.urandom(size)
        framing, sent = coded(body, form)
        fields = [connection, f"Upgrade: {value}\r\n", framing, "Expect: 100-continue\r\n" * (how == "after 100")]
        wire = place.connect()
        with wire.sock:
            path = wire.create(size)
            if method == "PATCH":
                head = patch_head(path, *fields)
            else:
                head = head_of("POST", "/files/", OCTETS, f"Upload-Length: {size}\r\n", *fields)
            behind = head_of("HEAD", path, UPGRADE) + head_of("OPTIONS", "/files/", UPGRADE)
            if how == "at once":
                wire.send(head, sent, behind)
            elif how == "in pieces":
                for piece in (head[:60], head[60:-3], head[-3:], sent[:5], sent[5:] + behind.encode()):
                    wire.send(piece)
            else:
                wire.send(head)
                if size:
                    assert 100 == wire.answer().status
                wire.send(sent, behind)
            answer = wire.answer()
            while answer.status == 100:  # nothing was asked of an empty body
                answer = wire.answer()

            assert (201 if method == "POST" else 204, str(size)) == (answer.status, answer.headers["upload-offset"])
            assert 200 == wire.answer(to_head=True).status
            assert 204 == wire.answer().status

            path = urlsplit(answer.headers["location"]).path if method == "POST" else path

            assert size == wire.offset(path), "the connection lives on"
            assert body == place.stored(path)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upgrade_is_ignored_by_every_method(place: Place, framing: str) -> None:
    """The answer is that of the same request without Upgrade; nothing in the body is taken for a request."""
    wire = place.connect()
    with wire.sock:
        path, victim = wire.create(5), wire.create(5)
    hidden = head_of("DELETE", victim).encode()
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        answers = []
        for extra in (UPGRADE, ""):
            wire = place.connect()
            with wire.sock:
                path = wire.create(5)
                line, body = coded(hidden, framing)
                wire.send(head_of(method, path, extra, line), body)
                answers.append(wire.answer(to_head=method == "HEAD").status)

        assert answers[0] == answers[1], method
    wire = place.connect()
    with wire.sock:
        assert 0 == wire.offset(victim)


def test_many_pipelined_requests_with_upgrade_are_all_answered(wire: Wire) -> None:
    """Thousands in one packet: no recursion, no quadratic work."""
    path = wire.create(1)
    wire.send(head_of("HEAD", path, UPGRADE) * 2000)
    for _ in range(2000):
        assert 200 == wire.answer(to_head=True).status


@pytest.mark.parametrize("target", ["{path}", "127.0.0.1:80"])
def test_connect_is_refused_and_what_follows_is_no_request(wire: Wire, place: Place, target: str) -> None:
    path = wire.create(5)
    wire.send(head_of("CONNECT", target.format(path=path), UPGRADE), head_of("DELETE", path))

    assert wire.answer().status in (400, 405)
    assert wire.is_closed()

    wire = place.connect()
    with wire.sock:
        assert 0 == wire.offset(path)


LYING = (
    "X-HTTP-Method-Override: DELETE\r\nUpload-Offset: 3\r\nUpload-Length: 99\r\nContent-Type: text/plain\r\n"
    "Tus-Resumable: 0.2.2\r\nUpload-Checksum: crc32 x\r\nUpload-Metadata: ?? ??\r\nUpload-Defer-Length: 1\r\n"
    "X-Unknown: \xe9\r\nUpgrade: h2c\r\nHost: elsewhere\r\nExpect: 100-continue\r\nUpload-Concat: final;/files/x\r\n"
)


@pytest.mark.parametrize("how", ["at once", "late", "byte by byte"])
@pytest.mark.parametrize("extra", ["", UPGRADE], ids=["", "upgrade"])
@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_a_trailer_is_not_a_header(wire: Wire, place: Place, method: str, extra: str, how: str) -> None:
    body = os.urandom(20_000)
    path = wire.create(len(body))
    if method == "PATCH":
        head = patch_head(path, CHUNKED, extra)
    else:
        head = head_of("POST", "/files/", OCTETS, f"Upload-Length: {len(body)}\r\n", CHUNKED, extra)
    trailers = LYING.encode("latin-1") + b"\r\n"
    sent = chunked(body)[:-2]
    if how == "at once":
        wire.send(head, sent, trailers)
    else:
        wire.send(head, sent)
        for n in range(0, len(trailers), 1 if how == "byte by byte" else len(trailers)):
            wire.send(trailers[n : n + (1 if how == "byte by byte" else len(trailers))])
    answer = wire.answer()

    assert (201 if method == "POST" else 204, "20000") == (answer.status, answer.headers["upload-offset"])

    path = urlsplit(answer.headers.get("location", path)).path

    assert 20_000 == wire.offset(path)
    assert body == place.stored(path)


@pytest.mark.parametrize(
    ("missing", "status"),
    [("Upload-Offset: 0\r\n", 400), (OCTETS, 415), ("Tus-Resumable: 1.0.0\r\n", 412)],
)
def test_a_trailer_does_not_make_up_for_a_header(place: Place, missing: str, status: int) -> None:
    wire = place.connect()
    with wire.sock:
        path = wire.create(3)
        wire.send(patch_head(path, CHUNKED).replace(missing, ""), chunked(b"abc", missing))

        assert status == wire.answer().status
    wire = place.connect()
    with wire.sock:
        assert 0 == wire.offset(path)


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "GET", "OPTIONS"])
def test_trailers_of_requests_that_need_no_body_are_dropped(place: Place, method: str) -> None:
    wire = place.connect()
    with wire.sock:
        path = wire.create(0)
        wire.send(head_of(method, path, CHUNKED), chunked(b"", "X-HTTP-Method-Override: PUT\r\n"))

        assert wire.answer(to_head=method == "HEAD").status in (200, 204)


@pytest.mark.parametrize(
    "trailers",
    [
        b"X-Many: 1\r\n" * (MAX_TRAILERS + 1),
        b"X-Long: " + bytes([120]) * 8 * 1024 * KIB,
        b"X-" + bytes([120]) * 8 * 1024 * KIB,
        b"X-Some: 1234567890\r\n" * 100_000,
    ],
    ids=["lines", "a long value", "a long name", "many"],
)
def test_trailers_are_bounded(place: Place, trailers: bytes) -> None:
    """What is behind the limit is not kept in memory."""
    wire = place.connect()
    with wire.sock:
        path = wire.create(3)
        wire.send(patch_head(path, CHUNKED), chunked(b"abc")[:-2])
        with suppress(OSError):  # the server reads no more
            wire.send(trailers, "\r\n")
        answer = wire.answer()

        assert (431, "ERR_TRAILERS_TOO_LARGE") == (answer.status, answer.code)
        assert "close" == answer.headers["connection"]
    wire = place.connect()
    with wire.sock:
        assert wire.offset(path) in (0, 3)


def test_trailers_at_the_limit_are_ignored(wire: Wire) -> None:
    path = wire.create(3)
    wire.send(patch_head(path, CHUNKED), chunked(b"abc", "X-Some: 1\r\n" * MAX_TRAILERS))

    assert 204 == wire.answer().status


def test_a_chunk_extension_is_bounded(wire: Wire) -> None:
    path = wire.create(3)
    wire.send(patch_head(path, CHUNKED), "3;")
    with suppress(OSError):
        for _ in range(64 * MAX_FRAMING // KIB):
            wire.send("a" * KIB)

    assert 431 == wire.answer().status


def test_a_connection_trailer_loses_no_request(wire: Wire) -> None:
    """The parser takes it for a header and drops what follows: the answer says that the connection ends."""
    path = wire.create(3)
    wire.send(patch_head(path, CHUNKED), chunked(b"abc", "Connection: close\r\n"))
    answer = wire.answer()

    assert (204, "close") == (answer.status, answer.headers["connection"])
    assert wire.is_closed()


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "HEAD"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
        ("Transfer-Encoding: gzip\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding: \r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400),
        ("Content-Length: 13\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 99999999999999999999999\r\n", 400),
    ],
)
@pytest.mark.parametrize("extra", ["", UPGRADE], ids=["", "upgrade"])
def test_a_body_of_unknown_form_is_refused(place: Place, method: str, fields: str, status: int, extra: str) -> None:
    """Nothing is stored, nothing is deleted, the connection is closed, and the client can read why."""
    wire = place.connect()
    with wire.sock:
        path = wire.create(3)
        known = place.files()
        head = head_of(method, "/files/" if method == "POST" else path, OCTETS, "Upload-Offset: 0\r\n", fields, extra)
        head = head.replace("Upload-Offset", "Upload-Length") if method == "POST" else head
        wire.send(head, chunked(b"abc"))
        answer = wire.answer(to_head=method == "HEAD")

        assert (status, "close") == (answer.status, answer.headers["connection"])
        assert method == "HEAD" or answer.code.startswith("ERR_")
        assert wire.is_closed()
    wire = place.connect()
    with wire.sock:
        assert 0 == wire.offset(path)
    assert known == place.files()


@pytest.mark.parametrize(
    "garbage", ["\x16\x03\x01\x02", "GET / HTTP/9.9\r\n\r\n", "GET /a b HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n: x\r\n"]
)
def test_what_is_not_http_is_a_problem_document(place: Place, garbage: str) -> None:
    wire = place.connect()
    with wire.sock:
        wire.send(garbage, "\r\n\r\n")
        answer = wire.answer()

        assert (400, "ERR_INVALID_REQUEST") == (answer.status, answer.code)
        assert wire.is_closed()


def test_garbage_behind_a_request_does_not_spoil_its_answer(place: Place) -> None:
    """Written at once, a 400 would stand in front of the answer that is owed, or in the middle of a download."""
    for form in ("length", "chunked"):
        wire = place.connect()
        with wire.sock:
            body = os.urandom(1000)
            path = wire.create(len(body))
            line, sent = coded(body, form)
            wire.send(patch_head(path, line), sent, head_of("HEAD", path), "\x00\x01 no request\r\n\r\n")

            assert 204 == wire.answer().status
            assert 200 == wire.answer(to_head=True).status
            assert wire.is_closed()


def test_a_broken_chunk_is_400(place: Place) -> None:
    wire = place.connect()
    with wire.sock:
        path = wire.create(10)
        wire.send(patch_head(path, CHUNKED), "3\r\nabc\r\nzz\r\n")

        assert 400 == wire.answer().status
        assert wire.is_closed()
    wire = place.connect()
    with wire.sock:
        assert wire.offset(path) in (0, 3)


def on(root: str, folder: Path) -> Place:
    """Return the place of an application that runs in this process."""
    parts = urlsplit(root)
    assert parts.hostname and parts.port
    return Place(folder, socket.AF_INET, (parts.hostname, parts.port))


def application(folder: Path) -> ASGIApp:
    return create_app(Settings(upload_dir=folder / "uploads"))


class Forgetful(KernelProtocol):
    """Loses the first bytes that it reads behind the head of a PATCH, as httptools does at an Upgrade."""

    def _parse(self, data: memoryview) -> None:
        head, end, body = bytes(data).partition(b"\r\n\r\n")
        super()._parse(memoryview(head + end + (body[10:] if head.startswith(b"PATCH") else body)))


@pytest.mark.parametrize("size", [1000, 2 * LEAST])
def test_lost_bytes_are_never_a_wrong_offset(tmp_path: Path, size: int) -> None:
    """What the parser gives out is less than what was read: nothing is written, and the connection is closed."""
    with running_app(application(tmp_path), http=Forgetful, log_level="critical") as root:
        place = on(root, tmp_path)
        wire = place.connect()
        with wire.sock:
            path = wire.create(size)
            wire.send(patch_head(path, f"Content-Length: {size}\r\n"), bytes(size // 2))
            answer = wire.answer()

            assert (500, "close") == (answer.status, answer.headers["connection"])

    # The server has ended, and with it whatever the application still had to do.
    assert not (tmp_path / "uploads" / path.rpartition("/")[2]).exists()


def test_a_middleware_that_reads_the_body_gives_it_on(tmp_path: Path) -> None:
    """What was received is not on the socket any more: the body goes through the ASGI stream."""
    uploads = application(tmp_path)

    async def peeking(scope: Scope, receive: Receive, send: Send) -> None:
        first: list[Message] = []
        if scope["type"] == "http" and scope["method"] == "PATCH":
            first.append(await receive())

        async def again() -> Message:
            return first.pop() if first else await receive()

        await uploads(scope, again, send)

    body = os.urandom(4 * LEAST)
    with running_app(peeking, http=KernelProtocol) as root:
        url = tus.create(root + "/files/", len(body))

        assert (204, str(len(body))) == ((a := tus.patch(url, 0, body)).status_code, a.headers["upload-offset"])
    assert body == (tmp_path / "uploads" / tus.upload_id(url)).read_bytes()


def test_whoever_listens_for_a_disconnect_takes_no_byte_from_the_kernel(tmp_path: Path) -> None:
    """receive() in another task while a body is on its way: the transport does not read beside the kernel."""
    uploads = application(tmp_path)
    receivers: list[Receive] = []
    tasks: list[asyncio.Future[Message]] = []

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["method"] == "PATCH":
                receivers.append(receive)
            elif scope["method"] == "HEAD" and receivers:
                tasks.append(asyncio.ensure_future(receivers.pop()()))
                await asyncio.sleep(0)
        await uploads(scope, receive, send)

    body = os.urandom(8 * LEAST)
    with running_app(listening, http=KernelProtocol) as root:
        url = tus.create(root + "/files/", len(body))
        with tus.half_sent(url, 0, len(body), body[: 4 * LEAST]) as sending:
            assert 4 * LEAST == tus.offset_of(url)

            sending.sendall(body[4 * LEAST :])

            assert 204 == tus.answer(sending)[0]
    assert 1 == len(tasks)
    assert body == (tmp_path / "uploads" / tus.upload_id(url)).read_bytes()


def test_only_a_get_becomes_a_websocket(tmp_path: Path) -> None:
    """Where uvicorn has WebSockets for an application beside ours, a body is still a body."""
    body = os.urandom(2 * LEAST)
    fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    handshake = fields + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    with running_app(application(tmp_path), http=KernelProtocol, ws="wsproto") as root:
        place = on(root, tmp_path)
        wire = place.connect()
        with wire.sock:
            path = wire.create(len(body))
            wire.send(patch_head(path, handshake, f"Content-Length: {len(body)}\r\n"), body)

            assert 204 == wire.answer().status
            assert len(body) == wire.offset(path)

            wire.send(head_of("GET", path, handshake))

            assert 403 == wire.answer().status, "no route of ours is a WebSocket"
    assert body == place.stored(path)


@pytest.mark.parametrize("form", ["length", "chunked"])
@pytest.mark.parametrize("size", [100, 4 * LEAST])
def test_on_plain_httptools_a_lost_body_is_refused(tmp_path: Path, size: int, form: str) -> None:
    """uvicorn's own protocol stops at the Upgrade and shows an empty body: 204 would say that it is stored."""
    body = os.urandom(size)
    line, sent = coded(body, form)
    with running_app(application(tmp_path), http="httptools", log_level="critical") as root:
        place = on(root, tmp_path)
        for method, path, status in (("PATCH", "", 204), ("POST", "/files/", 201)):
            for extra in (UPGRADE, ""):
                wire = place.connect()
                with wire.sock:
                    target = path or wire.create(size)
                    known = place.files()
                    fields = (f"Upload-Length: {size}\r\n",) if path else ("Upload-Offset: 0\r\n",)
                    wire.send(head_of(method, target, OCTETS, *fields, line, extra), sent)
                    answer = wire.answer()
                    if not extra:
                        assert (status, str(size)) == (answer.status, answer.headers["upload-offset"])
                        continue

                    assert (400, "close") == (answer.status, answer.headers["connection"])
                    # The rest of a long body is no request: uvicorn's own answer may be faster.
                    assert size > LEAST or "ERR_BODY_LOST" == answer.code
                    assert known == place.files()


def test_h11_takes_an_upgrade_for_what_it_is(tmp_path: Path) -> None:
    body = os.urandom(2 * LEAST)
    with running_app(application(tmp_path), http="h11") as root:
        place = on(root, tmp_path)
        for form in ("length", "chunked"):
            line, sent = coded(body, form)
            wire = place.connect()
            with wire.sock:
                path = wire.create(len(body))
                wire.send(patch_head(path, UPGRADE, line), sent)

                assert 204 == wire.answer().status
            assert body == place.stored(path)
