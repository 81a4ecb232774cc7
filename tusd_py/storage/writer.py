"""The open file of one upload.

Every write is positional and nothing truncates on open: a frozen former holder that wakes up there would cut off what
its successor wrote.
"""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ..protocol.refusals import StorageFull
from ..protocol.upload import Upload
from ..threads import completed, settled
from .files import Files, refusal_for
from .posix import make_safe, open_file, size_of, write_at

SMALL = 64 * 1024  # bytes; not worth a turn of a thread of their own
MOST = 128 * 1024 * 1024  # bytes; more than a turn of a thread moves
SECOND_LOOK_S = 0.2  # a network file system may show an old size for a moment after another client's write

T = TypeVar("T")


class FileWriter:
    """ports.Writer and ports.KernelSink on one locked file, which is opened by the first call that needs it."""

    def __init__(self, files: Files, upload: Upload, guard: Callable[[], None]) -> None:
        self.offset = upload.offset
        self._files = files
        self._upload = upload
        self._fd: int | None = None
        self._guard = guard
        self._grown: Callable[[], None] | None = None
        self._held: list[bytes] = []  # the last pieces, not written yet; they end at offset
        self._has_new_sidecar = False  # which acknowledges nothing
        self._has_begun = False  # to write
        self._is_synced = upload.offset > 0  # the sidecar and the names survive a host's crash
        self._safe = upload.offset  # below it, every byte was flushed
        self._lost: OSError | None = None  # why a flush failed
        self._is_full = False  # a write was refused
        self._under_way: set[asyncio.Future[Any]] = set()

    async def look(self) -> None:
        """Take the offset back where the file is shorter. Raises UploadLocked, UploadNotFound."""
        if await self._call(lambda: os.fstat(self._file()).st_size) < self.offset:
            await asyncio.sleep(SECOND_LOOK_S)
            self.offset = min(self.offset, await self._call(self._size))
            self._safe = self.offset

    async def write(self, pieces: list[bytes], *, last: bool = False) -> None:
        self._guard()
        self._check_flushes()
        length = sum(map(len, pieces))
        if last and length <= SMALL:
            self._held = pieces  # one turn of a thread for them and for the flush behind them
            self.offset += length
            return
        while length:
            put = await self._call(partial(self._put, pieces, self.offset))
            self._check_flushes()
            self.offset += put
            pieces, length = behind(pieces, put), length - put  # the next turn says why not all of it was written
        if self._grown and not last:
            self._grown()

    async def pull(self, pump: Callable[[int, int, int], int]) -> int:
        self._guard()
        self._check_flushes()
        moved = await self._call(partial(self._pumped, pump, self.offset))
        self._check_flushes()
        self.offset += moved
        if moved and self._grown:
            self._grown()
        return moved

    def when_grown(self, call: Callable[[], None]) -> None:
        self._grown = call

    async def flush(self) -> int:
        self._check_flushes()
        upload = self._upload.at(self.offset, expires_at=None)
        if self._fd is not None or self._held:  # else there is nothing, or the first write is under way
            await self._behind_held(lambda fd: self._make_safe(fd, upload, cut=False))
        return upload.offset

    async def finish(self) -> int:
        self._guard()
        upload = self._upload.at(self.offset, expires_at=None)
        if self._lost:  # what was flushed before is safe
            await self._call(self._let_go)
            return self._safe
        if self._fd is None and not self._held and not upload.is_complete:
            return upload.offset

        def last(fd: int) -> None:
            self._make_safe(fd, upload, cut=upload.is_complete)
            self._let_go()

        await self._behind_held(last)
        return upload.offset

    async def close(self) -> None:
        # A descriptor that is closed under a running write would be reused, and the bytes land in another upload.
        for running in list(self._under_way):
            await settled(running)
        if self._fd is not None:
            await self._call(self._let_go)  # on NFS it waits for what was written

    # In a thread, one at a time as long as the file is not open

    def _file(self) -> int:
        """Return the open and locked file."""
        if self._fd is None:
            with self._files.folder.open() as folder:
                return self._open(folder)
        return self._fd

    def _open(self, folder: int) -> int:
        create = self._upload.offset == 0
        if create:
            self._guard()
            # Before the file with the bytes: what a crash leaves can be told from the files of others.
            self._has_new_sidecar = self._files.begin(folder, self._upload)
        self._fd = open_file(folder, self._upload.id, locking=self._files.locking, create=create)
        self._guard()  # whoever was frozen before the lock changes nothing of his successor's
        return self._fd

    def _begun(self, offset: int) -> int:
        """Return the open and locked file, ready for the first byte at offset. Raises StorageFull."""
        if self._has_begun and self._fd is not None:
            return self._fd
        with self._files.folder.open() as folder:
            self._files.room.look(folder)
            fd = self._fd if self._fd is not None else self._open(folder)
            if not self._has_new_sidecar:
                # It may be ahead of the record, by bytes that were never acknowledged and are overwritten now.
                self._files.note(folder, self._upload.at(offset, expires_at=None), sync=False)
        self._has_begun = True
        return fd

    def _put(self, pieces: list[bytes], offset: int) -> int:
        """Write the pieces as far as there is room; return how many bytes. Raises StorageFull, OSError for none."""
        fd, size = self._begun(offset), sum(map(len, pieces))
        allowed = self._files.room.allow(fd, size)
        return write_at(fd, pieces, offset, allowed)

    def _pumped(self, pump: Callable[[int, int, int], int], offset: int) -> int:
        fd = self._begun(offset)
        allowed, moved = self._files.room.allow(fd, MOST), 0
        try:
            moved = pump(fd, offset, allowed)
        finally:
            self._files.room.give_back(allowed - moved)
        return moved

    def _size(self) -> int:
        with self._files.folder.open() as folder:
            return size_of(folder, self._upload.id)

    def _make_safe(self, fd: int, upload: Upload, *, cut: bool) -> None:
        # Opened before: what is acknowledged is in the folder that is there, not in one that was removed.
        with self._files.folder.open() as folder:
            try:
                make_safe(fd, upload.offset if cut else None, durable=self._files.durable)
            except OSError as exc:
                # The kernel has dropped what it could not write, and the next flush would say that all is well.
                self._lost = exc
                raise
            self._safe = max(self._safe, upload.offset)
            # Not before the bytes are safe; before the record, for whoever recovers it may believe this. That an upload
            # is complete is for finish() to tell: the body may turn out to be too long.
            if cut == upload.is_complete:
                self._note(folder, upload)

    def _note(self, folder: int, upload: Upload) -> None:
        try:
            self._files.note(folder, upload, sync=self._files.durable and not self._is_synced)
            self._is_synced = True
        except OSError:
            # A file system that never writes in place has no room for the sidecar either. One that is behind is safe.
            if not self._is_full or upload.is_complete:
                raise

    def _let_go(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)  # the lock goes with it

    async def _behind_held(self, call: Callable[[int], None]) -> None:
        """Write what is held, then call, both in one turn of a thread.

        Raises StorageFull, with nothing more held, and the offset behind what found room.
        """
        held, self._held = self._held, []
        offset = self.offset - sum(map(len, held))

        def run() -> None:
            nonlocal offset
            fd, rest = self._file() if not held else self._begun(offset), held
            if rest:
                self._guard()
            while rest:
                put = self._put(rest, offset)
                rest, offset = behind(rest, put), offset + put
            call(fd)

        try:
            await self._call(run)
        except BaseException:
            if self._lost:
                self.offset = self._safe
            elif held:  # without any, other writes may have moved it on meanwhile
                self.offset = offset
            raise

    def _check_flushes(self) -> None:
        """Raise what a flush has raised: what comes behind it does not count."""
        if self._lost:
            self.offset = self._safe
            raise refusal_for(self._lost)

    async def _call(self, call: Callable[[], T]) -> T:
        running = self._files.run(call)
        self._under_way.add(running)
        running.add_done_callback(self._under_way.discard)
        try:
            return await completed(running)  # when this has ended, the descriptors that the call uses may be closed
        except StorageFull:
            self._is_full = True
            raise


def behind(pieces: list[bytes], count: int) -> list[bytes]:
    """Return what is left of the pieces behind that many bytes."""
    rest = b"".join(pieces)[count:] if sum(map(len, pieces)) > count else b""
    return [rest] if rest else []
