"""Calls in threads: what they return and raise, who waits for whom, and what becomes of those nobody waits for."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tusd_py.threads import Threads

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(4, "test")
    yield threads
    threads.close()


async def test_what_a_call_returns_or_raises_is_told(threads: Threads) -> None:
    def fail() -> None:
        raise OSError("no such disk")

    assert 4 == await threads.run(lambda: 2 + 2)
    with pytest.raises(OSError, match="no such disk"):
        await threads.run(fail)


async def test_calls_that_hang_leave_room_for_others(threads: Threads) -> None:
    disk = threading.Event()
    hanging = [threads.run(lambda: disk.wait(10)) for _ in range(3)]
    others = [await asyncio.wait_for(threads.run(lambda n=n: n), 1) for n in range(100)]  # type: ignore[misc]

    assert list(range(100)) == others
    assert not any(one.done() for one in hanging)

    disk.set()

    assert [True, True, True] == await asyncio.gather(*hanging)


async def test_a_call_that_nobody_waits_for_runs_to_its_end(threads: Threads) -> None:
    disk, done = threading.Event(), threading.Event()

    def hang() -> None:
        disk.wait(10)
        done.set()

    running = threads.run(hang)
    running.cancel()
    disk.set()

    assert await threads.run(lambda: done.wait(10))
    assert running.cancelled()


async def test_close_gives_up_a_disk_that_hangs_and_cancels_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that hang, those that no thread has begun, and those that come later."""
    monkeypatch.setattr("tusd_py.threads.CLOSE_S", 0.1)
    threads, disk, done = Threads(1, "test"), threading.Event(), threading.Event()

    def hang() -> None:
        disk.wait(20)
        done.set()

    hanging = [threads.run(hang), threads.run(hang)]
    threads.close()

    assert not done.is_set()
    for one in [*hanging, threads.run(hang)]:
        with pytest.raises(asyncio.CancelledError):
            await one

    disk.set()


def test_close_waits_for_what_was_begun_even_if_its_event_loop_has_ended() -> None:
    threads, disk, done = Threads(1, "test"), threading.Event(), threading.Event()

    def hang() -> None:
        disk.wait(10)
        done.set()

    async def begin() -> None:
        threads.run(hang)

    asyncio.run(begin())
    threading.Timer(0.1, disk.set).start()
    threads.close()

    assert done.is_set()
