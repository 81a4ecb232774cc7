"""What the engine needs of the world: a ledger with an outbox, a storage, a request body.

The docstring of a method is its contract; implementations do not repeat it, and the contract
tests hold them to it. Refusals that a method raises (protocol/refusals.py) reach the client as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from .protocol.fileinfo import Sidecar
from .protocol.upload import State, Upload


class LeaseLost(Exception):
    """The lease ran out or went to somebody else; what is not committed is not recorded."""


class WrongLedger(Exception):
    """The ledger is not one that this server can use with its folder; the text is one line that says why."""


class BodyCutShort(Exception):
    """The client went away before the end of the body; everything that arrived was written."""


class Signal(StrEnum):
    """A hint that something happened to an upload. The ledger has the truth; a lost signal costs time, nothing else."""

    CHECKPOINT = "checkpoint"  # somebody asks how far the upload is
    YIELD = "yield"  # somebody wants to change the upload
    SETTLED = "settled"  # the holder committed or let go
    EVENT = "event"  # the outbox has something new


Watcher = Callable[[Signal], None]  # called in the event loop; must not block
OUTBOX = ""  # what to watch for Signal.EVENT: no upload has this id


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that the application must hear of."""

    id: str  # stable: the same fact has the same id for ever
    kind: str  # "post-finish"
    upload_id: str
    body: str  # JSON as it will be sent
    created_at: float  # Unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event that is due, claimed for some time by one worker."""

    event: Event
    attempt: int  # 1 is the first
    confirmed_by: frozenset[str] = frozenset()  # the receivers that need not get it again


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What is kept of an upload that was removed."""

    state: State  # CANCELLED or EXPIRED
    reason: str  # how it was removed, as in "The upload was ..."
    removed_at: float  # Unix seconds
    forget_at: float  # Unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Upload ids whose time has come."""

    expired: tuple[str, ...] = ()  # unfinished uploads past their expiry
    forgettable: tuple[str, ...] = ()  # tombstones that were kept long enough


class Folder(Protocol):
    """The place of the bytes, as a ledger needs to know it: each belongs to the other and to no third.

    Every method raises VolumeAway when the place is not there.
    """

    async def identity(self) -> str | None:
        """Return the identity of the place, None if it has none. Raises WrongLedger when it cannot be read."""

    async def claim(self) -> str:
        """Give the place an identity if it has none, and return the one that it has. Raises StorageFull."""

    async def has_uploads(self) -> bool:
        """Return whether anything there looks like an upload."""


@dataclass(frozen=True, slots=True)
class Held:
    """The upload is in somebody else's hands."""

    remaining_s: float  # until the lease runs out unless it is renewed


@dataclass(frozen=True, slots=True)
class Sight:
    """An upload as seen by somebody who does not hold it."""

    upload: Upload
    is_held: bool
    commits: int  # grows with every commit; tells a fresh offset from an old one


