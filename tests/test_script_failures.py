"""Every command of every script fails once: what was acknowledged has its event and its expiry all the same.

Redis does not undo what a script wrote before one of its commands failed (no memory, a missing right, a key of another
type). The server repeats the script, or the client repeats its request, and all must be there in the end.
"""

import dataclasses
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis.asyncio

from tests.support import tus
from tests.support.folder import NewFolder
from tests.support.processes import Redis, running_server
from tusd_py.ledger.redis import RedisLedger
from tusd_py.ledger.redis.servers import connect
from tusd_py.ports import Due, Event, Held, LeaseLost, Tombstone
from tusd_py.protocol.refusals import Unavailable, UploadGone, UploadNotFound
from tusd_py.protocol.upload import State, Upload

pytestmark = pytest.mark.anyio

TTL_S = 30.0
MOST = 25  # commands of the longest script and its prelude, and some
UPLOAD = Upload(id="a" * 32, length=10, offset=0, metadata="", created_at=1000.5, expires_at=5000.25)
DONE = UPLOAD.at(10, expires_at=None).finished(1300.5)
EVENT = Event(id="post-finish-a", kind="post-finish", upload_id=UPLOAD.id, body="{}", created_at=1234.5)
TERMINATED = Tombstone(state=State.CANCELLED, reason="terminated", removed_at=1400.5, forget_at=9000.0)

# Stands for redis.call in a script: command number `failing` gets an error instead of being run.
CALL = """
local calls = 0
local function call(...)
  calls = calls + 1
  if calls == {failing} then
    error('OOM command not allowed, for a test')
  end
  return redis.call(...)
end
"""


class FailingOnce(RedisLedger):
    """A ledger one of whose scripts fails at one of its commands, the next time that it is run."""

    def fail(self, name: str, command: int) -> None:
        self._whole = self._calls.scripts[name]
        text = CALL.format(failing=command) + self._whole[0].replace("redis.call(", "call(")
        self._calls.scripts[name] = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._name = name

    def mend(self) -> None:
        self._calls.scripts[self._name] = self._whole


@pytest.fixture
async def ledger(redis_server: Redis) -> AsyncIterator[FailingOnce]:
    client = redis.asyncio.Redis.from_url(redis_server.url)
    await client.flushall()
    await client.aclose()
    ledger = FailingOnce(connect(redis_server.url))
    await ledger.open(NewFolder())
    await ledger.bind()
    yield ledger
    await ledger.close()


async def events(ledger: RedisLedger) -> list[str]:
    return [delivery.event.id for delivery in await ledger.claim(2000.0, 60.0, 10)]


@pytest.mark.parametrize("command", range(1, MOST))
async def test_a_completing_commit_that_failed_half_way(ledger: FailingOnce, command: int) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    ledger.fail("commit", command)
    with suppress(Unavailable):
        await ledger.commit(DONE, "t1", TTL_S, event=EVENT, release=True)
    recorded = (await ledger.inspect(UPLOAD.id, ask=False)).upload
    if recorded.is_finished:  # as HEAD would report it, whatever comes after
        assert [EVENT.id] == await events(ledger)
    ledger.mend()
    with suppress(LeaseLost):  # all of it was written, and only the answer says that it was not
        await ledger.commit(DONE, "t1", TTL_S, event=EVENT, release=True)

    assert DONE == (await ledger.inspect(UPLOAD.id, ask=False)).upload
    assert [EVENT.id] == await events(ledger) or recorded.is_finished
    assert Due() == await ledger.due(9999.0, 10)
    await ledger.acquire(UPLOAD.id, "t2", TTL_S)


@pytest.mark.parametrize("command", range(1, MOST))
async def test_a_checkpoint_that_failed_half_way(ledger: FailingOnce, command: int) -> None:
    await ledger.create(dataclasses.replace(UPLOAD, expires_at=None), token="t1", ttl_s=TTL_S)
    ledger.fail("commit", command)
    with suppress(Unavailable):
        await ledger.commit(UPLOAD.at(5, expires_at=7000.0), "t1", TTL_S)
    if 5 == (await ledger.inspect(UPLOAD.id, ask=False)).upload.offset:
        assert Due(expired=(UPLOAD.id,)) == await ledger.due(9999.0, 10)
    ledger.mend()
    await ledger.commit(UPLOAD.at(5, expires_at=7000.0), "t1", TTL_S)

    assert UPLOAD.at(5, expires_at=7000.0) == (await ledger.inspect(UPLOAD.id, ask=False)).upload
    assert Due(expired=(UPLOAD.id,)) == await ledger.due(9999.0, 10)


