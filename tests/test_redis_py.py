"""The two ways of a command to Redis: over redis-py's connections, and by its client where its internals are unknown.

Both are held to the same, on a real server behind a proxy that breaks connections.
"""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from tests.support import tus
from tests.support.folder import NewFolder
from tests.support.processes import Redis, running_server
from tests.support.proxy import Mode, Proxy, running_proxy
from tusd_py.ledger.redis import RedisLedger, connections
from tusd_py.ledger.redis.servers import connect
from tusd_py.ports import Held
from tusd_py.protocol.refusals import Unavailable
from tusd_py.protocol.upload import Upload

pytestmark = pytest.mark.anyio

UPLOAD = Upload(id="a" * 32, length=10, offset=0, metadata="", created_at=1000.5, expires_at=None)
TTL_S = 30.0
NEWER = "9.9.0"


@pytest.fixture(params=["over connections", "by the client"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """How commands go; what redis-py this is, is looked at once in a process."""
    if request.param == "by the client":
        monkeypatch.setattr(redis, "__version__", NEWER)
    connections.fits.cache_clear()
    yield request.param
    connections.fits.cache_clear()


@pytest.fixture
def proxy(redis_server: Redis, redis_url: str) -> Iterator[Proxy]:
    with running_proxy(redis_server.port) as proxy:
        yield proxy


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisLedger]:
    """A ledger for the length of the block."""
    ledger = RedisLedger(connect(url))
    await ledger.open(NewFolder("f" * 32))
    try:
        await ledger.bind()
        yield ledger
    finally:
        await ledger.close()


def url_of(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"


def test_this_redis_py_is_one_whose_internals_are_known_to_fit() -> None:
    """Fails when redis-py moves on: look whether Connections still fit, then widen the range in connections.py."""
    connections.fits.cache_clear()

    assert connections.fits(), f"redis-py {redis.__version__} is outside {connections.REDIS_PY}"


async def test_another_redis_py_is_mentioned_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis, "__version__", NEWER)
    connections.fits.cache_clear()
    with caplog.at_level(logging.WARNING, "tusd_py"):
        for _ in range(2):
            async with opened(redis_url) as ledger:
                await ledger.ping()
    connections.fits.cache_clear()

    assert ["redis-py is 9.9.0: commands take its own, slower way; the fast one needs 8.1 and below 8.2"] == [
        record.getMessage() for record in caplog.records
    ]


@pytest.mark.parametrize("version", ["8.1.0", "8.1", "8.1.0b1", "8.1.12"])
def test_a_version_fits_whatever_follows_its_first_numbers(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "__version__", version)
    connections.fits.cache_clear()

    assert connections.fits()


@pytest.mark.parametrize("version", ["8.0.9", "8.2.0", "8.2.0rc1", "9.0b1", "10.1"])
def test_other_versions_do_not_fit(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "__version__", version)
    connections.fits.cache_clear()

    assert not connections.fits()


async def test_a_few_steps_of_the_ledger(way: str, proxy: Proxy) -> None:
    async with opened(url_of(proxy)) as ledger:
        await ledger.create(UPLOAD)

        assert UPLOAD == await ledger.acquire(UPLOAD.id, "t1", TTL_S)
        assert isinstance(await ledger.acquire(UPLOAD.id, "t2", TTL_S), Held)

        await ledger.commit(UPLOAD.at(5, expires_at=None), "t1", TTL_S, release=True)

        assert 5 == (await ledger.inspect(UPLOAD.id, ask=False)).upload.offset


async def test_many_commands_at_once(way: str, proxy: Proxy) -> None:
    """More than there are connections: each waits for its turn and gets its own answer."""
    uploads = [dataclasses.replace(UPLOAD, id=f"{n:032x}", length=n + 1) for n in range(200)]
    async with opened(url_of(proxy)) as ledger:
        await asyncio.gather(*map(ledger.create, uploads))
        sights = await asyncio.gather(*(ledger.inspect(one.id, ask=False) for one in uploads))

    assert uploads == [sight.upload for sight in sights]


async def test_connections_that_were_cut_come_back(way: str, proxy: Proxy) -> None:
    async with opened(url_of(proxy)) as ledger:
        await ledger.create(UPLOAD)
        for _ in range(3):
            proxy.become(Mode.CUT)
            with pytest.raises(Unavailable):
                await ledger.inspect(UPLOAD.id, ask=False)
            proxy.become(Mode.PASS)

            assert UPLOAD == (await ledger.inspect(UPLOAD.id, ask=False)).upload


async def test_an_answer_that_is_lost_with_its_connection_is_asked_for_again(way: str, proxy: Proxy) -> None:
    async with opened(url_of(proxy)) as ledger:
        await ledger.create(UPLOAD)
        proxy.lose_answer_to = b"t1"

        assert UPLOAD == await ledger.acquire(UPLOAD.id, "t1", TTL_S)


async def test_a_silent_server_costs_one_time_out_and_no_answer_goes_astray(way: str, proxy: Proxy) -> None:
    other = dataclasses.replace(UPLOAD, id="b" * 32, length=20)
    async with opened(url_of(proxy)) as ledger:
        await ledger.create(UPLOAD)
        await ledger.create(other)
        proxy.become(Mode.HANG)
        async with asyncio.timeout(30.0):
            with pytest.raises(Unavailable):
                await ledger.inspect(UPLOAD.id, ask=False)
        proxy.become(Mode.PASS)

        assert other == (await ledger.inspect(other.id, ask=False)).upload
        assert UPLOAD == (await ledger.inspect(UPLOAD.id, ask=False)).upload


async def test_a_command_that_is_cancelled_leaves_no_answer_for_the_next(way: str, proxy: Proxy) -> None:
    other = dataclasses.replace(UPLOAD, id="b" * 32, length=20)
    async with opened(url_of(proxy)) as ledger:
        await ledger.create(UPLOAD)
        await ledger.create(other)
        for _ in range(3):
            proxy.become(Mode.HANG)
            asking = asyncio.create_task(ledger.inspect(UPLOAD.id, ask=False))
            for _ in range(100):  # turns of the event loop, until it waits for its answer
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            proxy.become(Mode.PASS)

            assert other == (await ledger.inspect(other.id, ask=False)).upload


def test_a_server_runs_with_another_redis_py(tmp_path: Path, redis_url: str) -> None:
    start = f"import redis; redis.__version__ = '{NEWER}'; from tusd_py.cli import main; main()"
    with running_server(tmp_path, "--redis-url", redis_url, program=("-c", start)) as one:
        url = tus.create(one.url, 6)

        assert 204 == tus.patch(url, 0, b"abcdef").status_code
        assert 6 == tus.offset_of(url)
        assert 1 == one.log.read_text().count("commands take its own, slower way")
