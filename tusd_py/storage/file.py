"""Uploads as files: FOLDER/<id> holds the bytes, FOLDER/<id>.info is the sidecar.

Every write is positional and nothing truncates on open: a frozen former holder that wakes up there would cut off what
its successor wrote. System calls run in a small thread pool, for a volume may take seconds to answer.
"""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiofiles

from ..protocol.fields import is_upload_id
from ..protocol.fileinfo import build_sidecar, parse_sidecar
from ..protocol.refusals import StorageFull
from ..protocol.upload import Upload
from ..threads import Threads
from .posix import copy_all, is_stray, make_safe, open_file, remove, size_of, write_at, write_sidecar

THREADS = 16  # a few stuck writes leave room for the others
SIDECAR = ".info"
SMALL = 64 * 1024  # bytes; not worth a turn of a thread of their own
SECOND_LOOK_S = 0.2  # a network file system may show an old size for a moment after another client's write

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

T = TypeVar("T")


class FileStorage:
    """ports.Storage in one folder, which several hosts may share."""

    def __init__(self, folder: Path, *, durable: bool, locking: bool = True) -> None:
        """durable: bytes and names are flushed to the disk before anyone hears that they are safe.

        locking: the open file of an upload is locked against other writers, on this host and on others.
        """
        self._folder = folder.resolve()
        self.durable = durable
        self.locking = locking
        self._threads = Threads(THREADS, "tusd_py-storage")

    async def open(self, upload: Upload, guard: Callable[[], None]) -> "FileWriter":
        writer = FileWriter(self, upload, guard)
        if upload.offset:  # at 0 there is nothing to look at, and one turn of a thread may do for the whole upload
            try:
                await writer.look()
            except BaseException:
                await writer.close()
                raise
        return writer

    async def concatenate(self, upload: Upload, parts: Sequence[str]) -> None:
        target, sources = self.path(upload.id), [self.path(part) for part in parts]

        def call() -> None:
            copy_all(target, sources, upload.offset, durable=self.durable)
            self.note(upload, new=True, durable=self.durable)

        await self.run(call)

    async def remove(self, upload_id: str) -> None:
        await self.run(lambda: remove(self.path(upload_id), self._sidecar(upload_id)))

    def path(self, upload_id: str) -> Path:
        return self._folder / upload_id

    def describe(self, upload_id: str) -> Mapping[str, str]:
        path = str(self.path(upload_id))
        return {"Type": "filestore", "Path": path, "InfoPath": path + SIDECAR}

    async def ids(self) -> list[str]:
        names = await self.run(lambda: os.listdir(self._folder))
        return sorted({upload_id for name in names if is_upload_id(upload_id := name.partition(".")[0])})

    async def read(self, upload_id: str) -> Upload:
        sidecar = self._sidecar(upload_id)
        try:
            async with aiofiles.open(sidecar) as file:
                text = await file.read()
                changed_at = os.fstat(file.fileno()).st_mtime
            size = await self.run(lambda: size_of(self.path(upload_id)))
        except FileNotFoundError as exc:
            raise ValueError(f"{exc.filename} is missing") from exc
        upload = parse_sidecar(text, size, changed_at)
        if upload.id != upload_id:
            raise ValueError(f"{sidecar} tells of {upload.id}")
        return upload

    async def is_stray(self, upload_id: str, older_than_s: float) -> bool:
        before = time.time() - older_than_s
        return await self.run(lambda: is_stray(self.path(upload_id), self._sidecar(upload_id), before))

    def close(self) -> None:
        """Wait for the calls that are under way and end the threads."""
        self._threads.close()

    def _sidecar(self, upload_id: str) -> Path:
        return self._folder / (upload_id + SIDECAR)

    def note(self, upload: Upload, *, new: bool, durable: bool) -> None:
        """Write the sidecar, or bring it up to date. Blocks."""
        text = build_sidecar(upload, self.describe(upload.id))
        write_sidecar(self._sidecar(upload.id), text.encode(), new=new, durable=durable)

    def run(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Return what call returns or raises, in a thread; StorageFull for the errors that mean it."""

        def told() -> T:
            try:
                return call()
            except OSError as exc:
                raise no_room(exc) from exc

        return self._threads.run(told)


class FileWriter:
    """ports.Writer on one locked file, which is opened by the first call that needs it."""

    def __init__(self, storage: FileStorage, upload: Upload, guard: Callable[[], None]) -> None:
        self.offset = upload.offset
        self._storage = storage
        self._upload = upload
        self._fd: int | None = None
        self._guard = guard
        self._grown: Callable[[], None] | None = None
        self._held: list[bytes] = []  # the last pieces, not written yet; they end at offset
        self._is_noted = upload.offset > 0  # by a sidecar that survives a host's crash
        self._under_way: set[asyncio.Future[Any]] = set()

    async def look(self) -> None:
        """Take the offset back where the file is shorter. Raises UploadLocked, UploadNotFound."""
        if await self._call(lambda: os.fstat(self._file()).st_size) < self.offset:
            await asyncio.sleep(SECOND_LOOK_S)
            size = await self._call(lambda: size_of(self._storage.path(self._upload.id)))
            self.offset = min(self.offset, size)

    async def write(self, pieces: list[bytes], *, last: bool = False) -> None:
        self._guard()
        offset, length = self.offset, sum(map(len, pieces))
        if last and length <= SMALL:
            self._held = pieces  # one turn of a thread for them and for the flush behind them
        else:
            await self._call(lambda: write_at(self._begun(), pieces, offset))
        self.offset = offset + length
        if self._grown and not last:
            self._grown()

    async def pull(self, pump: Callable[[int, int], int]) -> int:
        """Let pump put bytes into the file in a thread; return how many. The way of a body that the kernel carries.

        pump gets a descriptor and an offset and returns how many bytes it put there. Raises what it raises, LeaseLost,
        StorageFull.
        """
        self._guard()
        offset = self.offset
        moved = await self._call(lambda: pump(self._begun(), offset))
        self.offset = offset + moved
        if moved and self._grown:
            self._grown()
        return moved

    def when_grown(self, call: Callable[[], None]) -> None:
        self._grown = call

    async def flush(self) -> int:
        upload = self._upload.at(self.offset, expires_at=None)
        if self._fd is not None or self._held:  # else there is nothing, or the first write is under way
            await self._behind_held(lambda fd: self._make_safe(fd, upload, cut=False))
        return upload.offset

    async def finish(self) -> None:
        self._guard()
        upload = self._upload.at(self.offset, expires_at=None)
        if self._fd is None and not self._held and not upload.is_complete:
            return

        def last(fd: int) -> None:
            self._make_safe(fd, upload, cut=upload.is_complete)
            self._let_go()

        await self._behind_held(last)

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
            path = self._storage.path(self._upload.id)
            self._fd = open_file(path, locking=self._storage.locking, create=self._upload.offset == 0)
            self._guard()  # whoever was frozen before the lock leaves no sidecar to his successor
        return self._fd

    def _begun(self) -> int:
        """Return the open and locked file of a body that is longer: its sidecar comes first, while there is room."""
        is_open = self._fd is not None
        fd = self._file()
        if not is_open:
            self._storage.note(self._upload, new=True, durable=False)
        return fd

    def _make_safe(self, fd: int, upload: Upload, *, cut: bool) -> None:
        make_safe(fd, upload.offset if cut else None, durable=self._storage.durable)
        # Not before the bytes are safe; before the record, for whoever recovers it may believe this. That an upload is
        # complete is for finish() to tell: the body may turn out to be too long.
        if cut == upload.is_complete:
            self._storage.note(upload, new=not self._is_noted, durable=self._storage.durable)
            self._is_noted = True

    def _let_go(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)  # the lock goes with it

    async def _behind_held(self, call: Callable[[int], None]) -> None:
        """Write what is held, then call, both in one turn of a thread. Raises StorageFull, with nothing more held."""
        held, self._held = self._held, []
        offset = self.offset - sum(map(len, held))

        def run() -> None:
            fd = self._file()
            if held:
                self._guard()
                write_at(fd, held, offset)
            call(fd)

        try:
            await self._call(run)
        except BaseException:
            if held:  # without any, other writes may have moved it on meanwhile
                self.offset = offset
            raise

    async def _call(self, call: Callable[[], T]) -> T:
        running = self._storage.run(call)
        self._under_way.add(running)
        running.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await settled(running)  # descriptors that the call uses may be closed once we are gone
            raise


async def settled(running: "asyncio.Future[Any]") -> None:
    """Return when running is done, however often we are cancelled meanwhile."""
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running])


def no_room(exc: OSError) -> Exception:
    """Return StorageFull for the errors that mean it, the error itself for the others."""
    if exc.errno in _NO_ROOM:
        return StorageFull("The volume is full; what was acknowledged is safe, resume when there is room again")
    return exc
