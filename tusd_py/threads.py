"""Calls that block, each in one of a few threads: a disk may take seconds, and nobody else shall wait for it.

concurrent.futures does the same at twice the price: it has locks for what an event loop does not need, and a small
upload is hardly more than its hops.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """So many threads, until close()."""

    def __init__(self, count: int, name: str) -> None:
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        # Daemons: a call that hangs in a disk does not keep the process from ending.
        self._threads = [Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Return what call returns or raises. It runs to its end even if nobody waits for it any more."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put((answer, call))
        return answer

    def close(self) -> None:
        """Wait for the calls that were begun, and end the threads."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while task := self._calls.get():
            answer_one(*task)
            del task  # and with it a megabyte of somebody's body


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