@pytest.mark.parametrize("command", range(1, MOST))
@pytest.mark.parametrize("upload", [UPLOAD, dataclasses.replace(UPLOAD, length=0).finished(1.5)])
async def test_a_creation_that_failed_half_way(ledger: FailingOnce, upload: Upload, command: int) -> None:
    event = EVENT if upload.is_finished else None
    ledger.fail("create", command)
    with suppress(Unavailable):
        await ledger.create(upload, event=event)
    try:
        await ledger.inspect(UPLOAD.id, ask=False)
        half = True
    except UploadNotFound:
        half = False
    if half:
        assert [EVENT.id for _ in range(upload.is_finished)] == await events(ledger)
    ledger.mend()
    await ledger.create(upload, event=event)
    expected = upload if event is None else dataclasses.replace(upload, expires_at=None)

    assert expected == (await ledger.inspect(UPLOAD.id, ask=False)).upload
    assert half or [EVENT.id for _ in range(upload.is_finished)] == await events(ledger)
    assert Due(expired=() if upload.is_finished else (UPLOAD.id,)) == await ledger.due(9999.0, 10)


@pytest.mark.parametrize("command", range(1, MOST))
async def test_a_removal_that_failed_half_way(ledger: FailingOnce, command: int) -> None:
    """A tombstone that nothing would ever show again, or a record that vanished without one, must not be left."""
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    ledger.fail("remove", command)
    with suppress(Unavailable):
        await ledger.remove(UPLOAD.id, "t1", TERMINATED)
    try:
        await ledger.inspect(UPLOAD.id, ask=False)
    except UploadGone:
        assert Due(forgettable=(UPLOAD.id,)) == await ledger.due(9999.0, 10)
    ledger.mend()
    with suppress(LeaseLost):
        await ledger.remove(UPLOAD.id, "t1", TERMINATED)

    with pytest.raises(UploadGone):
        await ledger.acquire(UPLOAD.id, "t2", TTL_S)

    assert Due(forgettable=(UPLOAD.id,)) == await ledger.due(9999.0, 10)


@pytest.mark.parametrize("command", range(1, MOST))
@pytest.mark.parametrize("how", ["confirm", "bury", "postpone", "claim"])
async def test_an_event_survives_a_step_that_failed_half_way(ledger: FailingOnce, how: str, command: int) -> None:
    """It is confirmed, buried or tried again; never half of each."""
    await ledger.create(dataclasses.replace(UPLOAD, length=0).finished(1.5), event=EVENT)
    if how == "claim":
        ledger.fail("claim", command)
        with suppress(Unavailable):
            await ledger.claim(2000.0, 60.0, 10)
        ledger.mend()

        assert [EVENT.id] == [delivery.event.id for delivery in await ledger.claim(9000.0, 60.0, 10)]
        return
    [delivery] = await ledger.claim(2000.0, 60.0, 10)
    ledger.fail("confirm" if how == "confirm" else "postpone", command)
    steps = {
        "confirm": lambda: ledger.confirm(EVENT),
        "bury": lambda: ledger.bury(delivery, "gone"),
        "postpone": lambda: ledger.postpone(delivery, 3000.0, "later"),
    }
    with suppress(Unavailable):
        await steps[how]()
    ledger.mend()
    await steps[how]()

    assert (1 if how == "postpone" else 0) == len(await ledger.claim(99999.0, 60.0, 10))


@pytest.mark.parametrize("key", ["events", "due", "deliveries"])
def test_a_redis_that_takes_no_event_takes_no_completion(tmp_path: Path, redis_url: str, key: str) -> None:
    """The client is refused in bounded time though the lease can be renewed; what it sent counts when all is well."""
    with (
        redis.Redis.from_url(redis_url) as client,
        running_server(tmp_path, "--redis-url", redis_url, "--lease-ttl", "1") as server,
    ):
        url = tus.create(server.url, 3)
        client.set(f"tusd:{{0}}:{key}", "of another type")

        assert 503 == tus.patch(url, 0, b"abc").status_code
        assert 0 == tus.offset_of(url)

        client.delete(f"tusd:{{0}}:{key}")

        assert 204 == tus.patch(url, 0, b"abc").status_code
        assert 3 == tus.offset_of(url)
        assert client.hexists("tusd:{0}:deliveries", f"post-finish-{tus.upload_id(url)}:entry")
        assert 0 == client.zscore("tusd:{0}:due", f"post-finish-{tus.upload_id(url)}")


@pytest.mark.parametrize("command", range(1, MOST))
async def test_a_lease_that_was_half_taken_can_be_taken(ledger: FailingOnce, command: int) -> None:
    await ledger.create(UPLOAD)
    ledger.fail("acquire", command)
    with suppress(Unavailable):
        await ledger.acquire(UPLOAD.id, "t1", TTL_S)
    ledger.mend()

    assert not isinstance(await ledger.acquire(UPLOAD.id, "t1", TTL_S), Held)
    await ledger.commit(UPLOAD.at(5, expires_at=6000.0), "t1", TTL_S, release=True)
