"""Bodies that the kernel carries: bytes and offsets exact in every case, the connection intact afterwards."""

import base64
import hashlib
import os
import random
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
import uvicorn

from tests.support import tus
from tests.support.processes import Server, eventually, running_app, running_server
from tusd_py import Settings, create_app
from tusd_py.border import kernel
from tusd_py.border.kernel import KernelProtocol

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture(scope="module", params=["tcp", "unix"])
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path, "socket.AddressFamily"]]:
    """A server's address, folder and family: splice reads TCP and unix sockets by different ways."""
    folder = tmp_path_factory.mktemp("server")
    flags = ("--lease-ttl", "2", "--checkpoint-bytes", "300000")
    if request.param == "tcp":
        with running_server(folder, *flags) as running:
            yield urlsplit(running.url).netloc, folder, socket.AF_INET
    else:
        with running_server(folder, *flags, "--unix-socket", str(folder / "s")):
            yield str(folder / "s"), folder, socket.AF_UNIX


Address = tuple[str, Path, "socket.AddressFamily"]


def connect(address: Address) -> socket.socket:
    """Return a connection to the server."""
    name, _, family = address
    sock = socket.socket(family)
    sock.settimeout(20)
    host, _, port = name.rpartition(":")
    sock.connect(name if family == socket.AF_UNIX else (host, int(port)))
    return sock


def create(sock: socket.socket, length: int) -> str:
    """Return the id of a new upload."""
    sock.sendall(
        f"POST /files/ HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\nUpload-Length: {length}\r\n\r\n".encode()
    )
    return tus.answer(sock)[1]["location"].rpartition("/")[2]


def head_of(upload_id: str, offset: int, length: int, extra: str = "") -> bytes:
    """Return the head of a PATCH."""
    return (
        f"PATCH /files/{upload_id} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {length}\r\n{extra}\r\n"
    ).encode()


def offset_of(address: Address, upload_id: str) -> int:
    """Return the offset that HEAD tells on a new connection."""
    with connect(address) as sock:
        sock.sendall(f"HEAD /files/{upload_id} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\n\r\n".encode())
        return int(tus.answer(sock)[1]["upload-offset"])


def stored(address: Address, upload_id: str) -> bytes:
    return (address[1] / "uploads" / upload_id).read_bytes()


def test_the_connection_lives_on_behind_a_body(address: Address) -> None:
    """Three bodies and what is pipelined behind them, on one connection."""
    source = os.urandom(3 * MIB)
    with connect(address) as sock:
        upload_id = create(sock, len(source))
        for n in range(3):
            sock.sendall(head_of(upload_id, n * MIB, MIB) + source[n * MIB : (n + 1) * MIB])

            assert (204, str((n + 1) * MIB)) == ((a := tus.answer(sock))[0], a[1]["upload-offset"])

        assert 0 == int(tus_head(sock, create(sock, 5))["upload-offset"])
    assert source == stored(address, upload_id)


def tus_head(sock: socket.socket, upload_id: str) -> dict[str, str]:
    sock.sendall(f"HEAD /files/{upload_id} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\n\r\n".encode())
    return tus.answer(sock)[1]


def test_requests_pipelined_behind_a_body_are_answered(address: Address) -> None:
    source = os.urandom(MIB)
    with connect(address) as sock:
        first, second = create(sock, MIB), create(sock, MIB)
        ask = f"HEAD /files/{first} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\n\r\n".encode()
        sock.sendall(head_of(first, 0, MIB) + source + ask + head_of(second, 0, MIB) + source + ask)
        received = b""
        while received.count(b"\r\n\r\n") < 4:
            piece = sock.recv(65536)
            assert piece, received
            received += piece

    assert 2 == received.count(b"HTTP/1.1 204")
    assert 2 == received.count(b"HTTP/1.1 200")
    assert [source, source] == [stored(address, first), stored(address, second)]


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_connection_cut_anywhere_leaves_exact_bytes(address: Address, how: str) -> None:
    """After FIN every byte that was sent counts; after RST the kernel may drop what was not read, and no more."""
    choice = random.Random(7)
    source = os.urandom(4 * MIB)
    for _ in range(CUTS):
        cut = choice.choice([0, 1, choice.randrange(LEAST), choice.randrange(4 * MIB)])
        with connect(address) as sock:
            upload_id = create(sock, len(source))
            sock.sendall(head_of(upload_id, 0, len(source)))
            sock.sendall(source[:cut])
            if how == "RST" and address[2] == socket.AF_INET:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "FIN":
            # Whoever asks while the last bytes are still on their way hears of those before them.
            eventually(lambda cut=cut, one=upload_id: cut == offset_of(address, one))  # type: ignore[misc]
        offset = resumed(address, upload_id, source)

        assert offset <= cut
        assert hashlib.sha256(source).digest() == hashlib.sha256(stored(address, upload_id)).digest()


