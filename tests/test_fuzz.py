"""Random malformed requests: none causes a 5xx, blocks the server or changes other uploads.

TUSD_PY_FUZZ_REQUESTS=20000 makes the run longer, TUSD_PY_FUZZ_SEED=5 makes other requests.
"""

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support import tus
from tests.support.fuzzing import Fuzzer, check, send
from tests.support.processes import Server, running_server

REQUESTS = int(os.environ.get("TUSD_PY_FUZZ_REQUESTS", "1500"))
SEED = int(os.environ.get("TUSD_PY_FUZZ_SEED", "1"))
CLIENTS = 32  # at once; most of them wait for a timeout of the server
MAX_SIZE = 1024 * 1024
FINISHED = b"what was finished before"
UNFINISHED = b"what was begun "


@dataclass
class Protected:
    """A server and two uploads on it that no request may change."""

    server: Server
    finished: str  # URL
    unfinished: str  # URL
    before: dict[str, bytes]  # their files: name and content

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.server.url)
        assert parts.hostname and parts.port
        return parts.hostname, parts.port

    def check(self) -> None:
        """Check that the server works and that the two uploads have not changed."""
        assert "Traceback" not in self.server.log.read_text(), self.server.log.read_text()
        assert self.server.process.poll() is None
        assert self.before == files_of(self.server, self.finished, self.unfinished)
        assert FINISHED == httpx.get(self.finished, timeout=tus.TIMEOUT_S).content
        assert len(UNFINISHED) == tus.offset_of(self.unfinished)

        url = tus.create(self.server.url, 5)

        assert 204 == tus.patch(url, 0, b"hello").status_code
        assert b"hello" == httpx.get(url).content


def files_of(server: Server, *urls: str) -> dict[str, bytes]:
    """Return the content of all files of the uploads by name."""
    folder = server.log.parent / "uploads"
    return {file.name: file.read_bytes() for url in urls for file in folder.glob(tus.upload_id(url) + "*")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the module, with short timeouts and a trusted proxy."""
    flags = ("--max-size", str(MAX_SIZE), "--read-timeout", "1", "--lease-wait", "2", "--behind-proxy", "127.0.0.1")
    with running_server(tmp_path_factory.mktemp("fuzz"), *flags) as running:
        yield running


@pytest.fixture(scope="module")
def protected(server: Server) -> Protected:
    finished = tus.create(server.url, len(FINISHED), filename="a.mp4", filetype="video/mp4")
    tus.patch(finished, 0, FINISHED)
    unfinished = tus.create(server.url, 1000, filename="b.mp4")
    tus.patch(unfinished, 0, UNFINISHED)
    return Protected(server, finished, unfinished, files_of(server, finished, unfinished))


@pytest.fixture
def checked(protected: Protected) -> Iterator[Protected]:
    """The server with its two uploads, which are checked after the test."""
    yield protected
    protected.check()


@pytest.mark.timeout(0)  # limited by the number of requests and the time for each
def test_random_requests_are_answered_and_touch_nothing_else(checked: Protected) -> None:
    """Every random request gets an answer below 500 or is closed, in time; the log has no traceback."""
    host = ":".join(map(str, checked.address)).encode()
    ids = [tus.upload_id(url).encode() for url in (checked.finished, checked.unfinished)]
    targets = list(make_targets(checked.server, REQUESTS // 8 + 8))
    failures: list[str] = []

    def one(number: int) -> None:
        rng = random.Random(f"{SEED}/{number}")
        request = Fuzzer(rng, host, rng.sample(targets, 3), ids).request()
        try:
            check(request, send(checked.address, request))
        except Exception as exc:
            failures.append(f"seed {SEED}, request {number}: {exc!r}\n{request.data[:600]!r}")

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(REQUESTS)))

    assert not failures, f"{len(failures)} of {REQUESTS} requests, seed {SEED}:\n" + "\n".join(failures[:10])


def make_targets(server: Server, number: int) -> Iterator[bytes]:
    """Yield the ids of new uploads and partial uploads, some finished, some at 3 of 100 bytes."""
    kinds: tuple[tuple[str, dict[str, str]], ...] = (
        ("100", {}),
        ("3", {}),
        ("3", {"Upload-Concat": "partial"}),
        ("100", {"Upload-Concat": "partial"}),
    )
    with httpx.Client(headers=tus.BYTES, timeout=tus.TIMEOUT_S) as client:
        for at in range(number):
            length, more = kinds[at % len(kinds)]
            response = client.post(server.url, headers={"Upload-Length": length, **more}, content=b"abc")
            yield tus.upload_id(response.headers["Location"]).encode()
