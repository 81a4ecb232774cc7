"""How a process leaves: at SIGTERM and SIGINT every request body under way goes on for a while, then yields.

An ASGI server does not say that it is leaving before it has waited for the running requests. The signals say so, and
they reach the application on every server, mounted or not.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

from .ports import Body

SIGNALS = (signal.SIGTERM, signal.SIGINT)

T = TypeVar("T")


class Leaving:
    """The request bodies under way in this process, and when they yield. For one event loop at a time."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._bodies: set[Body] = set()
        self._is_leaving = False
        self._idle = asyncio.Event()  # set when the last body has ended

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the signals for the length of the block."""
        self._is_leaving = False
        self._idle = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hear() -> None:
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(self._begin)

        forget = on_exit_signal(hear)
        try:
            yield
        finally:
            forget()

    async def carry(self, body: Body, work: Coroutine[Any, Any, T]) -> T:
        """Return what work returns; it uses the body. When this is cancelled the body yields, and work ends in order.

        uvicorn cancels what still runs after its time-out, hypercorn too. A second cancellation is not waited out.
        """
        task = asyncio.create_task(self._under_way(body, work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            body.stop()
            return await asyncio.shield(task)

    async def finish(self, timeout_s: float) -> None:
        """Make every body yield now, and return when all have ended, or after timeout_s."""
        for body in self._bodies:
            body.stop()
        if self._bodies:
            self._idle.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()

    async def _under_way(self, body: Body, work: Coroutine[Any, Any, T]) -> T:
        self._bodies.add(body)
        if self._is_leaving:  # on a connection that was open already
            asyncio.get_running_loop().call_later(self._grace_s, body.stop)
        try:
            return await work
        finally:
            self._bodies.discard(body)
            if not self._bodies:
                self._idle.set()

    def _begin(self) -> None:
        if not self._is_leaving:
            self._is_leaving = True
            for body in self._bodies:
                asyncio.get_running_loop().call_later(self._grace_s, body.stop)


def on_exit_signal(call: Callable[[], object]) -> Callable[[], None]:
    """Call this at SIGTERM and SIGINT, before the handler that is there, until the returned function is called.

    asyncio's add_signal_handler works beside it: its event loop hears of signals through a descriptor. A signal that
    nobody handles is left alone: it ends the process at once, or is ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None  # only the main thread may set handlers
    former = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        call()
        before = former[signal.Signals(number)]
        if callable(before):
            before(number, frame)

    for number, before in former.items():
        if callable(before):
            signal.signal(number, handle)

    def forget() -> None:
        for number, before in former.items():
            if signal.getsignal(number) is handle:  # otherwise the server has put its own back already
                signal.signal(number, before)

    return forget
