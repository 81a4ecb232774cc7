"""Ledgers of version 1 are opened and go on; on Redis also while a server of version 1 still runs beside.

tests/ledgers holds what the code of version 1 wrote: uploads without a byte, running, finished with its event owed,
finished with its event buried, terminated, expired, of unknown length, a finished part, and one of no bytes.
"""

import dataclasses
import json
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import redis

from tests.support import tus
from tests.support.folder import NewFolder
from tests.support.processes import running_server
from tusd_py.ledger.redis import RedisLedger
from tusd_py.ledger.redis.servers import connect
from tusd_py.ledger.sqlite import SqliteLedger
from tusd_py.ports import Due, WrongLedger
from tusd_py.protocol.refusals import UploadGone, UploadNotFound
from tusd_py.protocol.upload import ACCEPTED, Upload

pytestmark = pytest.mark.anyio

LEDGERS = Path(__file__).parent / "ledgers"
VERSION_1 = "b127b63"  # the last commit whose ledgers had no version of their records
UPLOAD = Upload(id="a" * 32, length=10, offset=0, metadata="filename YS5tcDQ=", created_at=1000.5, expires_at=5000.25)
TTL_S = 30.0

AnyLedger = SqliteLedger | RedisLedger


def sqlite_of_version_1(path: Path) -> Path:
    with sqlite3.connect(path) as db:
        db.executescript((LEDGERS / "version-1.sql").read_text())
    db.close()
    return path


@pytest.fixture(params=["sqlite", "redis"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> AsyncIterator[AnyLedger]:
    """A ledger that a server of version 1 left, opened by this one in a folder with uploads."""
    opened: AnyLedger
    if request.param == "sqlite":
        opened = SqliteLedger(sqlite_of_version_1(tmp_path / "ledger.sqlite3"))
    else:
        with redis.Redis.from_url(redis_url) as client:
            for command in json.loads((LEDGERS / "version-1.redis.json").read_text()):
                client.execute_command(*command)
        opened = RedisLedger(connect(redis_url))
    await opened.open(NewFolder(has_them=True))
    await opened.bind()
    yield opened
    await opened.close()


async def test_uploads_are_what_they_were(ledger: AnyLedger) -> None:
    """What had all its bytes was finished then; nothing is asked or sent anew for it."""
    finished = dataclasses.replace(UPLOAD, offset=10, outcome=ACCEPTED, expires_at=None)
    for expected in (
        UPLOAD,
        dataclasses.replace(UPLOAD, id="b" * 32, offset=4, expires_at=6000.0),
        dataclasses.replace(finished, id="c" * 32),
        dataclasses.replace(finished, id="d" * 32),
        dataclasses.replace(UPLOAD, id="1" * 32, length=None, expires_at=None),
        dataclasses.replace(finished, id="2" * 32, concat="partial", expires_at=6000.0),
        dataclasses.replace(finished, id="3" * 32, length=0, offset=0),
    ):
        assert expected == (await ledger.inspect(expected.id, ask=False)).upload

    for gone, reason in (("e", "terminated"), ("f", "expired")):
        with pytest.raises(UploadGone, match=reason):
            await ledger.inspect(gone * 32, ask=False)


async def test_records_are_not_taken_for_lost(ledger: AnyLedger) -> None:
    """The ledger had no identity, but it had records: what it does not know does not exist."""
    with pytest.raises(UploadNotFound):
        await ledger.inspect("0" * 32, ask=False)


async def test_an_upload_that_was_running_goes_on(ledger: AnyLedger) -> None:
    upload = await ledger.acquire("a" * 32, "t2", TTL_S)

    assert isinstance(upload, Upload)

    done = upload.at(10, expires_at=None).finished(1700.25)
    await ledger.commit(done, "t2", TTL_S, release=True)

    assert done == (await ledger.inspect(upload.id, ask=False)).upload


async def test_events_that_were_owed_are_delivered(ledger: AnyLedger) -> None:
    """One receiver had confirmed it; what is buried stays buried."""
    [delivery] = await ledger.claim(99999.0, 60.0, 10)

    assert ("post-finish-" + "c" * 32, 2, frozenset({"http://a/"})) == (
        delivery.event.id,
        delivery.attempt,
        delivery.confirmed_by,
    )


async def test_what_is_due_stays_due(ledger: AnyLedger) -> None:
    due = await ledger.due(99999.0, 100)

    assert {"a" * 32, "b" * 32, "2" * 32} == set(due.expired)
    assert {"e" * 32, "f" * 32} == set(due.forgettable)

    for upload_id in due.forgettable:
        await ledger.forget(upload_id)

    assert Due(expired=due.expired) == await ledger.due(99999.0, 100)


async def test_a_second_server_finds_it_migrated(ledger: AnyLedger, tmp_path: Path, redis_url: str) -> None:
    other: AnyLedger
    if isinstance(ledger, SqliteLedger):
        other = SqliteLedger(tmp_path / "ledger.sqlite3")
    else:
        other = RedisLedger(connect(redis_url))
    await other.open(ledger._folder or NewFolder())
    await other.bind()

    assert UPLOAD == (await other.inspect(UPLOAD.id, ask=False)).upload

    await other.close()


async def test_a_sqlite_ledger_from_the_future_is_refused(tmp_path: Path) -> None:
    path = sqlite_of_version_1(tmp_path / "ledger.sqlite3")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    ledger = SqliteLedger(path)

    with pytest.raises(WrongLedger, match="version 99"):
        await ledger.open(NewFolder())

    await ledger.close()


async def test_a_redis_ledger_from_the_future_is_refused(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset("tusd:{0}:identity", mapping={"folder": "f" * 32, "shards": 1, "schema": 99})
    ledger = RedisLedger(connect(redis_url))
    await ledger.open(NewFolder("f" * 32))

    with pytest.raises(WrongLedger, match="version 99"):
        await ledger.bind()

    await ledger.close()


@pytest.fixture(scope="module")
def old_program(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """How to run the server of version 1: its code from the history, with the libraries of today."""
    folder = tmp_path_factory.mktemp("version-1")
    code = subprocess.run(
        ["git", "archive", VERSION_1, "tusd_py"], cwd=LEDGERS.parent.parent, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "x", "-C", str(folder)], input=code, check=True)
    return "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); from tusd_py.cli import main; main()"


def test_a_rolling_upgrade(tmp_path: Path, redis_url: str, old_program: tuple[str, str]) -> None:
    """Each replica goes on with what the other began, finishes it, removes it, and misreads nothing."""
    flags = ("--redis-url", redis_url)
    with (
        running_server(tmp_path, *flags, program=old_program) as old,
        running_server(tmp_path, *flags) as new,
    ):
        for first, second in ((old, new), (new, old)):
            url = tus.create(first.url, 10)
            tus.patch(url, 0, b"0123")

            assert 4 == tus.offset_of(tus.on(url, second.url))

            tus.patch(tus.on(url, second.url), 4, b"456789")

            for server in (first, second):
                assert 10 == tus.offset_of(tus.on(url, server.url))
                assert b"0123456789" == httpx.get(tus.on(url, server.url)).content

            assert 204 == httpx.delete(tus.on(url, first.url), headers=tus.TUS).status_code
            for server in (first, second):
                assert tus.head(tus.on(url, server.url)).status_code in (404, 410)
