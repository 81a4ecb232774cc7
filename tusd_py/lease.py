"""Waiting for an upload, keeping it, and giving it up when asked.

A lease is taken in the ledger under a random token. Whoever wants an upload that is held asks (the ledger tells the
holder), and waits for the signal that it is free; the clock is only for signals that were lost and holders that died.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from .ports import Event, Held, LeaseLost, Ledger, Signal, Tombstone
from .protocol.refusals import Unavailable, UploadLocked
from .protocol.upload import Upload

REASK_S = 1.0  # a signal that got lost (a Redis reconnect) costs this much waiting
RETRY_S = 0.2  # between tries while the ledger is away; a failover takes seconds


class Lease:
    """One upload in our hands. check() before every write, commit() for every change."""

    def __init__(self, ledger: Ledger, upload: Upload, token: str, ttl_s: float, taken_at: float) -> None:
        self.upload = upload  # as last recorded
        self.wanted: Signal | None = None
        self.released = False
        self._ledger = ledger
        self._token = token
        self._ttl_s = ttl_s
        self._deadline = taken_at + ttl_s  # monotonic seconds, counted from before the ledger was asked
        self._on_wanted: Callable[[], None] | None = None
        self._away: Unavailable | None = None
        self._keeping: asyncio.Task[None] | None = None
        # Most leases end before they need to be renewed: a timer costs less than a task.
        self._timer = asyncio.get_running_loop().call_later(ttl_s / 3, self._begin_to_keep)

    def check(self) -> None:
        """Raise LeaseLost once the lease may be somebody else's; Unavailable if that is for the ledger's absence."""
        if time.monotonic() >= self._deadline:
            raise self._away or LeaseLost(f"the lease on {self.upload.id} has run out")

    def when_wanted(self, call: Callable[[], None]) -> None:
        """Call this whenever somebody asks for the upload, and at once if it was asked for already."""
        self._on_wanted = call
        if self.wanted:
            call()

    async def commit(
        self, upload: Upload, *, event: Event | None = None, release: bool = False, take_back: bool = False
    ) -> None:
        """Record the upload. Raises LeaseLost, or Unavailable when the ledger stays away as long as the lease lasts."""
        if self.wanted is Signal.CHECKPOINT:
            self.wanted = None
        # Renewals may go through while commits fail, for a missing right or a key of another type.
        give_up_at = time.monotonic() + self._ttl_s
        while True:
            asked_at = time.monotonic()
            try:
                await self._ledger.commit(
                    upload, self._token, self._ttl_s, event=event, release=release, take_back=take_back
                )
                break
            except Unavailable as exc:
                self._away = exc
                if asked_at >= min(self._deadline, give_up_at):
                    raise
                await asyncio.sleep(RETRY_S)
        self._renewed(asked_at)
        self.upload = upload
        self.released = release

    async def remove(self, tombstone: Tombstone) -> None:
        """Replace the record by a tombstone; the lease ends with it. Raises LeaseLost."""
        await self._ledger.remove(self.upload.id, self._token, tombstone)
        self.released = True

    def _renewed(self, asked_at: float) -> None:
        self._deadline = asked_at + self._ttl_s
        self._away = None

    def _ask(self, signal: Signal) -> None:
        # A holder that was asked to yield is not talked out of it by somebody who only wants to know the offset.
        if signal in (Signal.CHECKPOINT, Signal.YIELD) and self.wanted is not Signal.YIELD:
            self.wanted = signal
            if self._on_wanted:
                self._on_wanted()

    def _begin_to_keep(self) -> None:
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """Renew three times in every ttl until cancelled, or until the lease is lost."""
        while True:
            asked_at = time.monotonic()
            if asked_at >= self._deadline - self._ttl_s * 2 / 3:  # otherwise a commit has renewed it meanwhile
                try:
                    signal = await self._ledger.renew(self.upload.id, self._token, self._ttl_s)
                    self._renewed(asked_at)
                    if signal:
                        self._ask(signal)
                except Unavailable as exc:
                    self._away = exc
                except LeaseLost:
                    self._deadline = asked_at  # check() says so to whoever writes next
                    self._ask(Signal.YIELD)
                    return
            await asyncio.sleep(self._ttl_s / 3)

    async def _let_go(self) -> None:
        self._timer.cancel()
        if self._keeping:
            self._keeping.cancel()
        if not self.released:
            # Whoever waits finds the lease run out if the ledger is away just now.
            with suppress(Unavailable):
                await self._ledger.release(self.upload.id, self._token)


class Leases:
    """How this process takes leases: for how long, and how patiently."""

    def __init__(self, ledger: Ledger, ttl_s: float, wait_s: float) -> None:
        self._ledger = ledger
        self.ttl_s = ttl_s
        self._wait_s = wait_s

    @asynccontextmanager
    async def hold(self, upload_id: str) -> AsyncIterator[Lease]:
        """Hold the upload for the length of the block, once its present holder has yielded.

        Raises UploadLocked after wait_s, UploadNotFound, UploadGone, Unavailable.
        """
        token = new_token()
        with Watch(self._ledger, upload_id) as watch:
            give_up_at = time.monotonic() + self._wait_s
            while True:
                asked_at = time.monotonic()
                answer = await self._ledger.acquire(upload_id, token, self.ttl_s)
                if not isinstance(answer, Held):
                    break
                await watch.settled(give_up_at, answer.remaining_s)
        async with self._kept(answer, token, asked_at) as lease:
            yield lease

    @asynccontextmanager
    async def hold_new(self, upload: Upload) -> AsyncIterator[Lease]:
        """Record a new upload and hold it for the length of the block. Raises UploadLocked when the id is taken."""
        token = new_token()
        asked_at = time.monotonic()
        await self._ledger.create(upload, token=token, ttl_s=self.ttl_s)
        async with self._kept(upload, token, asked_at) as lease:
            yield lease

    @asynccontextmanager
    async def _kept(self, upload: Upload, token: str, asked_at: float) -> AsyncIterator[Lease]:
        lease = Lease(self._ledger, upload, token, self.ttl_s, asked_at)
        unwatch = self._ledger.watch(upload.id, lease._ask)
        try:
            yield lease
        finally:
            unwatch()
            await lease._let_go()

    async def settled(self, upload_id: str) -> Upload:
        """Return the upload with an offset that counts every byte its holder has, disturbing no holder that receives.

        Raises UploadLocked after wait_s, UploadNotFound, UploadGone, Unavailable.
        """
        with Watch(self._ledger, upload_id) as watch:
            give_up_at = time.monotonic() + self._wait_s
            first = sight = await self._ledger.inspect(upload_id, ask=True)
            while sight.is_held and sight.commits == first.commits:
                heard = await watch.settled(give_up_at, REASK_S)
                sight = await self._ledger.inspect(upload_id, ask=not heard)
        return sight.upload


class Watch:
    """Waits for the signal that the holder of an upload committed or let go."""

    def __init__(self, ledger: Ledger, upload_id: str) -> None:
        self._upload_id = upload_id
        self._event = asyncio.Event()
        self._unwatch = ledger.watch(upload_id, self._hear)

    def _hear(self, signal: Signal) -> None:
        if signal is Signal.SETTLED:
            self._event.set()

    async def settled(self, give_up_at: float, at_most_s: float) -> bool:
        """Wait for the signal, at most at_most_s or REASK_S, and return whether it came.

        Raises UploadLocked at give_up_at (monotonic seconds).
        """
        remaining_s = give_up_at - time.monotonic()
        if remaining_s <= 0:
            raise UploadLocked(f"The upload {self._upload_id} is in use by another request; try again in a moment")
        with suppress(TimeoutError):
            # 10 ms more than the lease has left: its end is decided by the ledger's clock.
            async with asyncio.timeout(min(at_most_s + 0.01, REASK_S, remaining_s)):
                await self._event.wait()
        heard = self._event.is_set()
        self._event.clear()
        return heard

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *exc: object) -> None:
        self._unwatch()


def new_token() -> str:
    """Return a fencing token: 128 random bits."""
    return secrets.token_hex(16)
