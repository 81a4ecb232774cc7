"""One body on its way into one upload: checkpoints on the way, yielding when asked, one commit at the end."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .digest import Digesting
from .lease import Lease
from .ports import Body, BodyCutShort, Event, Signal, Writer
from .protocol.messages import Checksum
from .protocol.refusals import ChecksumMismatch, StorageFull
from .protocol.upload import Upload, too_long

FIRST_PAUSE_S = 1.0  # between checkpoints by time; each is as much longer as the body has lasted, up to the setting
SILENT_S = 1.0  # a connection without a byte for this long may be half-open: whoever asks gets the upload


Finish = Callable[[Upload], tuple[Upload, Event | None]]  # the upload as it is recorded at the end, and its event


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the offset is committed while a body comes in: whichever is reached first."""

    checkpoint_bytes: int
    checkpoint_s: float


class Transfer:
    """Receives one body under a lease. The caller opens the writer and closes it whatever happens."""

    def __init__(
        self,
        lease: Lease,
        upload: Upload,
        writer: Writer,
        body: Body,
        checksum: Checksum | None,
        pace: Pace,
        expires_at: Callable[[], float | None],
    ) -> None:
        self._lease = lease
        self._upload = upload
        self._writer = writer
        self._body = body
        self._checksum = checksum
        self._pace = pace
        self._expires_at = expires_at  # of an upload that has just received bytes, in Unix seconds
        self._began_at = time.monotonic()
        self._wake = asyncio.Event()  # set after every write, at every wish, and at the end
        self._done = False
        self._checkpointing: asyncio.Task[None] | None = None  # most bodies are small and over before they need it
        writer.when_grown(self._look)
        lease.when_wanted(self._look)

    async def run(self, room: int | None, finish: Finish) -> Upload:
        """Receive at most room bytes (None: no limit), record them, let the upload go and return it as it is now.

        "The Server SHOULD always attempt to store as much of the received data as possible." (Core, PATCH)
        finish marks an upload that has its last byte, and makes the event that is recorded with it. A client that goes
        away keeps every byte that arrived, unless it sent a checksum: then the whole body counts or nothing of it.
        Raises TooLarge when the body goes on behind room: its last bytes are not recorded then, for the client has
        another file in hand. Raises ChecksumMismatch; StorageFull, with what found room recorded; LeaseLost;
        Unavailable.
        """
        full: StorageFull | None = None
        sink = Digesting(self._writer, self._checksum.algorithm) if self._checksum else self._writer
        try:
            try:
                moved = await self._body.move(sink, room)
                if moved == room and await self._body.has_more():
                    raise too_long(self._upload, room, None)
            finally:
                self._done = True
                if self._checkpointing:
                    self._wake.set()
                    await self._checkpointing
        except BodyCutShort:
            pass
        except StorageFull as exc:
            full = exc
        if not isinstance(sink, Digesting) or (self._body.ended and not full and self._matches(sink)):
            await self._record(finish)
        if full:
            raise full
        return self._lease.upload

    def _matches(self, digesting: Digesting) -> bool:
        """Return True. Raises ChecksumMismatch.

        "Once the entire request has been received, the Server MUST verify the uploaded chunk against the provided
        checksum using the specified algorithm." (Checksum)
        "In the first two cases the uploaded chunk MUST be discarded, and the upload and its offset MUST NOT be
        updated." (Checksum). What is not committed is discarded.
        """
        if self._checksum and digesting.digest() != self._checksum.digest:
            raise ChecksumMismatch(
                f"The body does not have the {self._checksum.algorithm} that Upload-Checksum tells; send it again"
            )
        return True

    async def _record(self, finish: Finish) -> None:
        full: StorageFull | None = None
        # The file is let go before the lease: whoever gets the lease must find the file free.
        try:
            offset = await self._writer.finish()
        except StorageFull as exc:  # of the last bytes, which are written only here
            if self._checksum:
                raise
            full = exc
            offset = await self._writer.finish()
        # "The new offset MUST be the sum of the offset before the `PATCH` request and the number of bytes received and
        # processed or stored during the current `PATCH` request." (Core, PATCH)
        upload, event = finish(self._upload.at(offset, expires_at=self._expires_at()))
        await self._lease.commit(upload, event=event, release=True)
        if full:
            raise full

    def _look(self) -> None:
        """Something has happened that may call for a checkpoint."""
        self._wake.set()
        if self._checkpointing is None and not self._done:
            self._checkpointing = asyncio.create_task(self._checkpoints())

    async def _checkpoints(self) -> None:
        """Commit the offset by bytes, by seconds and on request, until the body has ended or has to."""
        try:
            committed_at = self._began_at
            committed = self._upload.offset
            # Many uploads that began together, after a restart, do not flush together.
            jitter = random.uniform(0.75, 1.25)
            while not self._done:
                # The first pauses are short: a crash costs half of what the body brought, at most.
                pause_s = jitter * min(self._pace.checkpoint_s, FIRST_PAUSE_S + committed_at - self._began_at)
                grown = self._writer.offset > committed
                with suppress(TimeoutError):
                    async with asyncio.timeout(committed_at + pause_s - time.monotonic() if grown else None):
                        await self._wake.wait()
                self._wake.clear()
                if self._lease.wanted:
                    await self._body.hurry()
                if self._must_yield():
                    self._body.stop()
                    return
                now, offset = time.monotonic(), self._writer.offset
                due = offset > committed and now - committed_at >= pause_s
                if (due or offset - committed >= self._pace.checkpoint_bytes or self._lease.wanted) and not self._done:
                    committed_at, committed = now, offset
                    await self._checkpoint()
        except BaseException:
            self._body.stop()  # what would come now could not be recorded
            raise

    async def _checkpoint(self) -> None:
        if self._checksum:
            # No offset is recorded before the digest matches; whoever asked hears what is, and the upload lives on.
            recorded = self._lease.upload
            await self._lease.commit(recorded.at(recorded.offset, expires_at=self._expires_at()))
            return
        offset = await self._writer.flush()
        # The last byte is recorded by the last commit alone: the event is born with it.
        if offset != self._upload.length:
            await self._lease.commit(self._upload.at(offset, expires_at=self._expires_at()))

    def _must_yield(self) -> bool:
        """Whether somebody wants to change the upload, or asks for its offset while the client is silent."""
        silent = time.monotonic() - self._body.received_at >= SILENT_S
        return self._lease.wanted is Signal.YIELD or (self._lease.wanted is Signal.CHECKPOINT and silent)