LEAST = kernel.LEAST
CUTS = int(os.environ.get("TUSD_PY_CUTS", "20"))  # 1000 is a long run


def resumed(address: Address, upload_id: str, source: bytes) -> int:
    """Ask for the offset and send the rest, again if something was still on its way; return the offset that did."""

    def once() -> int | None:
        offset = offset_of(address, upload_id)
        with connect(address) as sock:
            sock.sendall(head_of(upload_id, offset, len(source) - offset) + source[offset:])
            return offset if tus.answer(sock)[0] == 204 else None

    give_up_at = time.monotonic() + 20
    while (offset := once()) is None:
        assert time.monotonic() < give_up_at
    return offset


def test_a_client_that_waits_is_told_to_go_on(address: Address) -> None:
    source = os.urandom(MIB)
    with connect(address) as sock:
        upload_id = create(sock, MIB)
        sock.sendall(head_of(upload_id, 0, MIB, "Expect: 100-continue\r\n"))

        assert b"HTTP/1.1 100 Continue\r\n\r\n" == sock.recv(65536)

        sock.sendall(source)

        assert 204 == tus.answer(sock)[0]
    assert source == stored(address, upload_id)


def test_a_trickle_is_counted_and_the_rest_is_not_waited_for(address: Address) -> None:
    """Less than the socket's low-water mark: HEAD counts it all the same, and the last bytes are answered at once."""
    with connect(address) as sock:
        upload_id = create(sock, LEAST)
        sock.sendall(head_of(upload_id, 0, LEAST))
        for n in range(1, 4):
            sock.sendall(b"x" * 10)
            eventually(lambda n=n: 10 * n == offset_of(address, upload_id), timeout_s=3)  # type: ignore[misc]
        sock.sendall(b"x" * (LEAST - 31))
        time.sleep(0.1)
        sent_at = time.monotonic()
        sock.sendall(b"x")

        assert 204 == tus.answer(sock)[0]
        assert time.monotonic() - sent_at < 0.4


def test_creation_with_upload_goes_the_same_way(address: Address) -> None:
    source = os.urandom(2 * MIB)
    with connect(address) as sock:
        head = head_of("", 0, len(source), f"Upload-Length: {len(source)}\r\n").replace(b"PATCH", b"POST", 1)
        sock.sendall(head + source)
        status, headers = tus.answer(sock)

        assert (201, str(len(source))) == (status, headers["upload-offset"])
    assert source == stored(address, headers["location"].rpartition("/")[2])


