"""Other people's clients as they are: tuspy, aiotus, curl."""

import asyncio
import hashlib
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiotus
import pytest
from tusclient.client import TusClient

from tests.support import tus
from tests.support.processes import Server, running_server

KIB = 1024
LENGTH = 700 * KIB + 13


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("clients")) as running:
        yield running


def stored(server: Server, url: str) -> str:
    """Return the SHA-256 of an upload's file."""
    return hashlib.sha256((server.log.parent / "uploads" / tus.upload_id(url)).read_bytes()).hexdigest()


@pytest.mark.parametrize("checksum", [False, True], ids=["without checksum", "with checksum"])
@pytest.mark.parametrize("metadata", [{}, {"filename": "vidéo.mp4"}], ids=["no metadata", "metadata"])
def test_tuspy(server: Server, checksum: bool, metadata: dict[str, str]) -> None:
    """Without metadata it sends an empty Upload-Metadata header."""
    source = os.urandom(LENGTH)
    uploader = TusClient(server.url).uploader(
        file_stream=io.BytesIO(source), chunk_size=256 * KIB, metadata=metadata, upload_checksum=checksum
    )
    uploader.upload(stop_at=300 * KIB)
    resumed = TusClient(server.url).uploader(
        file_stream=io.BytesIO(source), chunk_size=256 * KIB, url=uploader.url, upload_checksum=checksum
    )

    assert 300 * KIB <= resumed.offset < LENGTH

    resumed.upload()

    assert uploader.url
    assert hashlib.sha256(source).hexdigest() == stored(server, uploader.url)


def test_aiotus(server: Server) -> None:
    """It fails on a relative Location."""
    source = os.urandom(LENGTH)
    url = asyncio.run(aiotus.upload(server.url, io.BytesIO(source), {"filename": b"a.mp4"}))

    assert url
    assert hashlib.sha256(source).hexdigest() == stored(server, str(url))


def test_aiotus_uploads_in_parallel_by_concatenation(server: Server) -> None:
    source = os.urandom(LENGTH)
    url = asyncio.run(aiotus.upload_multiple(server.url, [io.BytesIO(source[:1000]), io.BytesIO(source[1000:])]))

    assert url
    assert hashlib.sha256(source).hexdigest() == stored(server, str(url))


def test_curl_with_a_chunked_body(server: Server, tmp_path: Path) -> None:
    source = os.urandom(LENGTH)
    (tmp_path / "source").write_bytes(source)
    url = tus.create(server.url, LENGTH)
    sent = subprocess.run(
        [
            *("curl", "-sS", "-i", "-X", "PATCH", url, "-T", str(tmp_path / "source"), "-H", "Tus-Resumable: 1.0.0"),
            *("-H", "Upload-Offset: 0", "-H", "Content-Type: application/offset+octet-stream"),
            *("-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert f"upload-offset: {LENGTH}" in sent.stdout
    assert hashlib.sha256(source).hexdigest() == stored(server, url)
