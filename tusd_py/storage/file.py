"""Uploads as files: FOLDER/<id> holds the bytes, FOLDER/<id>.info is the sidecar.

Every write is positional and nothing truncates on open: a frozen former holder that wakes up there would cut off what
its successor wrote. System calls run in a small thread pool, for a volume may take seconds to answer.
"""

import asyncio
import errno
import fcntl
import os
import struct
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiofiles

from ..protocol.fields import is_upload_id
from ..protocol.fileinfo import build_sidecar, parse_sidecar
from ..protocol.refusals import StorageFull, UploadLocked, UploadNotFound
from ..protocol.upload import Upload

THREADS = 16  # a few stuck writes leave room for the others
SPARE = 48  # blanks at the end of a sidecar, for an offset and a length to grow in place
COPY_BYTES = 256 * 1024 * 1024  # a call that shares blocks takes no longer for more
SECOND_LOOK_S = 0.2  # a network file system may show an old size for a moment after another client's write

# struct flock: l_type, l_whence, l_start, l_len (0: to the end, however far it grows), l_pid (0 for OFD locks)
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

T = TypeVar("T")
Run = Callable[[Callable[[], T]], Awaitable[T]]


class FileStorage:
    """ports.Storage in one folder, which several hosts may share."""

    def __init__(self, folder: Path, *, durable: bool, locking: bool = True) -> None:
        """durable: bytes and names are flushed to the disk before anyone hears that they are safe.

        locking: the open file of an upload is locked against other writers, on this host and on others.
        """
        self._folder = folder.resolve()
        self._durable = durable
        self._locking = locking
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="tusd_py-storage")

    async def create(self, upload: Upload) -> None:
        await self._run(lambda: os.close(os.open(self.path(upload.id), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o660)))
        await self._write_sidecar(upload)
        if self._durable:
            await self._run(lambda: sync_folder(self._folder))

    async def open(self, upload: Upload, guard: Callable[[], None]) -> "FileWriter":
        fd = await self._run(lambda: open_file(self.path(upload.id), locking=self._locking))
        try:
            offset = upload.offset
            if await self._run(lambda: os.fstat(fd).st_size) < offset:
                await asyncio.sleep(SECOND_LOOK_S)
                offset = min(offset, await self._run(lambda: size_of(self.path(upload.id))))
        except BaseException:
            os.close(fd)
            raise
        return FileWriter(self, fd, offset, guard, durable=self._durable)

    async def concatenate(self, upload: Upload, parts: Sequence[str]) -> None:
        target, sources = self.path(upload.id), [self.path(part) for part in parts]
        await self._run(lambda: copy_all(target, sources, upload.offset, durable=self._durable))
        await self._write_sidecar(upload)
        if self._durable:
            await self._run(lambda: sync_folder(self._folder))

    async def remove(self, upload_id: str) -> None:
        # The bytes first: a sidecar without bytes is seen for what it is, bytes without a sidecar are anybody's.
        await self._run(lambda: self.path(upload_id).unlink(missing_ok=True))
        await self._run(lambda: self._sidecar(upload_id).unlink(missing_ok=True))

    def path(self, upload_id: str) -> Path:
        return self._folder / upload_id

    def describe(self, upload_id: str) -> Mapping[str, str]:
        return {
            "Type": "filestore",  # tusd's name for it
            "Path": str(self.path(upload_id)),
            "InfoPath": str(self._sidecar(upload_id)),
        }

    async def ids(self) -> list[str]:
        names = await self._run(lambda: os.listdir(self._folder))
        return sorted({name.removesuffix(".info") for name in names if is_upload_id(name.removesuffix(".info"))})

    async def read(self, upload_id: str) -> Upload:
        sidecar = self._sidecar(upload_id)
        try:
            async with aiofiles.open(sidecar, executor=self._pool) as file:
                text = await file.read()
                changed_at = os.fstat(file.fileno()).st_mtime
            size = await self._run(lambda: size_of(self.path(upload_id)))
        except FileNotFoundError as exc:
            raise ValueError(f"{exc.filename} is missing") from exc
        upload = parse_sidecar(text, size, changed_at)
        if upload.id != upload_id:
            raise ValueError(f"{sidecar} tells of {upload.id}")
        return upload

    async def is_stray(self, upload_id: str, older_than_s: float) -> bool:
        before = time.time() - older_than_s
        return await self._run(lambda: is_stray(self.path(upload_id), self._sidecar(upload_id), before))

    async def note(self, upload: Upload) -> None:
        """Bring the sidecar up to what was recorded."""
        text = build_sidecar(upload, self.describe(upload.id))
        await self._run(lambda: rewrite(self._sidecar(upload.id), text.encode()))

    async def _write_sidecar(self, upload: Upload) -> None:
        sidecar = self._sidecar(upload.id)
        text = build_sidecar(upload, self.describe(upload.id))
        # Written aside and renamed: a reader sees the old text or the new one, never half of it.
        aside = sidecar.with_suffix(".info.new")
        try:
            async with aiofiles.open(aside, "w", executor=self._pool) as file:
                await file.write(text.ljust(len(text) + SPARE))
                await file.flush()
                if self._durable:
                    await self._run(lambda: os.fdatasync(file.fileno()))
        except OSError as exc:
            raise no_room(exc) from exc
        await self._run(lambda: aside.replace(sidecar))

    def close(self) -> None:
        """Wait for the calls that are under way and end the threads."""
        self._pool.shutdown()

    def _sidecar(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.info"

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        except OSError as exc:
            raise no_room(exc) from exc


class FileWriter:
    """ports.Writer on one open and locked file."""

    def __init__(
        self,
        storage: FileStorage,
        fd: int,
        offset: int,
        guard: Callable[[], None],
        *,
        durable: bool,
    ) -> None:
        self.offset = offset
        self._storage = storage
        self._fd = fd
        self._guard = guard
        self._grown: Callable[[], None] | None = None
        self._durable = durable
        self._under_way: set[asyncio.Future[Any]] = set()
        self._closed = False

    async def write(self, pieces: list[bytes]) -> None:
        self._guard()
        offset = self.offset
        await self._call(lambda: write_at(self._fd, pieces, offset))
        self.offset = offset + sum(map(len, pieces))
        if self._grown:
            self._grown()

    async def pull(self, pump: Callable[[int, int], int]) -> int:
        """Let pump put bytes into the file in a thread; return how many. The way of a body that the kernel carries.

        pump gets a descriptor and an offset and returns how many bytes it put there. Raises what it raises, LeaseLost,
        StorageFull.
        """
        self._guard()
        offset = self.offset
        moved = await self._call(lambda: pump(self._fd, offset))
        self.offset = offset + moved
        if moved and self._grown:
            self._grown()
        return moved

    def when_grown(self, call: Callable[[], None]) -> None:
        self._grown = call

    async def flush(self) -> int:
        offset = self.offset
        if self._durable:
            await self._call(lambda: os.fdatasync(self._fd))
        return offset

    async def finish(self, length: int) -> None:
        self._guard()
        await self._call(lambda: cut_to(self._fd, length, durable=self._durable))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # A descriptor that is closed under a running write would be reused, and the bytes land in another upload.
        for running in list(self._under_way):
            await settled(running)
        os.close(self._fd)  # the lock goes with it

    async def note(self, upload: Upload) -> None:
        await self._storage.note(upload)

    async def _call(self, call: Callable[[], T]) -> T:
        running = asyncio.ensure_future(self._storage._run(call))
        self._under_way.add(running)
        running.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await settled(running)  # descriptors that the call uses may be closed once we are gone
            raise


def check_locks(folder: Path) -> None:
    """Raise OSError when files in the folder cannot be locked, ValueError when their locks keep nobody out."""
    trial = folder / f".lock-trial-{os.getpid()}"
    try:
        trial.touch()
        first = open_file(trial, locking=True)
        try:
            os.close(open_file(trial, locking=True))
        except UploadLocked:
            return
        finally:
            os.close(first)
        raise ValueError("locks keep nobody out")
    finally:
        trial.unlink(missing_ok=True)


async def settled(running: "asyncio.Future[Any]") -> None:
    """Return when running is done, however often we are cancelled meanwhile."""
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running])


