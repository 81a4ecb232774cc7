"""What may be done to uploads: create, append, inspect, terminate, sweep.

What always holds:

1. The record never promises bytes that are not there. Create and append: bytes, flush, then record. Delete: record,
   then bytes. A file may be longer than the recorded offset, never shorter; writing is positional, so a tail that was
   never acknowledged is overwritten. The one truncate is at completion, before the completing commit. An upload without
   bytes is a record and nothing else.
2. Only a lease changes an upload. Every commit is checked against its token in the step that writes it, every write
   against its deadline, and the open file is locked.
3. An event is born in the same atomic step as the change it tells of.
4. HEAD tells the truth and disturbs no one who receives; a silent holder lets go; PATCH and DELETE make it yield.
5. The rules are in protocol/, which never awaits, never looks at the clock, never logs.
6. Beside each upload's bytes lies a sidecar that says whose bytes they are.
7. Neither record nor file is believed alone: a file shorter than its record takes the offset back, loudly.
8. Nothing before permission: limits and the lease are settled before the first byte of a body is stored.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from enum import StrEnum
from pathlib import Path

from .lease import Lease, Leases
from .ports import Body, Event, LeaseLost, Ledger, Storage
from .protocol.fileinfo import build_hook
from .protocol.messages import Append, Checksum, Create, Limits, Request
from .protocol.refusals import NotFinished, Refusal, Unavailable, UploadGone, UploadNotFound
from .protocol.upload import Upload, check_size, length_of_parts, offset_mismatch, too_long
from .transfer import Pace, Transfer

TOMBSTONE_S = 7 * 24 * 3600.0  # how long a removed upload answers 410; a browser tab that slept a week learns why
PARTS_KEPT_S = 3600.0  # how long the parts of a final upload stay: a client whose answer was lost asks again
SWEEP_BATCH = 1000  # uploads removed in one turn; a turn ends well within its lease

log = logging.getLogger("tusd_py")


class Recovered(StrEnum):
    """What became of an upload when its record was looked for."""

    KNOWN = "had a record"
    GONE = "were removed"
    RESUMABLE = "can be resumed"
    COMPLETE = "are complete and told again"


class Engine:
    """The commands of protocol/messages.py, carried out on a ledger and a storage."""

    def __init__(
        self,
        ledger: Ledger,
        storage: Storage,
        leases: Leases,
        limits: Limits,
        pace: Pace,
        expire_after_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self._ledger = ledger
        self._storage = storage
        self._leases = leases
        self._pace = pace
        self._expire_after_s = expire_after_s
        self._now = now

    async def create(self, create: Create, body: Body, request: Request) -> Upload:
        """Make a new upload, receive the first bytes if the request carries some, and return it.

        Raises TooLarge before anything exists; StorageFull; Unavailable.
        """
        if create.parts:
            return await self.concatenate(create, request)
        check_size(create.length, self.limits)
        now = self._now()
        upload = Upload(
            id=secrets.token_hex(16),  # 128 random bits: who has the URL may write
            length=create.length,
            offset=0,
            metadata=create.metadata,
            created_at=now,
            expires_at=self._expires_at(),
            concat=create.concat,
        )
        upload, room = upload.admit(Append(upload.id, 0, body_length=create.body_length), now, self.limits)
        if create.body_length == 0:
            if upload.is_complete:
                # "Such an upload is immediately complete after its creation" (Creation, POST, on a length of 0)
                await self._storage.concatenate(upload, (), lambda: None)
            await self._ledger.create(upload, event=self._finished(upload, request))
            return upload
        async with self._leases.hold_new(upload) as lease:
            return await self._receive(lease, upload, room, body, create.checksum, request)

    async def concatenate(self, create: Create, request: Request) -> Upload:
        """Make a final upload of finished partial ones and return it.

        "The partial uploads MUST be concatenated as per the order specified in the list." (Concatenation)
        Raises BadHeader, NotFinished, TooLarge, UploadNotFound, UploadGone, UploadLocked, StorageFull, Unavailable.
        """
        async with AsyncExitStack() as stack:
            # In one order everywhere: two concatenations that share parts wait for each other, never in a circle. "The
            # same partial upload MAY be present multiple times" (Concatenation); it is held once.
            held = {
                part: await stack.enter_async_context(self._leases.hold(part)) for part in sorted(set(create.parts))
            }
            length = length_of_parts([held[part].upload for part in create.parts], self.limits)
            now = self._now()
            upload = Upload(secrets.token_hex(16), length, length, create.metadata, now, None, create.concat)

            def guard() -> None:
                for lease in held.values():
                    lease.check()

            await self._storage.concatenate(upload, create.parts, guard)
            await self._ledger.create(upload, event=self._finished(upload, request))
            # "The Server MAY delete partial uploads after concatenation." Not at once: the answer may be lost, and the
            # client asks again.
            for lease in held.values():
                part = lease.upload.at(lease.upload.offset, expires_at=now + PARTS_KEPT_S)
                with suppress(LeaseLost, Unavailable):  # it expires later, then
                    await lease.commit(part, release=True)
        return upload

    async def append(self, append: Append, body: Body, request: Request) -> Upload:
        """Receive the body at the offset it claims and return the upload as it is now.

        A holder that was asked to yield returns with the offset it reached: no client takes that for a failure.
        Raises the refusals of Upload.admit, UploadNotFound, UploadLocked, StorageFull, Unavailable; LeaseLost.
        """
        async with self._leases.hold(append.upload_id) as lease:
            upload, room = lease.upload.admit(append, self._now(), self.limits)
            if lease.upload.is_complete:
                if await body.has_more():
                    raise too_long(upload, 0, None)
                return upload
            return await self._receive(lease, upload, room, body, append.checksum, request)

    async def inspect(self, upload_id: str) -> Upload:
        """Return the upload with the offset from which it can be resumed.

        Raises UploadNotFound, UploadGone, UploadLocked, Unavailable.
        """
        upload = await self._leases.settled(upload_id)
        if upload.has_expired(self._now()):
            raise UploadGone(f"The upload {upload_id} has expired; start a new upload")
        return upload

    async def terminate(self, upload_id: str) -> None:
        """Remove the upload; a PATCH that is running ends.

        Raises UploadNotFound, UploadGone, UploadLocked, Unavailable; LeaseLost.
        "When receiving a `DELETE` request for an existing upload the Server SHOULD free associated resources"
        (Termination, DELETE). "For all future requests to this URL, the Server SHOULD respond with the `404 Not Found`
        or `410 Gone` status." (Termination, DELETE)
        """
        async with self._leases.hold(upload_id) as lease:
            await self._remove(lease, "terminated")

    async def locate(self, upload_id: str) -> tuple[Upload, Path]:
        """Return a finished upload and where its bytes are.

        Raises NotFinished, UploadNotFound, UploadGone, Unavailable.
        """
        upload = (await self._ledger.inspect(upload_id, ask=False)).upload
        if not upload.is_complete:
            raise NotFinished(
                f"The upload is at {upload.offset} of {upload.length if upload.length is not None else 'unknown'} bytes"
            )
        return upload, self._storage.path(upload_id)

    async def sweep(self) -> int:
        """Remove the unfinished uploads that have expired and return how many there were."""
        swept = 0
        for upload_id in await self._ledger.expired(self._now(), SWEEP_BATCH):
            try:
                async with self._leases.hold(upload_id) as lease:
                    if lease.upload.has_expired(self._now()):
                        await self._remove(lease, "expired")
                        swept += 1
            except Refusal as exc:  # in use after all, or swept by another; the next turn sees
                log.info("not swept: %s: %s", upload_id, exc)
        return swept

    async def tidy(self, older_than_s: float) -> int:
        """Remove what a crash left of uploads that never were or are gone; return how many.

        Nothing is removed that has bytes and a sidecar but no record: recover() makes the record from them.
        """
        removed = 0
        for upload_id in (await self._storage.listing()).ids:
            try:
                await self._ledger.inspect(upload_id, ask=False)
                continue
            except UploadGone:
                pass
            except UploadNotFound:
                if not await self._storage.is_stray(upload_id, older_than_s):
                    continue
            await self._storage.remove(upload_id)
            removed += 1
        return removed

    async def ids(self) -> Sequence[str]:
        """Return the ids of all uploads that there are files of."""
        return (await self._storage.listing()).ids

    async def recover(self, upload_id: str, *, dry_run: bool) -> Recovered:
        """Make the record of an upload from its files, if there is none; a complete one is told again under its id.

        Raises ValueError when the files do not tell; Unavailable.
        """
        try:
            await self._ledger.inspect(upload_id, ask=False)
            return Recovered.KNOWN
        except UploadGone:
            return Recovered.GONE
        except UploadNotFound:
            pass
        upload = (await self._storage.read(upload_id)).upload
        upload = upload.at(upload.offset, expires_at=self._expires_at())
        if not dry_run:
            request = Request("RECOVER", upload_id, {}, "")
            await self._ledger.create(upload, event=self._finished(upload, request))
        return Recovered.COMPLETE if upload.is_complete else Recovered.RESUMABLE

    async def ready(self) -> None:
        """Return when the ledger answers. Raises Unavailable."""
        await self._ledger.ping()

    async def _receive(
        self, lease: Lease, upload: Upload, room: int | None, body: Body, checksum: Checksum | None, request: Request
    ) -> Upload:
        writer = await self._storage.open(upload, lease.check)
        try:
            if writer.offset < upload.offset:
                await self._take_back(lease, upload, writer.offset)
            transfer = Transfer(lease, upload, writer, body, checksum, self._pace, self._expires_at)
            return await transfer.run(room, lambda done: self._finished(done, request))
        finally:
            await writer.close()

    async def _take_back(self, lease: Lease, upload: Upload, size: int) -> None:
        """Set the offset back to the size of a file that a crashed host left shorter than its record, and say so."""
        log.error(
            "bytes lost by the volume: upload %s was acknowledged up to %d, its file has %d; the offset goes back",
            upload.id, upload.offset, size,
        )  # fmt: skip
        await lease.commit(upload.at(size, expires_at=upload.expires_at), take_back=True)
        raise offset_mismatch(upload.offset, size)

    async def _remove(self, lease: Lease, reason: str) -> None:
        await lease.remove(reason, self._now() + TOMBSTONE_S)
        await self._storage.remove(lease.upload.id)

    def _expires_at(self) -> float | None:
        return self._now() + self._expire_after_s if self._expire_after_s else None

    def _finished(self, upload: Upload, request: Request) -> Event | None:
        """Return what is to be told of an upload as it is now: nothing before its last byte, nothing of a mere part.

        "The Server SHOULD NOT process these partial uploads until they are concatenated" (Concatenation)
        """
        if not upload.is_complete or upload.is_partial:
            return None
        return Event(
            id=f"post-finish-{upload.id}",
            kind="post-finish",
            upload_id=upload.id,
            body=build_hook("post-finish", upload, self._storage.describe(upload.id), request),
            created_at=self._now(),
        )
