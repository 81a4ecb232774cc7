"""Plain tus requests, for tests that check every status and cut connections."""

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}
TIMEOUT_S = 30.0


def create(url: str, length: int, **metadata: str) -> str:
    """Create an upload and return its URL."""
    pairs = (f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())
    response = httpx.post(
        url,
        headers={**TUS, "Upload-Length": str(length), "Upload-Metadata": ",".join(pairs)},
        timeout=TIMEOUT_S,
    )
    assert 201 == response.status_code, response.text
    return response.headers["Location"]


def patch(url: str, offset: int, body: bytes, **headers: str) -> httpx.Response:
    """Send a PATCH with the body at offset; an underscore in a header's name stands for a hyphen."""
    return httpx.patch(
        url,
        content=body,
        headers={**BYTES, "Upload-Offset": str(offset), **{k.replace("_", "-"): v for k, v in headers.items()}},
        timeout=TIMEOUT_S,
    )


def head(url: str) -> httpx.Response:
    """Send a HEAD."""
    return httpx.head(url, headers=TUS, timeout=TIMEOUT_S)


def offset_of(url: str) -> int:
    """Send a HEAD and return its Upload-Offset."""
    response = head(url)
    assert 200 == response.status_code, response.status_code
    return int(response.headers["Upload-Offset"])


def upload_id(url: str) -> str:
    """Return the last part of an upload's URL."""
    return url.rpartition("/")[2]


def on(url: str, other: str) -> str:
    """Return the URL of the same upload on another server, whose creation URL is given."""
    return other + upload_id(url)


@contextmanager
def half_sent(url: str, offset: int, length: int, part: bytes, headers: str = "") -> Iterator[socket.socket]:
    """Send a PATCH that announces length bytes, but only a part of its body; yield the open connection."""
    parts = urlsplit(url)
    assert parts.hostname
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=TIMEOUT_S) as sock:
        head = (
            f"PATCH {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nTus-Resumable: 1.0.0\r\n"
            f"Content-Type: application/offset+octet-stream\r\nUpload-Offset: {offset}\r\n"
            f"Content-Length: {length}\r\n{headers}\r\n"
        )
        sock.sendall(head.encode() + part)
        yield sock


def answer(sock: socket.socket) -> tuple[int, dict[str, str]]:
    """Read an answer from a connection; return its status and headers (names in lower case)."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = sock.recv(65536)
        assert piece, f"closed after {received!r}"
        received += piece
    lines = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), {name.lower(): value for name, value in headers.items()}