class Ledger(Protocol):
    """Records, leases, expiry index and outbox together: fencing needs them in one atomic step. One method, one step.

    Every method is safe to repeat after a lost answer, and raises Unavailable when the ledger cannot be reached.
    Tokens are unguessable and never reused, so equality is all that fencing needs: a token that a failover forgot is
    never given out twice, as a counter's value would be.

    What is counted over all uploads belongs here as well, in the step that creates, finishes or removes one: the room
    that is reserved on the volume for the lengths of those that were let in will be such a count.

    A ledger belongs to one folder, and every step checks that it still does. One that lost its records does not know
    what it has forgotten: where it would raise UploadNotFound it raises Unavailable until recovered() is called.
    """

    async def open(self, folder: Folder) -> None:
        """Prepare to serve the folder's uploads. The ledger may be away: bind() says so."""

    async def bind(self) -> None:
        """Return when ledger and folder belong to each other; two that belong to nobody are tied together.

        Raises WrongLedger when one of them belongs to another, or was made by a server that this one cannot follow.
        """

    async def recovered(self) -> None:
        """Note that the records were made again from the folder: what is unknown now does not exist."""

    def now(self) -> float:
        """Return the time of all records and leases, in Unix seconds: the same on every replica.

        As of the ledger's last answer, and what has passed since. Raises Unavailable before the first.
        """

    @property
    def is_steady(self) -> bool:
        """Whether that clock has gone on as time does. If not, nothing may be removed for its age."""

    async def create(self, upload: Upload, *, token: str = "", ttl_s: float = 0.0, event: Event | None = None) -> None:
        """Record a new upload, with its event if it is born finished, held under token if there is one.

        Raises UploadLocked when it is to be held and the id is taken already.
        """

    async def acquire(self, upload_id: str, token: str, ttl_s: float) -> Upload | Held:
        """Take the lease for ttl_s and return the upload; or, if it is held, ask the holder to yield (Signal.YIELD).

        However the ledger's clock is set, no lease lasts longer than its ttl_s. Raises UploadNotFound or UploadGone.
        """

    async def renew(self, upload_id: str, token: str, ttl_s: float) -> Signal | None:
        """Keep the lease for another ttl_s; return what the holder was asked for since the last commit.

        Raises LeaseLost.
        """

    async def commit(
        self,
        upload: Upload,
        token: str,
        ttl_s: float,
        *,
        event: Event | None = None,
        release: bool = False,
        take_back: bool = False,
    ) -> None:
        """Record all that may change of an upload, and the event with it; renew the lease or let it go.

        An offset below the recorded one is a repeat that was delayed on its way, behind a later commit: it changes
        nothing, unless take_back says that it is meant. Wakes those who wait (Signal.SETTLED). Raises LeaseLost, and
        nothing was recorded then.
        """

    async def release(self, upload_id: str, token: str) -> None:
        """Let the lease go if it is still ours; wakes those who wait (Signal.SETTLED)."""

    async def remove(self, upload_id: str, token: str, tombstone: Tombstone) -> None:
        """Replace the record by a tombstone, which stays until forget() is called. Raises LeaseLost."""

    async def forget(self, upload_id: str) -> None:
        """Drop a tombstone. Only when no file of the upload is left: recover would bring it back."""

    async def inspect(self, upload_id: str, *, ask: bool) -> Sight:
        """Return what is recorded; with ask, a holder is asked for a checkpoint (Signal.CHECKPOINT).

        Raises UploadNotFound or UploadGone.
        """

    async def due(self, now: float, limit: int) -> Due:
        """Return up to limit ids of uploads that have expired and of tombstones to be forgotten at now."""

    async def take_turn(self, name: str, ttl_s: float) -> bool:
        """Return True for one caller in ttl_s: who does a chore that one replica is enough for."""

    def watch(self, upload_id: str, watcher: Watcher) -> Callable[[], None]:
        """Call watcher at every signal for this upload, from any process, until the returned function is called."""

    async def ping(self) -> None:
        """Return when the ledger answers."""


