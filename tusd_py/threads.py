"""Calls that block, each in one of a few threads: a disk may take seconds, and nobody else shall wait for it.

concurrent.futures does the same at twice the price: it has locks for what an event loop does not need, and a small
upload is hardly more than its hops.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

CLOSE_S = 2.0  # a disk that takes longer hangs, and keeps nobody from ending

T = TypeVar("T")


class Threads:
    """So many threads, until close()."""

    def __init__(self, count: int, name: str) -> None:
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._running: dict[int, asyncio.Future[Any]] = {}  # what each thread is at
        self._is_closed = False
        # Daemons: a call that hangs in a disk does not keep the process from ending.
        self._threads = [Thread(target=self._work, args=(n,), name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Return what call returns or raises. It runs to its end even if nobody waits for it any more.

        Cancelled after close(), and by it when the call hangs.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._is_closed:
            answer.cancel()
        else:
            self._calls.put((answer, call))
        return answer

    def close(self) -> None:
        """Wait for the calls that were begun, for CLOSE_S at most, and end the threads.

        Whoever waits for a call that hangs is cancelled: nothing that awaits it keeps an event loop from ending.
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
        for _ in self._threads:  # those that hang end when the disk goes on
            self._calls.put(None)

    def _waiting(self) -> Iterator["asyncio.Future[Any]"]:
        """Take the calls that no thread has begun, and give what would have been their answers."""
        with suppress(Empty):
            while True:
                if task := self._calls.get_nowait():
                    yield task[0]

    def _work(self, n: int) -> None:
        while task := self._calls.get():
            self._running[n] = task[0]
            answer_one(*task)
            del self._running[n], task  # and with it a megabyte of somebody's body


def answer_one(answer: "asyncio.Future[T]", call: Callable[[], T]) -> None:
    """Run the call and let the answer's event loop know."""
    failure: BaseException | None = None
    result: T | None = None
    try:
        result = call()
    except BaseException as exc:
        failure = exc

    def tell() -> None:
        if answer.done():  # cancelled
            return
        if failure:
            answer.set_exception(failure)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # T, where there is no failure

    with suppress(RuntimeError):  # the event loop is closed
        answer.get_loop().call_soon_threadsafe(tell)
