"""What may be done to an upload: create, append, inspect, terminate, expire, restore.

What always holds:

1. The record never promises bytes that are not there. Create and append: bytes, flush, then record. Delete: record,
   then bytes. A file may be longer than the recorded offset, never shorter; writing is positional, so a tail that was
   never acknowledged is overwritten. The one truncate is at completion, before the completing commit. An upload without
   bytes is a record and nothing else.
2. Only a lease changes an upload. Every commit is checked against its token in the step that writes it, every write
   against its deadline, and the open file is locked.
3. An event is born in the same atomic step as the change it reports.
4. HEAD answers the true offset and disturbs no one who receives; a silent holder lets go; PATCH and DELETE make it
   yield.
5. The rules are in protocol/, which never awaits, never looks at the clock, never logs.
6. Beside each upload's bytes lies a sidecar that says whose bytes they are. It is there before the bytes.
7. Neither record nor file is believed alone: a file shorter than its record takes the offset back, loudly; a record
   that is behind what its sidecar proves is brought forward.
8. Nothing before permission: limits and the lease are settled before the first byte of a body is stored.
9. "Finished" is a state of the record, not an offset.
10. Nothing is removed that is not provably ours, and nothing at all while the volume is not the ledger's.
11. Bytes are copied only under an id that follows from what is copied, and its record comes first.
"""

import logging
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from .events import finish_event
from .lease import Lease, Leases
from .ports import Body, Event, LeaseLost, Ledger, Storage, Tombstone
from .protocol.fileinfo import Sidecar
from .protocol.messages import Append, Checksum, Create, Limits, Request
from .protocol.refusals import LedgerUnrecovered, NotFinished, Unavailable, UploadGone, UploadNotFound
from .protocol.upload import State, Upload, check_size, final_id, length_of_parts, offset_mismatch, too_long
from .transfer import Pace, Transfer

TOMBSTONE_S = 7 * 24 * 3600.0  # how long a removed upload says why it is gone; a browser tab may sleep for a week
PARTS_KEPT_S = 3600.0  # how long the parts of a final upload stay: a client whose answer was lost asks again
MOST_FINALS = 64  # of the same parts, made and removed within the week of their tombstones; no client needs two
SEEN_S = 0.01  # a look at the volume counts this long for requests that change no file: a rush of them shares one

log = logging.getLogger("tusd_py")