class Outbox(Protocol):
    """Events that are owed. At least once: what is claimed and not settled comes back when the claim runs out."""

    async def claim(self, now: float, claim_s: float, limit: int) -> list[Delivery]:
        """Return up to limit events that are due at now (Unix seconds) and keep them from others for claim_s."""

    async def confirm(self, event: Event) -> None:
        """Forget the event: every receiver has confirmed it."""

    async def postpone(self, delivery: Delivery, due_at: float, reason: str) -> None:
        """Try again at due_at (Unix seconds), for those who are not in delivery.confirmed_by."""

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Give the event up; keep it with its reason for a person to look at."""


class Sink(Protocol):
    """Where a body goes."""

    async def write(self, pieces: list[bytes], *, last: bool = False) -> None:
        """Write the pieces at offset and advance it; the last ones perhaps with the flush() or finish() behind them.

        Raises LeaseLost when the lease has run out, or StorageFull, with the offset behind what found room.
        """


@runtime_checkable
class KernelSink(Protocol):
    """A sink that is a file: the kernel can put bytes into it that no Python object ever holds."""

    async def pull(self, pump: Callable[[int, int, int], int]) -> int:
        """Let pump put bytes into the file in a thread, behind the last one; return how many.

        pump gets a descriptor, an offset and how many bytes it may put there at most; it returns how many it did. When
        a write fails after others, it returns, and raises when it is called again. Raises what it raises, LeaseLost,
        StorageFull.
        """


class Writer(Sink, Protocol):
    """The open bytes of one upload, locked against every other writer."""

    offset: int  # bytes; where the next byte goes

    def when_grown(self, call: Callable[[], None]) -> None:
        """Call this after every write but the last."""

    async def flush(self) -> int:
        """Return the offset below which every byte survives a crash, in bytes; the sidecar tells it too."""

    async def finish(self) -> int:
        """flush(), cut off what is behind the last byte of a complete upload, and let the upload's bytes go.

        Returns the offset below which every byte survives a crash, in bytes. Raises StorageFull; when it is called
        again then, it does the same for the bytes that found room.
        """

    async def close(self) -> None:
        """Wait for the write that is under way, then let the file go, if finish() did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What there is in the place of the bytes."""

    ids: tuple[str, ...]  # of the uploads that there are files of, in order
    others: tuple[str, ...]  # everything else, as text to print; none of it is this server's


class Storage(Folder, Protocol):
    """Where the bytes lie: one file an upload, and a sidecar that says whose bytes they are.

    Every method raises VolumeAway also when the place is not the one that identity() or claim() returned first; nothing
    is written or removed then.
    """

    async def check(self, *, within_s: float = 0.0) -> None:
        """Return when the place is there, and is still the same, as seen at most within_s ago."""

    async def check_room(self, more: int = 0, *, within_s: float = 0.0) -> None:
        """Raise StorageFull unless there was room for that many more bytes within_s ago, above what must stay free."""

    def give_back_reserve(self) -> bool:
        """Free the room that was kept for a ledger on the same volume; return whether there was any. Blocks."""

    async def keep_reserve(self) -> bool:
        """Keep that room again, as far as there is any; return whether all of it is kept."""

    async def open(self, upload: Upload, guard: Callable[[], None]) -> Writer:
        """Return a writer at the upload's offset, or at less if the bytes before it are not there.

        guard is called before every write and may raise. Raises UploadLocked when a former holder still has the file,
        UploadNotFound when there is none. There need be none at offset 0: the first write makes it, and raises
        UploadLocked instead.
        """

    async def concatenate(self, upload: Upload, parts: Sequence[str], guard: Callable[[], None]) -> None:
        """Make a complete upload of the bytes of its parts, in order; they stay. Of no parts it has no bytes.

        What an earlier try made is taken as it is when it was complete, and overwritten when it was not. guard is
        called every few seconds and may raise. Whatever fails, the copied bytes are freed. Raises StorageFull (before
        anything is copied, where that is known), UploadLocked, UploadNotFound.
        """

    async def remove(self, upload_id: str) -> None:
        """Free everything that belongs to the upload, and log the names; it may be gone already.

        Only regular files are removed. The caller knows that the upload is this server's: by its record, its tombstone
        or is_stray().
        """

    async def listing(self) -> Listing:
        """Return what there is: the ids of uploads, and the names of everything else."""

    async def read(self, upload_id: str) -> Sidecar:
        """Return the upload as its sidecar and its bytes tell: it can be resumed, or it is complete.

        Raises ValueError when they do not tell, in a sentence that says why; OSError when the volume is in trouble.
        """

    async def is_stray(self, upload_id: str, older_than_s: float) -> bool:
        """Return whether it is certain that this server began the upload, that long ago, and acknowledged no byte."""

    async def size(self, upload_id: str) -> int:
        """Return how many bytes there are of an upload. Raises UploadNotFound when somebody took them away."""

    def path(self, upload_id: str) -> Path:
        """Return where the bytes are for those who read them."""

    def describe(self, upload_id: str) -> Mapping[str, str]:
        """Return where the bytes are in tusd's words: Type, Path, InfoPath."""


class Body(Protocol):
    """The body of one request."""

    received_at: float  # monotonic seconds; when the last byte came
    ended: bool  # whether every byte of it was moved

    async def move(self, sink: Sink, at_most: int | None) -> int:
        """Move the body into sink until it ends, at_most bytes are in, or stop() is called; return how many went.

        Raises BodyCutShort, or what sink.write raises.
        """

    async def has_more(self) -> bool:
        """Return whether the body goes on behind what was moved."""

    async def hurry(self) -> None:
        """Return when what has arrived is in the sink: somebody asks how far the upload is."""

    def stop(self) -> None:
        """Make move() end soon, with everything that has arrived written. The rest of the body stays unread."""