def open_file(path: Path, *, locking: bool) -> int:
    """Return a descriptor to write to, with the exclusive lock on the file. Raises UploadNotFound or UploadLocked."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise gone(path) from None
    if not locking:
        return fd
    try:
        # An open-file-description lock belongs to this descriptor: other threads and processes are kept out alike,
        # and a holder that was frozen between its check and its write still has it.
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, by file system
        os.close(fd)
        raise UploadLocked(f"The file of the upload {path.name} is still open elsewhere; try again") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def gone(path: Path) -> UploadNotFound:
    """Return the refusal for an upload whose file somebody took away."""
    return UploadNotFound(f"The bytes of the upload {path.name} are gone; start a new upload")


def write_at(fd: int, pieces: list[bytes], offset: int) -> None:
    """Write all the pieces at offset. Raises OSError."""
    done = os.pwritev(fd, pieces, offset)
    total = sum(map(len, pieces))
    if done < total:  # a signal, or a disk that is nearly full: the second try tells which
        rest = memoryview(b"".join(pieces))
        while done < total:
            done += os.pwrite(fd, rest[done:], offset + done)


def cut_to(fd: int, length: int, *, durable: bool) -> None:
    """Drop what a former holder may have left behind length. Raises OSError."""
    if os.fstat(fd).st_size != length:
        os.ftruncate(fd, length)
        if durable:
            os.fsync(fd)  # fdatasync need not keep a size that shrank


def copy_all(target: Path, sources: Sequence[Path], length: int, *, durable: bool) -> None:
    """Make target of the bytes of the sources, in order, without them passing through this process.

    Where the file system can (XFS, Btrfs), the kernel shares the blocks instead of copying them. Raises OSError, and
    UploadNotFound when the sources do not have length bytes together.
    """
    out = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o660)
    try:
        copied = 0
        for source in sources:
            try:
                fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise gone(source) from None
            try:
                while moved := copy_some(fd, out):
                    copied += moved
            finally:
                os.close(fd)
        if copied != length:
            raise UploadNotFound(f"The parts have {copied} bytes, their records tell {length}; start a new upload")
        if durable:
            os.fdatasync(out)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        os.close(out)


def copy_some(fd: int, out: int) -> int:
    """Copy from one descriptor to the other where they stand; return how many bytes, 0 at the end. Raises OSError."""
    try:
        return os.copy_file_range(fd, out, COPY_BYTES)
    except OSError as exc:
        if exc.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return os.sendfile(out, fd, None, COPY_BYTES)  # some network file systems cannot copy by themselves


def is_stray(path: Path, sidecar: Path, before: float) -> bool:
    """Return whether the files are older than before (Unix seconds) and nothing is in them. Raises OSError.

    A sidecar is there before a record is, and bytes come after both: what lacks one of them never was an upload.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return sidecar.stat().st_mtime < before
    return found.st_mtime < before and (found.st_size == 0 or not sidecar.exists())


def rewrite(path: Path, text: bytes) -> None:
    """Replace the text of a file in place, if it is still there: one that was removed does not come back.

    The text ends in blanks as before, so that one write does it: whoever reads sees the old text or the new one.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.pwrite(fd, text.ljust(os.fstat(fd).st_size), 0)
    finally:
        os.close(fd)


def size_of(path: Path) -> int:
    """Return the size of a file through a fresh descriptor, in bytes: stat() on a network file system may be old."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a crash."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def no_room(exc: OSError) -> Exception:
    """Return StorageFull for the errors that mean it, the error itself for the others."""
    if exc.errno in _NO_ROOM:
        return StorageFull("The volume is full; what was acknowledged is safe, resume when there is room again")
    return exc
