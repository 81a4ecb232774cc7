"""Ledger and folder belong to each other: neither is mistaken for another, or for one that has lost everything."""

import asyncio
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.folder import NewFolder
from tests.support.processes import Redis
from tusd_py.ledger.redis import RedisLedger
from tusd_py.ledger.redis.servers import connect
from tusd_py.ledger.sqlite import SqliteLedger
from tusd_py.ports import WrongLedger
from tusd_py.protocol.refusals import LedgerUnrecovered, Unavailable, UploadNotFound
from tusd_py.protocol.upload import Upload

pytestmark = pytest.mark.anyio

AnyLedger = SqliteLedger | RedisLedger
UPLOAD = Upload(id="a" * 32, length=10, offset=0, metadata="", created_at=1000.5)


@pytest.fixture(params=["sqlite", "redis", "redis of three shards"])
def new_ledger(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Callable[[], AnyLedger]:
    """Makes one more server's view of the same ledger."""

    def make() -> AnyLedger:
        if request.param == "sqlite":
            return SqliteLedger(tmp_path / "ledger.sqlite3")
        return RedisLedger(connect(redis_url), shards=3 if "three" in request.param else 1)

    return make


async def opened(ledger: AnyLedger, folder: NewFolder) -> AnyLedger:
    await ledger.open(folder)
    await ledger.bind()
    return ledger


async def refused(ledger: AnyLedger, folder: NewFolder) -> str:
    try:
        with pytest.raises(WrongLedger) as refusal:
            await opened(ledger, folder)
        return str(refusal.value)
    finally:
        await ledger.close()


async def test_a_new_ledger_and_a_new_folder_are_tied_together(new_ledger: Callable[[], AnyLedger]) -> None:
    folder = NewFolder()
    await (await opened(new_ledger(), folder)).close()

    assert folder.text

    await (await opened(new_ledger(), folder)).close()


async def test_another_folder_is_refused_with_the_way_out(new_ledger: Callable[[], AnyLedger]) -> None:
    await (await opened(new_ledger(), NewFolder("1" * 32))).close()
    text = await refused(new_ledger(), NewFolder("2" * 32))

    assert "1" * 32 in text and "2" * 32 in text and "--redis-prefix" in text


async def test_a_folder_without_identity_is_no_new_folder_to_a_ledger_that_has_one(
    new_ledger: Callable[[], AnyLedger],
) -> None:
    """An unmounted volume looks like that: nothing may be written into it."""
    await (await opened(new_ledger(), NewFolder("1" * 32))).close()
    empty = NewFolder()
    text = await refused(new_ledger(), empty)

    assert "mount" in text and "1" * 32 in text
    assert empty.text is None


async def test_a_ledger_without_records_does_not_know_what_a_folder_of_uploads_has(
    new_ledger: Callable[[], AnyLedger],
) -> None:
    """404 would make every client start again; until recover has run the answer is 503, on every server."""
    folder = NewFolder("1" * 32, has_them=True)
    ledger, other = await opened(new_ledger(), folder), await opened(new_ledger(), folder)
    await ledger.create(UPLOAD)
    for one in (ledger, other):
        assert UPLOAD == (await one.inspect(UPLOAD.id, ask=False)).upload
        with pytest.raises(LedgerUnrecovered):
            await one.inspect("b" * 32, ask=True)
        with pytest.raises(LedgerUnrecovered):
            await one.acquire("b" * 32, "t1", 30.0)

    await ledger.recovered()
    for one in (ledger, other):
        with pytest.raises(UploadNotFound):
            await one.inspect("b" * 32, ask=True)
        await one.close()


async def test_a_ledger_that_loses_everything_while_it_is_used_is_noticed(redis_url: str) -> None:
    """FLUSHALL, a restart without persistence, a failover to an empty replica."""
    folder = NewFolder("1" * 32)
    ledger = await opened(RedisLedger(connect(redis_url)), folder)
    await ledger.create(UPLOAD)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    folder.has_them = True
    with pytest.raises(LedgerUnrecovered):
        await ledger.acquire(UPLOAD.id, "t1", 30.0)

    await ledger.close()


async def test_a_ledger_that_became_another_ones_is_left_alone(redis_url: str) -> None:
    ledger = await opened(RedisLedger(connect(redis_url)), NewFolder("1" * 32))
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        other = await opened(RedisLedger(connect(redis_url)), NewFolder("2" * 32))
        before = client.dbsize()
        for step in (ledger.create(UPLOAD), ledger.acquire(UPLOAD.id, "t1", 30.0), ledger.claim(0.0, 1.0, 1)):
            with pytest.raises(Unavailable):
                await step

        assert before == client.dbsize()

    await ledger.close()
    await other.close()


async def test_two_prefixes_are_two_ledgers(redis_url: str) -> None:
    one = await opened(RedisLedger(connect(redis_url), prefix="one"), NewFolder("1" * 32))
    two = await opened(RedisLedger(connect(redis_url), prefix="two"), NewFolder("2" * 32))
    await one.create(UPLOAD)
    with pytest.raises(UploadNotFound):
        await two.inspect(UPLOAD.id, ask=False)

    await one.close()
    await two.close()


@pytest.mark.parametrize(("first", "then"), [(1, 2), (3, 1), (16, 4)])
async def test_another_number_of_shards_is_refused(redis_url: str, first: int, then: int) -> None:
    """Every upload would be 404, and every event sent again and again."""
    folder = NewFolder()
    await (await opened(RedisLedger(connect(redis_url), shards=first), folder)).close()

    text = await refused(RedisLedger(connect(redis_url), shards=then), folder)

    assert f"is {then}" in text and f"spread over {first}:" in text


@pytest.mark.parametrize(("number", "then"), [(0, 3), (5, 1)])
async def test_another_number_of_shards_is_seen_in_records_without_identity(
    redis_url: str, number: int, then: int
) -> None:
    """A server of version 1 noted no number; a record that lies elsewhere than it should shows it."""
    with redis.Redis.from_url(redis_url) as client:
        client.hset(f"tusd:{{{number}}}:upload:{UPLOAD.id}", mapping={"offset": 0, "length": 10})

    assert "another number" in await refused(RedisLedger(connect(redis_url), shards=then), NewFolder())


async def test_a_redis_that_is_away_is_checked_when_it_is_back(redis_server: Redis, redis_url: str) -> None:
    """Nothing is believed before; a server may start before its Redis."""
    dead = RedisLedger(connect("redis://127.0.0.1:1/0"))
    await dead.open(NewFolder())
    for step in (dead.bind(), dead.inspect(UPLOAD.id, ask=False)):
        with pytest.raises(Unavailable):
            await step
    await dead.close()


async def test_a_sqlite_file_that_is_removed_is_an_outage(tmp_path: Path) -> None:
    """Never "no such upload", and no new file by itself; when it is back it goes on."""
    path = tmp_path / "ledger.sqlite3"
    ledger = await opened(SqliteLedger(path), NewFolder())
    await ledger.create(UPLOAD)
    for name in ("ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm"):
        (tmp_path / name).rename(tmp_path / f"away-{name}")
    for step in (ledger.inspect(UPLOAD.id, ask=False), ledger.create(UPLOAD), ledger.ping()):
        with pytest.raises(Unavailable):
            await step

    assert not path.exists()

    for name in ("ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm"):
        (tmp_path / f"away-{name}").rename(tmp_path / name)

    assert UPLOAD == (await ledger.inspect(UPLOAD.id, ask=False)).upload

    await ledger.close()


@pytest.mark.parametrize("damage", [b"no SQLite at all" * 512, b"SQLite format 3\0" + b"\xff" * 8176])
async def test_a_sqlite_file_that_is_damaged_is_an_outage(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says what to do, however often it is met."""
    path = tmp_path / "ledger.sqlite3"
    ledger = await opened(SqliteLedger(path), NewFolder())
    await ledger.create(UPLOAD)
    path.with_name("damaged").write_bytes(damage)
    for name in ("ledger.sqlite3-wal", "ledger.sqlite3-shm"):  # they hold all that was written so far
        (tmp_path / name).unlink()
    path.with_name("damaged").rename(path)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await ledger.inspect(UPLOAD.id, ask=False)
        with pytest.raises(Unavailable):
            await ledger.acquire(UPLOAD.id, "t1", 30.0)

    assert 1 <= len([record for record in caplog.records if "tusd-py recover" in record.message]) <= 2

    await ledger.close()


async def test_a_sqlite_file_that_is_restored_from_a_copy_is_used(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = await opened(SqliteLedger(path), NewFolder())
    await ledger.create(UPLOAD)
    with sqlite3.connect(path) as source, sqlite3.connect(tmp_path / "copy") as copy:
        source.backup(copy)
    source.close()
    copy.close()
    for name in ("ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm"):
        (tmp_path / name).unlink()
    (tmp_path / "copy").rename(path)

    assert UPLOAD == (await ledger.inspect(UPLOAD.id, ask=False)).upload
    await ledger.acquire(UPLOAD.id, "t1", 30.0)

    await ledger.close()


async def test_all_who_wait_for_a_redis_that_is_away_share_one_look() -> None:
    """One look takes seconds; a hundred requests must not stand in line for a hundred of them."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connected = []
        ledger = RedisLedger(connect(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
        silent.setblocking(False)
        await ledger.open(NewFolder())
        asking = [asyncio.create_task(ledger.inspect(UPLOAD.id, ask=False)) for _ in range(50)]
        refused = await asyncio.gather(*asking, return_exceptions=True)
        while True:
            try:
                connected.append(silent.accept()[0])
            except BlockingIOError:
                break

        assert [Unavailable] * 50 == [type(one) for one in refused]
        assert len(connected) < 10

        for sock in connected:
            sock.close()
        await ledger.close()
