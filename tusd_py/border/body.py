"""The body of a request, from the ASGI stream: 1 MiB batches, the next one read while the last one is written."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

from ..ports import BodyCutShort, Sink

EXTENSION = "tusd_py"  # the key in scope["extensions"]
BATCH = 1024 * 1024  # bytes; two of them are the memory that an upload needs
LINGER_S = 1.0  # how long a batch waits to be filled, unless somebody asks how far the upload is

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


@runtime_checkable
class Carrier(Protocol):
    """The connection of a request, where the HTTP protocol of the server can carry the body itself."""

    def body(self, receive: Receive, length: int | None, read_timeout_s: float) -> "AsgiBody":
        """Return the body of the request; the arguments are those of AsgiBody."""


def offer(extensions: dict[str, dict[object, object]], carrier: Carrier) -> None:
    """Put the carrier of a request where carrier_of() finds it; extensions is that of the request's scope."""
    extensions[EXTENSION] = {"carrier": carrier}


def carrier_of(scope: Mapping[str, Any]) -> Carrier | None:
    """Return the carrier that the server offers for the request with this ASGI scope; None if it offers none."""
    carrier = scope.get("extensions", {}).get(EXTENSION, {}).get("carrier")
    return carrier if isinstance(carrier, Carrier) else None


class AsgiBody:
    """ports.Body over an ASGI receive callable. A task of its own reads ahead, as far as one batch."""

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
        self._reading: asyncio.Task[None] | None = None
        self._pieces: list[bytes] = []  # read and not moved
        self._size = 0  # of the pieces, in bytes
        self._wanted = 0  # bytes; there is news when so many are there
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._cut = False  # the client went away
        self._stopped = False
        self._moving = False
        self._hurried = False
        self._caught_up = asyncio.Event()

    async def move(self, sink: Sink, at_most: int | None) -> int:
        self._moving = True
        moved = 0
        writing: asyncio.Future[None] | None = None
        try:
            while at_most is None or moved < at_most:
                room = None if at_most is None else at_most - moved
                await self._gather(BATCH if room is None else min(BATCH, room))
                if writing:
                    await writing
                    writing = None
                batch = self._taken(room)
                if batch:
                    size = sum(map(len, batch))
                    moved += size
                    self.moved += size
                    writing = asyncio.ensure_future(sink.write(batch, last=self.ended and not self._size))
                if self._hurried:
                    if writing:
                        await writing
                        writing = None
                    self._hurried = False
                    self._caught_up.set()
                elif not batch or self._stopped:  # what had arrived by then is in
                    break
        finally:
            try:
                if writing:
                    await writing
            finally:  # whoever waits must hear of the end of a body whose write failed, too
                self._moving = self._hurried = False
                self._caught_up.set()
        if self._cut:
            raise BodyCutShort
        return moved

    def begin(self) -> None:
        """Read ahead from now on: a server may drop what it has read and not delivered when the client leaves."""
        if not self._over:
            self._begin_to_read()

    async def has_more(self) -> bool:
        await self._until(1, self._read_timeout_s)
        return self._size > 0

    def stop(self) -> None:
        self._stopped = True
        self._news.set()

    async def hurry(self) -> None:
        if self._moving and not self._over:
            self._hurried = True
            self._caught_up.clear()
            self._news.set()
            await self._caught_up.wait()

    async def discard(self, at_most: int, timeout_s: float) -> bool:
        """Read the rest and drop it, up to at_most bytes and timeout_s; return whether that was all of it."""
        self._stopped, dropped = False, 0
        give_up_at = time.monotonic() + timeout_s
        while not self._over and dropped <= at_most and time.monotonic() < give_up_at:
            await self._until(BATCH, give_up_at - time.monotonic())
            dropped += sum(map(len, self._taken(None)))
        self.close()
        return self.ended

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._reading:
            self._reading.cancel()

    @property
    def _over(self) -> bool:
        """Whether nothing more comes."""
        return self.ended or self._cut or self._stopped

    async def _gather(self, at_most: int) -> None:
        """Wait for the next bytes and linger for more, up to that many; there are none at the end."""
        await self._until(1, self._read_timeout_s)
        if not self._size and not self._over and not self._hurried:
            self._cut = True
        await self._until(at_most, LINGER_S)

    async def _until(self, size: int, timeout_s: float) -> None:
        """Wait until so many bytes are there, the body is over, somebody is in a hurry, or the time is."""
        if self._size >= size or self._over or self._hurried:
            return
        self._begin_to_read()
        self._wanted = size
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    def _begin_to_read(self) -> None:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while not self.ended and not self._cut:
            if self._size >= BATCH:
                self._room.clear()
                await self._room.wait()
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._cut = True
            elif piece := message.get("body", b""):
                self._pieces.append(piece)
                self._size += len(piece)
                self.received_at = time.monotonic()
            self.ended = not self._cut and not message.get("more_body", False)
            if self._size >= self._wanted or self._over:
                self._news.set()

    def _taken(self, at_most: int | None) -> list[bytes]:
        """Return what was read, at most that many bytes, and make room for more."""
        taken, self._pieces = self._pieces, []
        over = 0 if at_most is None else max(0, self._size - at_most)
        if over:
            data = b"".join(taken)
            taken, self._pieces = [data[:-over]] if over < len(data) else [], [data[-over:]]
        self._size = over
        self._room.set()
        return taken
