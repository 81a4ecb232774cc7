"""Room on the volume: what must stay free, who may write how much before the next look, and the reserve.

Free space that is kept is not for uploads: the ledger's log, the sidecars and the tombstones with which a DELETE begins
need it. The reserve is the same for a ledger that meets a full volume all the same.
"""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..protocol.refusals import StorageFull
from .folder import OURS

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RESERVE = OURS + ".reserve"
RESERVE_BYTES = 4 * 1024 * 1024  # a write-ahead log of SQLite at its usual checkpoint of 1,000 pages
LEAST_RESERVE_BYTES = 128 * 1024  # with less SQLite cannot even be opened: its log and the log's index need 70 KiB
LOOK_BYTES = 16 * 1024 * 1024  # written by this process between two looks, all uploads together
LOOK_SHARE = 64  # or one part in so many of what is free, which is more on a volume that is far from full


class Room:
    """How much may still be written. Called in threads; each call but allow() and give_back() asks the volume."""

    def __init__(self, min_free: int) -> None:
        self._min_free = min_free  # bytes; 0: the volume is filled to the last block
        self._lock = threading.Lock()
        self._allowed = 0  # bytes that may be written before the next look
        self._promised = 0  # bytes that copies under way will still write

    def look(self, fd: int) -> None:
        """Look at the free space of the volume that has fd. Raises StorageFull when it is below what must stay free."""
        if not self._min_free:
            return
        spare = self._spare(fd)
        with self._lock:
            self._allowed = min(spare, max(LOOK_BYTES, spare // LOOK_SHARE))
        if spare <= 0:
            raise no_room_left()

    def allow(self, fd: int, size: int) -> int:
        """Return how many of size bytes may be written to fd now, at least one. Raises StorageFull."""
        if not self._min_free:
            return size
        if self._allowed <= 0:
            self.look(fd)
        with self._lock:
            allowed = max(1, min(size, self._allowed))
            self._allowed -= allowed
        return allowed

    def give_back(self, size: int) -> None:
        """Take back what was allowed and not written, in bytes."""
        with self._lock:
            self._allowed += size

    def check(self, fd: int, more: int) -> None:
        """Raise StorageFull when the volume that has fd has no room for that many more bytes."""
        if self._min_free and self._spare(fd) < more:
            raise no_room_left()

    @contextmanager
    def promise(self, fd: int, size: int) -> Iterator["Promise"]:
        """Keep room for size bytes that a copy will write, for the length of the block. Raises StorageFull."""
        spare = self._spare(fd)
        with self._lock:
            if spare - self._promised < size:
                raise no_room_left()
            self._promised += size
        promise = Promise(self, size)
        try:
            yield promise
        finally:
            promise.kept(promise.left)

    def _spare(self, fd: int) -> int:
        """Return the free bytes above what must stay free; without end where the file system does not say."""
        found = os.fstatvfs(fd)
        return found.f_bavail * found.f_frsize - self._min_free if found.f_blocks else 2**63

    def _kept(self, size: int) -> None:
        with self._lock:
            self._promised -= size


class Promise:
    """Room that is kept for one copy."""

    def __init__(self, room: Room, size: int) -> None:
        self.left = size  # bytes
        self._room = room

    def kept(self, size: int) -> None:
        """That many more bytes are written, and counted by the volume itself."""
        size = min(size, self.left)
        self.left -= size
        self._room._kept(size)


def no_room_left() -> StorageFull:
    """Return the refusal of what would take the space that must stay free."""
    return StorageFull("The volume is nearly full; what was acknowledged is safe, resume when there is room again")


def give_back_reserve(folder: int) -> bool:
    """Free the reserve; return whether there was one. Raises OSError."""
    try:
        os.unlink(RESERVE, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def keep_reserve(folder: int) -> bool:
    """Make the reserve, or what there is room for; return whether all of it is there. Raises OSError.

    It may take what must stay free of uploads: that is kept for the ledger as well, but others do not know it.
    """
    has = 0
    with suppress(FileNotFoundError):
        has = os.stat(RESERVE, dir_fd=folder, follow_symlinks=False).st_size
    found = os.fstatvfs(folder)
    size = min(RESERVE_BYTES, has + found.f_bavail * found.f_frsize * 3 // 4)
    if size <= has or size < LEAST_RESERVE_BYTES:
        return has >= RESERVE_BYTES
    fd = os.open(RESERVE, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660, dir_fd=folder)
    try:
        os.posix_fallocate(fd, 0, size)
        return size >= RESERVE_BYTES
    except OSError as exc:
        if exc.errno in NO_ROOM:
            return False
        raise
    finally:
        os.close(fd)
