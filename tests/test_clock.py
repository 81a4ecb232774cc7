"""Clocks that are wrong: of a replica, of Redis, of the machine. Nobody's upload may go for it."""

import base64
import time
from pathlib import Path

import pytest
import redis

from tests.support import tus
from tests.support.folder import NewFolder
from tests.support.processes import eventually, running_server
from tests.support.receiver import receiving
from tusd_py.ledger.clock import Clock
from tusd_py.ledger.redis import RedisLedger
from tusd_py.ledger.redis.servers import connect
from tusd_py.ledger.sqlite import SqliteLedger
from tusd_py.ports import Held
from tusd_py.protocol.refusals import Unavailable
from tusd_py.protocol.upload import Upload

pytestmark = pytest.mark.anyio

DAYS_S = 24 * 3600.0
SECRET = ("--webhook-secret", "whsec_" + base64.b64encode(b"t" * 32).decode())
UPLOAD = Upload(id="a" * 32, length=10, offset=0, metadata="", created_at=1000.5)


class Elapsed:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.s = 500.0

    def __call__(self) -> float:
        return self.s


def test_there_is_no_time_before_the_first_answer() -> None:
    """This machine's own may be days off, and things are removed for their age."""
    with pytest.raises(Unavailable):
        Clock().now()


def test_time_goes_on_between_the_answers() -> None:
    elapsed = Elapsed()
    clock = Clock(elapsed)
    clock.set(1000.0)
    elapsed.s += 2.5

    assert 1002.5 == clock.now()


@pytest.mark.parametrize("step_s", [-3599.0, -1.0, 1.0, 3599.0])
def test_a_correction_is_followed(step_s: float) -> None:
    elapsed = Elapsed()
    clock = Clock(elapsed)
    clock.set(10_000.0)
    clock.set(10_000.0 + step_s)

    assert (10_000.0 + step_s, True) == (clock.now(), clock.is_steady)


@pytest.mark.parametrize("step_s", [-8 * DAYS_S, -3601.0, 3601.0, 8 * DAYS_S])
def test_a_step_is_not_believed_until_it_is_taken_back(step_s: float, caplog: pytest.LogCaptureFixture) -> None:
    elapsed = Elapsed()
    clock = Clock(elapsed)
    clock.set(10_000_000.0)
    for _ in range(3):
        clock.set(10_000_000.0 + step_s)

    assert (10_000_000.0, False) == (clock.now(), clock.is_steady)
    assert 1 == len(caplog.records)

    elapsed.s += 60.0
    clock.set(10_000_060.0)

    assert (10_000_060.0, True) == (clock.now(), clock.is_steady)


async def test_a_replica_whose_clock_is_wrong_has_the_time_of_redis(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time()
    for wrong in (right - 8 * DAYS_S, right + 8 * DAYS_S):
        monkeypatch.setattr("time.time", lambda at=wrong: at)
        ledger = RedisLedger(connect(redis_url))
        await ledger.open(NewFolder("1" * 32))
        await ledger.bind()
        await ledger.create(UPLOAD)

        assert abs(ledger.now() - right) < 600
        assert ledger.is_steady

        await ledger.close()


@pytest.mark.parametrize("days", [-8, 8])
def test_a_server_whose_clock_is_wrong_serves_like_the_others(tmp_path: Path, redis_url: str, days: int) -> None:
    """It expires nobody's uploads, its own are not expired for the others, and it gives no event up at once."""
    code = f"import time; real = time.time; time.time = lambda: real() + {days * DAYS_S}; "
    wrong_program = ("-c", code + "from tusd_py.cli import main; main()")
    with receiving() as receiver:
        flags = ("--redis-url", redis_url, "--sweep-interval", "0.1", "--webhook-url", receiver.url, *SECRET)
        receiver.answers = [500]
        with (
            running_server(tmp_path, *flags) as right,
            running_server(tmp_path, *flags, program=wrong_program) as wrong,
        ):
            urls = [tus.create(server.url, 10) for server in (right, wrong)]
            for url in urls:
                assert 204 == tus.patch(tus.on(url, right.url), 0, b"01234").status_code
                assert 204 == tus.patch(tus.on(url, wrong.url), 5, b"567").status_code

            done = tus.create(wrong.url, 3)
            tus.patch(done, 0, b"abc")
            eventually(lambda: len(receiver.received) == 2)

            assert 1 == len(set(receiver.ids()))

            stamps = [int(headers["webhook-timestamp"]) for headers, _ in receiver.received]

            assert max(abs(stamp - time.time()) for stamp in stamps) < 600

            for url in urls:
                for server in (right, wrong):
                    assert 8 == tus.offset_of(tus.on(url, server.url))


async def test_a_machine_whose_clock_is_set_keeps_the_time_of_its_ledger(tmp_path: Path) -> None:
    right = time.time()
    wall = [right]
    ledger = SqliteLedger(tmp_path / "ledger.sqlite3", wall=lambda: wall[0])
    await ledger.open(NewFolder())

    assert ledger.is_steady

    for step_s in (-8 * DAYS_S, 8 * DAYS_S):
        wall[0] = right + step_s

        assert not ledger.is_steady
        assert abs(ledger.now() - right) < 600

    wall[0] = right

    assert ledger.is_steady

    await ledger.close()


async def test_no_lease_outlives_its_ttl_though_the_clock_of_redis_is_set_back(redis_url: str) -> None:
    """lease_until is of the time before; the holder is dead."""
    ledger = RedisLedger(connect(redis_url))
    await ledger.open(NewFolder())
    await ledger.bind()
    await ledger.create(UPLOAD, token="t1", ttl_s=30.0)

    assert isinstance(await ledger.acquire(UPLOAD.id, "t2", 30.0), Held)

    with redis.Redis.from_url(redis_url) as client:
        key = f"tusd:{{0}}:upload:{UPLOAD.id}"
        until = int(client.hget(key, "lease_until") or 0)
        client.hset(key, "lease_until", until + 3600 * 1000)

    assert not (await ledger.inspect(UPLOAD.id, ask=False)).is_held
    assert UPLOAD == await ledger.acquire(UPLOAD.id, "t2", 30.0)

    await ledger.close()
