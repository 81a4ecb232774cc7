"""Bodies that no header announces: HTTP/2 without Content-Length, under hypercorn, by curl; and HTTP/1.1 beside it."""

import base64
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tus
from tests.support.processes import running_asgi

KIB = 1024
SOURCE = os.urandom(1024 * KIB)
LENGTHS = (0, 1, 1000, 64 * KIB - 1, 64 * KIB, 1024 * KIB)
HTTP2, HTTP1 = "--http2-prior-knowledge", "--http1.1"
OCTETS = "Content-Type: application/offset+octet-stream"

Answer = tuple[int, dict[str, str]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The creation URL of a hypercorn, which speaks both, and its folder."""
    folder = tmp_path_factory.mktemp("hypercorn")
    command = ("hypercorn", "--workers", "0", "--bind", "127.0.0.1:{port}", "tusd_py.app:create_app()")
    with running_asgi(folder, command) as (port, _):
        yield f"http://127.0.0.1:{port}/files/", folder / "uploads"


Root = tuple[str, Path]


def curl(version: str, method: str, url: str, *headers: str, body: bytes | None = None) -> Answer:
    """Return status and headers of the answer; the body is sent as a stream whose length curl does not know."""
    options = [part for line in ("Tus-Resumable: 1.0.0", "Expect:", *headers) for part in ("-H", line)]
    if method == "HEAD":
        options.append("--head")
    if body is not None:
        options += ["--upload-file", "-"]
    command = ["curl", "-sS", "--max-time", "30", "-D", "-", "-o", "/dev/null", version, "-X", method, *options, url]
    done = subprocess.run(command, input=body, capture_output=True, check=False)
    first, *lines = done.stdout.decode().replace("\r", "").strip().split("\n\n")[-1].split("\n")
    answer = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in answer.items()}


def create(root: Root, version: str, length: int, *headers: str) -> str:
    """Return the URL of a new upload that a request without a body made."""
    status, answer = curl(version, "POST", root[0], f"Upload-Length: {length}", *headers)

    assert (201, "0") == (status, answer["upload-offset"])

    return root[0] + tus.upload_id(answer["location"])


@pytest.mark.parametrize("version", [HTTP2, HTTP1])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_patch_whose_length_nobody_announced(root: Root, version: str, length: int) -> None:
    url = create(root, version, 2 * length + 1)
    for n in range(2):
        status, answer = curl(version, "PATCH", url, OCTETS, f"Upload-Offset: {n * length}", body=SOURCE[:length])

        assert (204, str((n + 1) * length)) == (status, answer["upload-offset"])
    stored = root[1] / tus.upload_id(url)

    assert 2 * SOURCE[:length] == (stored.read_bytes() if length else b"")


@pytest.mark.parametrize("version", [HTTP2, HTTP1])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_creation_with_bytes_whose_number_nobody_announced(root: Root, version: str, length: int) -> None:
    headers = (OCTETS, f"Upload-Length: {length}")
    status, answer = curl(version, "POST", root[0], *headers, body=SOURCE[:length])

    assert (201, str(length)) == (status, answer["upload-offset"])
    assert SOURCE[:length] == (root[1] / tus.upload_id(answer["location"])).read_bytes()


@pytest.mark.parametrize("version", [HTTP2, HTTP1])
def test_requests_without_a_body(root: Root, version: str) -> None:
    """The stream of an HTTP/2 request may end at once; an HTTP/1.1 request without both headers has no body."""
    url = create(root, version, 5)

    assert 204 == curl(version, "PATCH", url, OCTETS, "Upload-Offset: 0")[0]
    assert "0" == curl(version, "HEAD", url)[1]["upload-offset"]
    assert 409 == curl(version, "PATCH", url, OCTETS, "Upload-Offset: 3")[0]
    assert 409 == curl(version, "GET", url)[0]
    assert 204 == curl(version, "OPTIONS", url)[0]
    assert 204 == curl(version, "DELETE", url)[0]
    assert 410 == curl(version, "HEAD", url)[0]


@pytest.mark.parametrize("version", [HTTP2, HTTP1])
def test_a_concatenation_has_no_body_and_may_have_none(root: Root, version: str) -> None:
    part = create(root, version, 4, "Upload-Concat: partial")

    assert 204 == curl(version, "PATCH", part, OCTETS, "Upload-Offset: 0", body=b"abcd")[0]

    final = f"Upload-Concat: final;{part}"

    assert 400 == curl(version, "POST", root[0], OCTETS, final, body=b"x")[0]
    assert 201 == curl(version, "POST", root[0], OCTETS, final)[0]


@pytest.mark.parametrize("version", [HTTP2, HTTP1])
@pytest.mark.parametrize("length", LENGTHS[1:])
def test_what_is_refused_is_refused_as_with_a_length(root: Root, version: str, length: int) -> None:
    url, body = create(root, version, length), SOURCE[:length]
    wrong = base64.b64encode(hashlib.sha1(b"").digest()).decode()
    right = base64.b64encode(hashlib.sha1(body).digest()).decode()

    assert 415 == curl(version, "POST", root[0], f"Upload-Length: {length}", body=body)[0]
    assert 415 == curl(version, "PATCH", url, "Upload-Offset: 0", body=body)[0]
    assert 409 == curl(version, "PATCH", url, OCTETS, "Upload-Offset: 9", body=body)[0]
    assert 413 == curl(version, "PATCH", url, OCTETS, "Upload-Offset: 0", body=body + b"x")[0]
    assert (
        460 == curl(version, "PATCH", url, OCTETS, "Upload-Offset: 0", f"Upload-Checksum: sha1 {wrong}", body=body)[0]
    )
    assert "0" == curl(version, "HEAD", url)[1]["upload-offset"]
    assert (
        204 == curl(version, "PATCH", url, OCTETS, "Upload-Offset: 0", f"Upload-Checksum: sha1 {right}", body=body)[0]
    )
    assert body == (root[1] / tus.upload_id(url)).read_bytes()
