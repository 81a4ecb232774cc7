"""Calls that block, each in one of a few threads: a disk may take seconds, and the event loop must not wait for it.

concurrent.futures does the same at twice the cost: it has locks that an event loop does not need, and a small upload
spends most of its time in going to a thread and back.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

CLOSE_S = 2.0  # a disk that takes longer hangs; the process ends without it

T = TypeVar("T")


class Threads:
    """A fixed number of threads, until close()."""

    def __init__(self, count: int, name: str) -> None:
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._running: dict[int, asyncio.Future[Any]] = {}  # the call that each thread is in
        self._is_closed = False
        # Daemons: a call that hangs in a disk does not keep the process from ending.
        self._threads = [Thread(target=self._work, args=(n,), name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Return what call returns or raises. It runs to its end even when nothing waits for it any more.

        The answer is cancelled after close(), and by close() when the call hangs.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._is_closed:
            answer.cancel()
        else:
            self._calls.put((answer, call))
        return answer

    def close(self) -> None:
        """Wait for the calls that have begun, for CLOSE_S at most, and end the threads. Blocks.

        What waits for a call that hangs is cancelled, so that it does not keep an event loop from ending.
        """
        self._is_closed = True
        for _ in self._threads:
            self._calls.put(None)
        give_up_at = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        for answer in [*list(self._running.values()), *self._waiting()]:
            with suppress(RuntimeError):  # its event loop is closed
                answer.get_loop().call_soon_threadsafe(answer.cancel)
        for _ in self._threads:  # those that hang now end when the disk goes on
            self._calls.put(None)

    def _waiting(self) -> Iterator["asyncio.Future[Any]"]:
        """Take the calls that no thread has begun, and yield their answers."""
        with suppress(Empty):
            while True:
                if task := self._calls.get_nowait():
                    yield task[0]

    def _work(self, n: int) -> None:
        while task := self._calls.get():
            self._running[n] = task[0]
            answer_one(*task)
            del self._running[n], task  # and with it a megabyte of a body


def answer_one(answer: "asyncio.Future[T]", call: Callable[[], T]) -> None:
    """Run the call and hand its result to the answer's event loop."""
    failure: BaseException | None = None
    result: T | None = None
    try:
        result = call()
    except BaseException as exc:
        failure = exc

    def resolve() -> None:
        if answer.done():  # cancelled
            return
        if failure:
            answer.set_exception(failure)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # T, where there is no failure

    with suppress(RuntimeError):  # the event loop is closed
        answer.get_loop().call_soon_threadsafe(resolve)


async def settled(running: "asyncio.Future[Any]") -> None:
    """Return when running is done, however often this is cancelled meanwhile."""
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running])


async def completed(running: "asyncio.Future[T]") -> T:
    """Return what running returns or raises. A cancellation is raised only when running is done."""
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await settled(running)
        raise
