"""The body of a request, from the ASGI stream: 1 MiB batches, the next one read while the last one is written."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .ports import BodyCutShort, Sink

BATCH = 1024 * 1024  # bytes; two of them are the memory that an upload needs
LINGER_S = 0.05  # how long a batch waits to be filled; a slow client's bytes are on their way to disk after this

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class AsgiBody:
    """ports.Body over an ASGI receive callable."""

    carried_by = "python"

    def __init__(self, receive: Receive, length: int | None, read_timeout_s: float) -> None:
        """length is what the headers announce, in bytes; None when only the end will tell.

        A client that sends nothing for read_timeout_s is treated as one that went away. "A timeout SHOULD be handled by
        closing the underlying connection." (Core, PATCH): app.py does, as behind every body that was not read.
        """
        self.received_at = time.monotonic()
        self.ended = length == 0  # nothing of the body is left unread
        self.moved = 0  # bytes
        self._receive = receive
        self._read_timeout_s = read_timeout_s
        self._cut = False
        self._stopped = asyncio.Event()
        self._stopping: asyncio.Task[bool] | None = None
        self._coming: asyncio.Future[MutableMapping[str, Any]] | None = None
        self._rest = b""  # what came behind the room that was asked for

    async def move(self, sink: Sink, at_most: int | None) -> int:
        moved = 0
        writing: asyncio.Future[None] | None = None
        try:
            while at_most is None or moved < at_most:
                batch = await self._batch(BATCH if at_most is None else min(BATCH, at_most - moved))
                if writing:
                    await writing
                    writing = None
                if not batch:
                    break
                size = sum(map(len, batch))
                moved += size
                self.moved += size
                writing = asyncio.ensure_future(sink.write(batch, last=self.ended and not self._rest))
        finally:
            if writing:
                await writing
        if self._cut:
            raise BodyCutShort
        return moved

    async def has_more(self) -> bool:
        while not self._rest and await self._next(self._read_timeout_s):
            pass
        return bool(self._rest)

    def stop(self) -> None:
        self._stopped.set()

    async def hurry(self) -> None:
        """Nothing waits here for longer than LINGER_S."""

    async def discard(self, at_most: int, timeout_s: float) -> bool:
        """Read the rest and drop it, up to at_most bytes and timeout_s; return whether that was all of it."""
        self._rest, dropped = b"", 0
        give_up_at = time.monotonic() + timeout_s
        while not self.ended and not self._cut and dropped <= at_most:
            message = await self._message(give_up_at - time.monotonic())
            if message is None:
                break
            self._take(message)
            dropped += len(self._rest)
            self._rest = b""
        self.close()
        return self.ended

    def close(self) -> None:
        """Wait for nothing any more."""
        for waiting in (self._coming, self._stopping):
            if waiting:
                waiting.cancel()
        self._coming = self._stopping = None

    async def _batch(self, at_most: int) -> list[bytes]:
        """Return the next bytes, at most that many; none at the end. Waits for the first, lingers for the others."""
        batch: list[bytes] = []
        size = 0
        full_at = 0.0  # monotonic seconds
        while size < at_most:
            if not self._rest:
                timeout_s = full_at - time.monotonic() if batch else self._read_timeout_s
                if not await self._next(timeout_s, linger=bool(batch)):
                    break
            piece, self._rest = self._rest[: at_most - size], self._rest[at_most - size :]
            if piece:
                if not batch:
                    full_at = time.monotonic() + LINGER_S
                batch.append(piece)
                size += len(piece)
        return batch

    async def _next(self, timeout_s: float, *, linger: bool = False) -> bool:
        """Receive one more message into _rest; return False when there is none, or none in time."""
        if self.ended or self._cut or self._stopped.is_set():
            return False
        message = await self._message_or_stop(timeout_s)
        if message is None:
            self._cut = not linger and not self._stopped.is_set()
            return False
        self._take(message)
        return bool(self._rest) or not (self.ended or self._cut)

    def _take(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.disconnect":
            self._cut = True
            return
        self._rest = message.get("body", b"")
        self.ended = not message.get("more_body", False)
        if self._rest:
            self.received_at = time.monotonic()

    async def _message_or_stop(self, timeout_s: float) -> MutableMapping[str, Any] | None:
        """Return the next message; None when stop() is called or timeout_s is over. No message is ever lost by that."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stopped.wait())
        return await self._message(timeout_s, self._stopping)

    async def _message(
        self, timeout_s: float, stopping: "asyncio.Task[bool] | None" = None
    ) -> MutableMapping[str, Any] | None:
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._receive())
        waiting: set[asyncio.Future[Any]] = {self._coming} if stopping is None else {self._coming, stopping}
        await asyncio.wait(waiting, timeout=max(0.0, timeout_s), return_when=asyncio.FIRST_COMPLETED)
        if not self._coming.done():
            return None
        message, self._coming = self._coming.result(), None
        return message