def test_a_full_disk_is_507_and_the_upload_goes_on_when_there_is_room(tmp_path: Path, redis_url: str) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    try:
        with running_server(tmp_path, "--redis-url", redis_url, "--min-free", "0") as running:
            source = os.urandom(3 * MIB)
            url = tus.create(running.url, len(source))
            filler = folder / "filler"
            filler.write_bytes(b"x" * (2 * MIB))

            assert 507 == (refused := tus.patch(url, 0, source)).status_code
            assert "ERR_STORAGE_FULL" == refused.json()["code"]

            filler.unlink()
            offset = tus.offset_of(url)

            assert MIB < offset  # all that found room
            assert 204 == tus.patch(url, offset, source[offset:]).status_code
            assert source == (folder / tus.upload_id(url)).read_bytes()
            assert "Traceback" not in running.log.read_text()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_leaves_makes_running_uploads_yield_at_a_safe_offset(tmp_path: Path, workers: str) -> None:
    """SIGTERM: running PATCHes go on for --grace, then answer with the offset; the client goes on elsewhere at once."""
    source = os.urandom(4 * MIB)

    def yielded(leaving: Server, other: Server) -> None:
        url = tus.create(other.url, len(source))
        with tus.half_sent(tus.on(url, leaving.url), 0, len(source), source[:MIB]) as sending:
            eventually(lambda: MIB == tus.offset_of(url))
            leaving.process.send_signal(signal.SIGTERM)
            sending.sendall(source[MIB : 2 * MIB])
            left_at = time.monotonic()
            status, headers = tus.answer(sending)

            assert (204, "close") == (status, headers["connection"])
            assert 0.5 < time.monotonic() - left_at < 5

            offset = int(headers["upload-offset"])

            assert 2 * MIB == offset
            assert 204 == tus.patch(url, offset, source[offset:]).status_code
        leaving.process.wait(10)
        assert source == (tmp_path / "uploads" / tus.upload_id(url)).read_bytes()

    with running_server(tmp_path) as other, running_server(tmp_path, "--grace", "1", "--workers", workers) as leaving:
        yielded(leaving, other)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_both_event_loops(tmp_path: Path, loop: str) -> None:
    """Also with checksums and chunked bodies, which go through Python."""
    source = os.urandom(2 * MIB)
    with running_app(create_app(Settings(upload_dir=tmp_path)), http=KernelProtocol, loop=loop) as root:
        url = tus.create(root + "/files/", len(source))

        assert 204 == tus.patch(url, 0, source[:MIB]).status_code
        assert 204 == tus.patch(url, MIB, source[MIB:]).status_code
        assert source == (tmp_path / tus.upload_id(url)).read_bytes()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_carried_a_body_is_counted(tmp_path: Path, workers: str) -> None:
    """Content-Length and no checksum: the kernel. Small, chunked or with a checksum: Python."""
    digest = base64.b64encode(hashlib.sha1(bytes(MIB)).digest()).decode()
    with running_server(tmp_path, "--workers", workers) as one:
        urls = [tus.create(one.url, MIB) for _ in range(3)]
        tus.patch(urls[0], 0, bytes(MIB))
        tus.patch(urls[1], 0, bytes(MIB), Upload_Checksum=f"sha1 {digest}")
        httpx.patch(urls[2], content=iter([bytes(MIB)]), headers={**tus.BYTES, "Upload-Offset": "0"})
        figures = httpx.get(urljoin(one.url, "/metrics")).text

    assert 'tusd_py_bodies_total{carried_by="kernel"} 1.0' in figures
    assert 'tusd_py_body_bytes_total{carried_by="kernel"} 1.048576e+06' in figures
    assert 'tusd_py_bodies_total{carried_by="python"} 2.0' in figures


def test_python_carries_every_body_where_splice_is_off(tmp_path: Path) -> None:
    """The kernel's protocol has stopped to read at the headers; the application goes the other way all the same."""
    source = os.urandom(3 * MIB)
    with running_server(tmp_path, "--splice", "off") as one:
        url = tus.create(one.url, len(source))

        assert 204 == tus.patch(url, 0, source[:MIB]).status_code
        assert 204 == tus.patch(url, MIB, source[MIB:]).status_code

        figures = httpx.get(urljoin(one.url, "/metrics")).text

    assert 'tusd_py_bodies_total{carried_by="python"} 2.0' in figures
    assert 'carried_by="kernel"' not in figures
    assert source == (tmp_path / "uploads" / tus.upload_id(url)).read_bytes()


def test_another_uvicorn_takes_the_portable_path_and_says_so(tmp_path: Path) -> None:
    start = "import uvicorn; uvicorn.__version__ = '9.9.0'; from tusd_py.cli import main; main()"
    source = os.urandom(2 * MIB)
    with running_server(tmp_path, program=("-c", start)) as one:
        url = tus.create(one.url, len(source))

        assert 204 == tus.patch(url, 0, source).status_code

        figures = httpx.get(urljoin(one.url, "/metrics")).text

        assert "bodies go through Python" in one.log.read_text()
    assert 'carried_by="kernel"' not in figures
    assert source == (tmp_path / "uploads" / tus.upload_id(url)).read_bytes()


def test_this_uvicorn_is_one_whose_internals_are_known_to_fit() -> None:
    """Fails when uvicorn moves on: look whether the protocol still fits, then widen the range in kernel.py."""
    assert kernel.FITS, f"uvicorn {uvicorn.__version__} is outside {kernel.UVICORN}"
