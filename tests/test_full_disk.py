"""A disk that is full, on every way that bytes take: 507, every byte that found room is recorded, then it goes on."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import tus
from tests.support.disk import small_disk
from tests.support.processes import eventually, running_server
from tests.support.storage import fill, free

MIB = 1024 * 1024


@pytest.fixture
def uploads(tmp_path: Path) -> Iterator[Path]:
    """The upload folder of a server, on a small disk with tiny blocks."""
    with small_disk(tmp_path / "uploads", block=1024) as folder:
        yield folder


def send(url: str, way: str, offset: int, source: bytes) -> httpx.Response:
    """PATCH the source, the one way or the other."""
    chunks = (source[at : at + 100_000] for at in range(0, len(source), 100_000))
    content = chunks if way == "chunked" else source
    return httpx.patch(url, content=content, headers={**tus.BYTES, "Upload-Offset": str(offset)}, timeout=60)


@pytest.mark.parametrize("durability", ["fsync", "none"])
@pytest.mark.parametrize("min_free", [0, 4 * MIB])
@pytest.mark.parametrize(("way", "size"), [("kernel", 8 * MIB), ("chunked", 8 * MIB), ("small", 60_000)])
def test_the_bytes_that_fit_are_recorded(
    tmp_path: Path, uploads: Path, redis_url: str, durability: str, min_free: int, way: str, size: int
) -> None:
    source = os.urandom(size)
    flags = ("--redis-url", redis_url, "--durability", durability, "--min-free", str(min_free))
    with running_server(tmp_path, *flags) as server:
        url = tus.create(server.url, size)
        filler = fill(uploads, min_free + size // 2)
        response = send(url, way, 0, source)
        offset = tus.offset_of(url)

        assert (507, "ERR_STORAGE_FULL") == (response.status_code, response.json()["code"])
        assert size // 4 < offset <= size // 2 + 65_536
        assert source[:offset] == (uploads / tus.upload_id(url)).read_bytes()[:offset]
        assert free(uploads) >= min_free - 256 * 1024

        again = send(url, way, offset, source[offset:])

        assert 507 == again.status_code

        offset = tus.offset_of(url)
        filler.unlink()

        assert 204 == send(url, way, offset, source[offset:]).status_code
        assert source == (uploads / tus.upload_id(url)).read_bytes()
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("size", [60_000, 8 * MIB])
def test_the_bytes_of_a_creation_that_fit_are_recorded(
    tmp_path: Path, uploads: Path, redis_url: str, size: int
) -> None:
    source = os.urandom(size)
    with running_server(tmp_path, "--redis-url", redis_url, "--min-free", "0") as server:
        fill(uploads, size // 2)
        headers = {**tus.BYTES, "Upload-Length": str(size)}
        response = httpx.post(server.url, content=source, headers=headers, timeout=60)
        (made,) = [path for path in uploads.iterdir() if path.suffix == ".info"]

        assert 507 == response.status_code

        offset = tus.offset_of(server.url + made.stem)

        assert size // 4 < offset <= size // 2
        assert source[:offset] == (uploads / made.stem).read_bytes()[:offset]


def test_a_server_starts_on_a_full_volume_and_deletes(tmp_path: Path, uploads: Path, redis_url: str) -> None:
    with running_server(tmp_path, "--redis-url", redis_url) as server:
        url = tus.create(server.url, 10)

        assert 204 == tus.patch(url, 0, b"0123456789").status_code

    fill(uploads, 0)
    with running_server(tmp_path, "--redis-url", redis_url) as server:
        url = tus.on(url, server.url)

        assert b"0123456789" == httpx.get(url).content
        assert 204 == httpx.delete(url, headers=tus.TUS).status_code
        assert not (uploads / tus.upload_id(url)).exists()


def test_a_ledger_on_a_full_volume_records_what_frees_room(tmp_path: Path, uploads: Path) -> None:
    """SQLite lies on the volume that others filled to the last block: nothing could be removed without the reserve."""
    with running_server(tmp_path) as server:
        finished, half, unused = (tus.create(server.url, 2 * MIB) for _ in range(3))
        tus.patch(finished, 0, bytes(2 * MIB))
        tus.patch(half, 0, bytes(MIB))
        eventually(lambda: (uploads / ".tusd_py.reserve").exists())
        filler = fill(uploads, 0)
        for _ in range(3):
            assert 507 == tus.patch(half, MIB, bytes(MIB)).status_code
            assert 507 == tus.patch(unused, 0, b"0").status_code
            assert 507 == httpx.post(server.url, headers={**tus.TUS, "Upload-Length": "1"}).status_code
            assert [2 * MIB, MIB, 0] == [tus.offset_of(url) for url in (finished, half, unused)]

        assert 204 == httpx.delete(finished, headers=tus.TUS).status_code
        assert not (uploads / tus.upload_id(finished)).exists()

    fill(uploads, 0)
    with running_server(tmp_path, "--expire-after", "1", "--sweep-interval", "0.5") as server:
        half, finished = tus.on(half, server.url), tus.on(finished, server.url)

        assert MIB == tus.offset_of(half)
        assert tus.head(finished).status_code in (404, 410)
        assert 204 == httpx.delete(half, headers=tus.TUS).status_code

        filler.unlink()
        short = tus.create(server.url, 10)
        tus.patch(short, 0, b"0")
        fill(uploads, 0)
        eventually(lambda: not (uploads / tus.upload_id(short)).exists(), what="what expired is gone")
        filler.unlink()

        assert 201 == httpx.post(server.url, headers={**tus.TUS, "Upload-Length": "1"}).status_code
        assert "Traceback" not in server.log.read_text()