class Recovered(StrEnum):
    """What became of an upload when its record was compared with its files."""

    KNOWN = "had a record"
    GONE = "were removed"
    IN_USE = "are in use"
    FORWARD = "had a record that was behind"
    RESUMABLE = "can be resumed"
    COMPLETE = "are complete"


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
        now: Callable[[], float] | None = None,
    ) -> None:
        """now gives Unix seconds; the ledger's clock if it is not given."""
        self.limits = limits
        self._ledger = ledger
        self._storage = storage
        self._leases = leases
        self._pace = pace
        self._expire_after_s = expire_after_s
        self._now = now or ledger.now

    async def create(self, create: Create, body: Body, request: Request) -> Upload:
        """Make a new upload, receive the first bytes if the request carries some, and return it.

        Raises TooLarge before anything exists; StorageFull; Unavailable.
        """
        if create.parts:
            return await self.concatenate(create, request)
        check_size(create.length, self.limits)
        await self._storage.check_room(within_s=SEEN_S)
        now = self._now()
        upload = Upload(
            id=secrets.token_hex(16),  # 128 random bits: whoever has the URL can write
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
            upload, event = self._finish(upload, request)
            await self._ledger.create(upload, event=event)
            return upload
        async with self._leases.hold_new(upload) as lease:
            return await self._receive(lease, upload, room, body, create.checksum, request)

    async def concatenate(self, create: Create, request: Request) -> Upload:
        """Make a final upload of finished partial ones and return it; asked again, the same one.

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
            lease = await self._hold_final(stack, create, length)
            if not lease.upload.is_finished:
                upload = lease.upload.at(length, expires_at=None)
                await self._storage.concatenate(upload, create.parts, lease.check)
                upload, event = self._finish(upload, request)
                await lease.commit(upload, event=event, release=True)
            # "The Server MAY delete partial uploads after concatenation." Not at once: the answer may be lost, and the
            # client asks again.
            for part_lease in held.values():
                part = part_lease.upload.at(part_lease.upload.offset, expires_at=self._now() + PARTS_KEPT_S)
                with suppress(LeaseLost, Unavailable):  # it expires later, then
                    await part_lease.commit(part, release=True)
        return lease.upload

    async def _hold_final(self, stack: AsyncExitStack, create: Create, length: int) -> Lease:
        """Return a lease on the final upload of these parts; it is recorded, without a byte, if it was not yet."""
        for attempt in range(MOST_FINALS):
            upload_id = final_id(create.parts, create.metadata, attempt)
            try:
                return await stack.enter_async_context(self._leases.hold(upload_id))
            except UploadGone:
                continue
            except UploadNotFound:
                now = self._now()
                upload = Upload(
                    id=upload_id,
                    length=length,
                    offset=0,
                    metadata=create.metadata,
                    created_at=now,
                    expires_at=now + PARTS_KEPT_S,  # what a crash leaves of the copy goes with the parts
                    concat=create.concat,
                )
                return await stack.enter_async_context(self._leases.hold_new(upload))
        raise UploadGone(f"{MOST_FINALS} uploads made of these parts were removed; upload the parts anew")

    async def append(self, append: Append, body: Body, request: Request) -> Upload:
        """Receive the body at the offset it claims and return the upload as it is now.

        A holder that was asked to yield returns with the offset it reached, before the end of its body; what the
        client hears of that is for the dialect to decide (tus1.appended).
        Raises the refusals of Upload.admit, UploadNotFound, UploadLocked, StorageFull, Unavailable; LeaseLost.
        """
        async with self._leases.hold(append.upload_id) as lease:
            upload, room = lease.upload.admit(append, self._now(), self.limits)
            if lease.upload.is_finished:
                if await body.has_more():
                    raise too_long(upload, 0, None)
                return upload
            return await self._receive(lease, upload, room, body, append.checksum, request)

    async def inspect(self, upload_id: str) -> Upload:
        """Return the upload with the offset from which it can be resumed.

        Raises UploadNotFound, UploadGone, UploadLocked, Unavailable.
        """
        await self._storage.check(within_s=SEEN_S)
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
        # Before the record goes: an unmounted volume has no file to remove, and would have it again later.
        await self._storage.check()
        async with self._leases.hold(upload_id) as lease:
            await self._remove(lease, State.CANCELLED, "terminated")

    async def expire(self, upload_id: str) -> bool:
        """Remove the upload if its time is over and nobody holds it; return whether it was removed.

        Raises UploadNotFound, UploadGone, UploadLocked, Unavailable; LeaseLost.
        """
        # A holder that receives is asked for a checkpoint, which moves the expiry; one that is silent lets go.
        if (await self._ledger.inspect(upload_id, ask=True)).is_held:
            return False
        async with self._leases.hold(upload_id) as lease:
            if not lease.upload.has_expired(self._now()):
                return False
            await self._remove(lease, State.EXPIRED, "expired")
            return True

    async def forget(self, upload_id: str) -> None:
        """Drop a tombstone, and with it what may be left of the files. Raises Unavailable, OSError."""
        await self._storage.remove(upload_id)
        await self._ledger.forget(upload_id)

    async def locate(self, upload_id: str) -> tuple[Upload, Path]:
        """Return a finished upload and where its bytes are.

        Raises NotFinished, UploadNotFound, UploadGone, Unavailable.
        """
        upload = (await self._ledger.inspect(upload_id, ask=False)).upload
        if not upload.is_finished:
            raise NotFinished(
                f"The upload is at {upload.offset} of {upload.length if upload.length is not None else 'unknown'} bytes"
            )
        if await self._storage.size(upload_id) != upload.length:
            raise UploadNotFound(f"The bytes of the upload {upload_id} were moved away")
        return upload, self._storage.path(upload_id)

    async def restore(
        self, upload_id: str, *, callback: Callable[[float], bool], dry_run: bool, say: Callable[[str], object]
    ) -> Recovered:
        """Bring the record of an upload to what its files prove, and return what was done.

        The record is made if there is none, and brought forward if it is behind. A finished upload has its event sent
        again, under the same id, if callback says so of the time when it was finished (Unix seconds). say gets a line
        about what could not be kept. Raises ValueError when the files do not say enough, or contradict the record;
        Unavailable.
        """
        try:
            sight = await self._ledger.inspect(upload_id, ask=False)
        except UploadGone:
            return Recovered.GONE
        except (UploadNotFound, LedgerUnrecovered):
            found = await self._storage.read(upload_id)
            upload = self._proven(found.upload, found)
            if found.left_out:
                say(f"{upload_id}: metadata that no header can carry is left out: {', '.join(found.left_out)}")
            if not dry_run:
                await self._ledger.create(upload, event=self._recovered(upload, found, callback))
            return Recovered.COMPLETE if upload.is_finished else Recovered.RESUMABLE
        if sight.is_held:
            return Recovered.IN_USE
        found = await self._storage.read(upload_id)
        if not found.is_ahead_of(sight.upload):
            return Recovered.KNOWN
        if not dry_run:
            async with self._leases.hold(upload_id) as lease:
                found = await self._storage.read(upload_id)
                if not found.is_ahead_of(lease.upload):
                    return Recovered.KNOWN
                upload = self._proven(lease.upload, found)
                await lease.commit(upload, event=self._recovered(upload, found, callback), release=True)
        return Recovered.FORWARD

    def _proven(self, upload: Upload, found: Sidecar) -> Upload:
        """Return the upload as far as its files prove it. Raises ValueError when they contradict its record."""
        proven = found.upload
        if None not in (upload.length, proven.length) and upload.length != proven.length:
            raise ValueError(f"its record has the length {upload.length}, its files have {proven.length}")
        upload = replace(upload, length=upload.length if proven.length is None else proven.length)
        # Whatever another server left stays until a client has gone on with it: its files are not ours to remove.
        expires_at = self._expires_at() if found.is_ours else None
        return upload.at(proven.offset, expires_at=expires_at).finished(found.changed_at)

    def _recovered(self, upload: Upload, found: Sidecar, callback: Callable[[float], bool]) -> Event | None:
        return self._event(upload, None) if callback(found.changed_at) else None

    async def ready(self) -> None:
        """Return when the ledger answers and the folder is the right one. Raises Unavailable."""
        await self._storage.check()
        await self._ledger.ping()

    async def _receive(
        self, lease: Lease, upload: Upload, room: int | None, body: Body, checksum: Checksum | None, request: Request
    ) -> Upload:
        writer = await self._storage.open(upload, lease.check)
        try:
            if writer.offset < upload.offset:
                await self._take_back(lease, upload, writer.offset)
            transfer = Transfer(lease, upload, writer, body, checksum, self._pace, self._expires_at)
            return await transfer.run(room, lambda reached: self._finish(reached, request))
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

    async def _remove(self, lease: Lease, state: State, reason: str) -> None:
        now = self._now()
        await lease.remove(Tombstone(state=state, reason=reason, removed_at=now, forget_at=now + TOMBSTONE_S))
        await self._storage.remove(lease.upload.id)

    def _expires_at(self) -> float | None:
        return self._now() + self._expire_after_s if self._expire_after_s else None

    def _finish(self, upload: Upload, request: Request) -> tuple[Upload, Event | None]:
        """Return the upload as it is to be recorded now, finished if every byte is there, and the event of that."""
        upload = upload.finished(self._now())
        return upload, self._event(upload, request)

    def _event(self, upload: Upload, request: Request | None) -> Event | None:
        return finish_event(upload, self._storage.describe(upload.id), request, self._now())
