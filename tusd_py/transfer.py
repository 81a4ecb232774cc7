"""One body on its way into one upload: checkpoints on the way, yielding when asked, one commit at the end."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .lease import Lease
from .ports import Body, BodyCutShort, Event, Signal, Writer
from .protocol.refusals import Refusal, StorageFull
from .protocol.upload import Upload, too_long

SILENT_S = 1.0  # a connection without a byte for this long may be half-open: whoever asks gets the upload


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the offset is committed while a body comes in: whichever is reached first."""

    checkpoint_bytes: int
    checkpoint_s: float


class Transfer:
    """Receives one body under a lease. The caller opens the writer and closes it whatever happens."""

    def __init__(
        self, lease: Lease, upload: Upload, writer: Writer, body: Body, pace: Pace, wake: asyncio.Event
    ) -> None:
        self._lease = lease
        self._upload = upload
        self._writer = writer
        self._body = body
        self._pace = pace
        self._wake = wake  # set after every write, at every wish, and at the end
        self._done = False
        lease.when_wanted(wake.set)

    async def run(self, room: int | None, finished: Callable[[Upload], Event], expires_at: float | None) -> Upload:
        """Receive at most room bytes (None: no limit), record them, let the upload go and return it as it is now.

        finished builds the event that is recorded with the last byte. A client that goes away keeps every byte that
        arrived. Raises TooLarge when the body goes on behind room: its last bytes are not recorded then, for the
        client has another file in hand. Raises StorageFull, with what found room recorded; LeaseLost; Unavailable.
        """
        failure: Refusal | None = None
        checkpoints = asyncio.create_task(self._checkpoints())
        try:
            moved = await self._body.move(self._writer, room)
            if moved == room and await self._body.has_more():
                failure = too_long(self._upload, room, None)
        except BodyCutShort:
            pass
        except StorageFull as exc:
            failure = exc
        finally:
            self._done = True
            self._wake.set()
            await checkpoints
        if isinstance(failure, StorageFull) or failure is None:
            await self._record(finished, expires_at)
        if failure:
            raise failure
        return self._upload

    async def _record(self, finished: Callable[[Upload], Event], expires_at: float | None) -> None:
        self._upload = self._upload.at(await self._writer.flush(), expires_at=expires_at)
        if self._upload.is_complete:
            await self._writer.finish(self._upload)
        # The file is let go before the lease: whoever gets the lease must find the file free.
        await self._writer.close()
        event = finished(self._upload) if self._upload.is_complete else None
        await self._lease.commit(self._upload, event=event, release=True)

    async def _checkpoints(self) -> None:
        """Commit the offset by bytes, by seconds and on request, until the body has ended or has to."""
        try:
            committed_at = time.monotonic()
            while not self._done:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._pace.checkpoint_s)
                self._wake.clear()
                if self._must_yield():
                    self._body.stop()
                    return
                now = time.monotonic()
                grown = self._writer.offset - self._lease.upload.offset
                due = grown >= self._pace.checkpoint_bytes or (grown and now - committed_at >= self._pace.checkpoint_s)
                if (due or self._lease.wanted) and not self._done:
                    await self._checkpoint()
                    committed_at = now
        except BaseException:
            self._body.stop()  # what would come now could not be recorded
            raise

    async def _checkpoint(self) -> None:
        offset = await self._writer.flush()
        # The last byte is recorded by the last commit alone: the event is born with it.
        if offset != self._upload.length:
            await self._lease.commit(self._upload.at(offset, expires_at=self._upload.expires_at))

    def _must_yield(self) -> bool:
        """Whether somebody wants to change the upload, or asks for its offset while the client is silent."""
        silent = time.monotonic() - self._body.received_at >= SILENT_S
        return self._lease.wanted is Signal.YIELD or (self._lease.wanted is Signal.CHECKPOINT and silent)
