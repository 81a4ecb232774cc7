"""Two real processes, one real Redis, one folder: any replica takes any piece, whatever becomes of the other."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tus
from tests.support.content import sha256, stored
from tests.support.processes import Server, eventually, running_redis, running_server, start_server

MIB = 1024 * 1024
LEASE_TTL_S = 2.0
Replicas = tuple[Server, Server]


@pytest.fixture(params=["redis", "sqlite"])
def replicas(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Replicas]:
    """Two servers on one folder; SQLite serves several processes of one host as well."""
    flags = ["--lease-ttl", str(LEASE_TTL_S)]
    if request.param == "redis":
        flags += ["--redis-url", redis_url]
    with running_server(tmp_path, *flags) as a, running_server(tmp_path, *flags) as b:
        yield a, b


def test_any_replica_takes_any_piece(replicas: Replicas, tmp_path: Path) -> None:
    a, b = replicas
    source = os.urandom(3 * MIB)
    url = tus.create(a.url, len(source))

    first = tus.patch(tus.on(url, b.url), 0, source[:MIB])

    assert (204, str(MIB)) == (first.status_code, first.headers["Upload-Offset"])
    assert MIB == tus.offset_of(url)

    second = tus.patch(url, MIB, source[MIB:])

    assert (204, str(3 * MIB)) == (second.status_code, second.headers["Upload-Offset"])
    assert sha256(source) == stored(tmp_path, url)


def test_head_makes_a_silent_patch_let_go_and_counts_every_byte(replicas: Replicas, tmp_path: Path) -> None:
    """The connection stays open and silent; HEAD on the other replica is answered within 2 s."""
    a, b = replicas
    source = os.urandom(3 * MIB)
    url = tus.create(a.url, len(source))
    with tus.half_sent(tus.on(url, b.url), 0, len(source), source[: MIB + 7]) as silent:
        time.sleep(1.2)
        asked_at = time.monotonic()

        assert MIB + 7 == tus.offset_of(url)
        assert time.monotonic() - asked_at < 2

        # The silent one was answered with what it reached, and its connection ends: its body was not read.
        status, headers = tus.answer(silent)

        assert (204, str(MIB + 7), "close") == (status, headers["upload-offset"], headers["connection"])

        assert 204 == tus.patch(url, MIB + 7, source[MIB + 7 :]).status_code
    assert sha256(source) == stored(tmp_path, url)


def test_head_leaves_a_receiving_patch_alone(replicas: Replicas) -> None:
    """A monitor that polls never cuts an upload; each answer counts what had arrived."""
    a, b = replicas
    url = tus.create(a.url, 10 * MIB)
    with tus.half_sent(tus.on(url, b.url), 0, 10 * MIB, b"x" * MIB) as receiving:
        told = []
        for n in range(2, 11):
            receiving.sendall(b"x" * MIB if n < 10 else b"")
            eventually(lambda n=n: tus.offset_of(url) >= (min(n, 9)) * MIB)  # type: ignore[misc]
            told.append(tus.offset_of(url))

        assert sorted(told) == told

        receiving.sendall(b"x" * MIB)

        assert 204 == tus.answer(receiving)[0]
    assert 10 * MIB == tus.offset_of(url)


def test_a_patch_makes_the_holder_yield(replicas: Replicas, tmp_path: Path) -> None:
    """A client that lost its connection comes back at once, at the offset that it finds."""
    a, b = replicas
    source = os.urandom(2 * MIB)
    url = tus.create(a.url, len(source))
    with tus.half_sent(tus.on(url, b.url), 0, len(source), source[:MIB]):
        eventually(lambda: MIB == tus.offset_of(url))

        asked_at = time.monotonic()
        taken = tus.patch(url, MIB, source[MIB:])

        assert 204 == taken.status_code
        assert time.monotonic() - asked_at < 2
    assert sha256(source) == stored(tmp_path, url)


def test_delete_ends_a_running_patch(replicas: Replicas, tmp_path: Path) -> None:
    a, b = replicas
    url = tus.create(a.url, 2 * MIB)
    with tus.half_sent(tus.on(url, b.url), 0, 2 * MIB, b"x" * MIB) as running:
        eventually(lambda: MIB == tus.offset_of(url))

        import httpx

        assert 204 == httpx.delete(url, headers=tus.TUS, timeout=tus.TIMEOUT_S).status_code
        assert 204 == tus.answer(running)[0]
    assert 410 == tus.head(url).status_code
    assert 410 == tus.head(tus.on(url, b.url)).status_code
    assert [] == [name for name in os.listdir(tmp_path / "uploads") if tus.upload_id(url) in name]


def test_a_killed_replica_blocks_its_upload_no_longer_than_its_lease(replicas: Replicas, tmp_path: Path) -> None:
    """HEAD waits the lease out: the client never sees anything that makes it start over."""
    a, b = replicas
    source = os.urandom(2 * MIB)
    url = tus.create(a.url, len(source))
    with tus.half_sent(tus.on(url, b.url), 0, len(source), source[:MIB]):
        eventually(lambda: MIB == tus.offset_of(url))
        b.kill()
    killed_at = time.monotonic()
    offset = tus.offset_of(url)

    assert MIB == offset
    assert time.monotonic() - killed_at < LEASE_TTL_S + 1.5
    assert 204 == tus.patch(url, offset, source[offset:]).status_code
    assert sha256(source) == stored(tmp_path, url)


def test_a_frozen_holder_that_wakes_changes_nothing(replicas: Replicas, tmp_path: Path) -> None:
    """Its lease is over, its file lock kept the successor out (423) until it had gone; its bytes count for nothing."""
    a, b = replicas
    source = os.urandom(2 * MIB)
    url = tus.create(a.url, len(source))
    with tus.half_sent(tus.on(url, b.url), 0, len(source), source[:MIB]) as frozen:
        eventually(lambda: MIB == tus.offset_of(url))
        b.freeze()
        frozen.sendall(b"\xee" * 300_000)  # waits in the kernel for the frozen one
        refused = tus.patch(url, MIB, source[MIB:])

        assert (423, "ERR_UPLOAD_LOCKED") == (refused.status_code, refused.json()["code"])

        b.thaw()
        taken = eventually(lambda: (r := tus.patch(url, MIB, source[MIB:])).status_code == 204 and r)

        assert str(2 * MIB) == taken.headers["Upload-Offset"]
    assert sha256(source) == stored(tmp_path, url)


def test_a_client_that_goes_away_keeps_every_byte(replicas: Replicas) -> None:
    a, b = replicas
    url = tus.create(a.url, 2 * MIB)
    with tus.half_sent(tus.on(url, b.url), 0, 2 * MIB, b"x" * (MIB + 1)):
        eventually(lambda: MIB + 1 == tus.offset_of(url))

    assert MIB + 1 == tus.offset_of(url)


def test_redis_stopped_in_mid_upload_costs_nothing(tmp_path: Path) -> None:
    """PATCH and POST are 503 with Retry-After, HEAD is 423; what was acknowledged is there when Redis is back."""
    source = os.urandom(4 * MIB)
    with running_redis(tmp_path / "redis") as redis:
        flags = ("--redis-url", redis.url, "--lease-ttl", "2")
        with running_server(tmp_path, *flags) as a, running_server(tmp_path, *flags) as b:
            url = tus.create(a.url, len(source))
            with tus.half_sent(url, 0, len(source), source[:MIB]) as sending:
                eventually(lambda: MIB == tus.offset_of(tus.on(url, b.url)))
                redis.kill()
                sending.sendall(source[MIB : 2 * MIB])
                status, headers = tus.answer(sending)

                assert (503, "1") == (status, headers["retry-after"])

            import httpx

            refused = tus.patch(url, MIB, source[MIB:])

            assert (503, "ERR_LEDGER_UNAVAILABLE") == (refused.status_code, refused.json()["code"])
            assert 503 == httpx.post(a.url, headers={**tus.TUS, "Upload-Length": "1"}, timeout=30).status_code
            assert 423 == tus.head(url).status_code
            root = a.url.removesuffix("files/")
            assert 200 == httpx.get(root + "healthz").status_code
            assert 503 == httpx.get(root + "readyz", timeout=30).status_code

            redis.start()
            offset = eventually(lambda: (r := tus.head(url)).status_code == 200 and int(r.headers["Upload-Offset"]))

            assert MIB <= offset <= 2 * MIB
            assert 204 == tus.patch(tus.on(url, b.url), offset, source[offset:]).status_code
            assert "Traceback" not in a.log.read_text() + b.log.read_text()
    assert sha256(source) == stored(tmp_path, url)


def test_a_killed_server_resumes_when_it_is_started_again(tmp_path: Path) -> None:
    """SQLite in the upload folder: no server, and kill -9 loses nothing that was acknowledged."""
    source = os.urandom(4 * MIB)
    with running_server(tmp_path, "--lease-ttl", "1", "--checkpoint-bytes", "65536") as server:
        url = tus.create(server.url, len(source))
        with tus.half_sent(url, 0, len(source), source[: 3 * MIB]):
            eventually(lambda: tus.offset_of(url) >= MIB)
            acknowledged = tus.offset_of(url)
            server.kill()
        again = start_server(tmp_path, port=int(server.url.split(":")[2].split("/")[0]))
        try:
            offset = tus.offset_of(url)

            assert acknowledged <= offset <= 3 * MIB
            assert 204 == tus.patch(url, offset, source[offset:]).status_code
        finally:
            again.kill()
    assert sha256(source) == stored(tmp_path, url)


def test_several_workers_share_one_port(tmp_path: Path) -> None:
    with running_server(tmp_path, "--workers", "2") as server:
        source = os.urandom(MIB)
        url = tus.create(server.url, len(source))
        for offset in range(0, MIB, MIB // 8):
            piece = source[offset : offset + MIB // 8]

            assert 204 == tus.patch(url, offset, piece).status_code
        assert MIB == tus.offset_of(url)
    assert sha256(source) == stored(tmp_path, url)
