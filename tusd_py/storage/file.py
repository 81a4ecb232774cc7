"""Uploads as files: FOLDER/<id> holds the bytes, FOLDER/<id>.info is the sidecar.

System calls run in a small thread pool, for a volume may take seconds to answer. Nothing is removed but regular files
of an upload that is known to be ours.
"""

import asyncio
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import aiofiles

from ..ports import Listing
from ..protocol.fields import is_upload_id
from ..protocol.fileinfo import Sidecar, parse_sidecar
from ..protocol.refusals import VolumeAway
from ..protocol.upload import Upload
from ..threads import settled
from .copy import copy_all
from .files import Files
from .folder import SIDECAR, has_uploads, list_folder
from .posix import gone, remove
from .room import give_back_reserve, keep_reserve
from .sidecar import LARGEST, open_to_read
from .writer import FileWriter

# The volume is in trouble, or this process is; every other error is about one entry of the folder.
_TROUBLE = (
    errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
)  # fmt: skip

log = logging.getLogger("tusd_py")


class FileStorage:
    """ports.Storage in one folder, which several hosts may share."""

    def __init__(self, folder: Path, *, durable: bool, locking: bool = True, min_free: int = 0) -> None:
        """durable: bytes and names are flushed to the disk before anyone hears that they are safe.

        locking: the open file of an upload is locked against other writers, on this host and on others.
        min_free: bytes of the volume that uploads do not fill.
        """
        self._files = Files(folder.resolve(), durable=durable, locking=locking, min_free=min_free)
        self._is_reserve_kept = True  # until it was given back
        self._seen_at = self._roomy_at = float("-inf")  # monotonic seconds; when the last look found all well

    async def open(self, upload: Upload, guard: Callable[[], None]) -> FileWriter:
        writer = FileWriter(self._files, upload, guard)
        if upload.offset:  # at 0 there is nothing to look at, and one turn of a thread may do for the whole upload
            try:
                await writer.look()
            except BaseException:
                await writer.close()
                raise
        return writer

    async def concatenate(self, upload: Upload, parts: Sequence[str], guard: Callable[[], None]) -> None:
        if parts and await self._has(upload):
            return
        interrupted = threading.Event()

        def checked() -> None:
            if interrupted.is_set():
                raise InterruptedError
            guard()

        def call() -> None:
            with self._files.folder.open() as folder:
                copy_all(self._files, folder, upload, parts, checked)

        running = self._files.copy(call) if parts else self._files.run(call)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            interrupted.set()
            await settled(running)
            raise

    async def remove(self, upload_id: str) -> None:
        if removed := await self._files.in_folder(lambda folder: remove(folder, upload_id)):
            log.info("removed %s", " and ".join(removed))
            if not self._is_reserve_kept:  # at once: somebody else fills the volume, and takes what was freed
                await self.keep_reserve()

    async def size(self, upload_id: str) -> int:
        try:
            found = await self._bytes(upload_id)
        except ValueError:
            found = None
        if found is None:
            raise gone(upload_id)
        return found.st_size

    def path(self, upload_id: str) -> Path:
        return self._files.path(upload_id)

    def describe(self, upload_id: str) -> Mapping[str, str]:
        return self._files.describe(upload_id)

    async def listing(self) -> Listing:
        return await self._files.in_folder(list_folder)

    async def read(self, upload_id: str) -> Sidecar:
        text, changed_at = await self._text(upload_id)
        found = await self._bytes(upload_id)
        if found is None:
            raise ValueError(f"{upload_id} is missing")
        sidecar = parse_sidecar(text, found.st_size, changed_at)
        if sidecar.upload.id != upload_id:
            raise ValueError(f"{upload_id}{SIDECAR} is about {sidecar.upload.id}")
        if sidecar.upload.is_final and not sidecar.upload.is_complete:
            raise ValueError(f"{upload_id} is a concatenation that did not end; the client has to repeat it")
        return sidecar

    async def is_stray(self, upload_id: str, older_than_s: float) -> bool:
        before = time.time() - older_than_s
        try:
            text, changed_at = await self._text(upload_id)
            found = await self._bytes(upload_id)
            sidecar = parse_sidecar(text, 0, changed_at)
        except ValueError:
            return False
        upload = sidecar.upload
        if not sidecar.is_ours or upload.id != upload_id or sidecar.acknowledged or upload.is_complete:
            return False
        # A concatenation that did not end has bytes, and they are a copy of what the parts have.
        empty = found is None or (found.st_mtime < before and (found.st_size == 0 or upload.is_final))
        return empty and changed_at < before

    async def identity(self) -> str | None:
        return await self._files.run(self._files.folder.identity)

    async def claim(self) -> str:
        return await self._files.run(self._files.folder.claim)

    async def has_uploads(self) -> bool:
        return await self._files.in_folder(has_uploads)

    async def check(self, *, within_s: float = 0.0) -> None:
        if time.monotonic() - self._seen_at >= within_s:
            await self._files.in_folder(lambda folder: None)
            self._seen_at = time.monotonic()

    async def check_room(self, more: int = 0, *, within_s: float = 0.0) -> None:
        if time.monotonic() - self._roomy_at >= within_s:
            await self._files.in_folder(lambda folder: self._files.room.check(folder, more))
            self._roomy_at = self._seen_at = time.monotonic()

    def give_back_reserve(self) -> bool:
        """Free the reserve; return whether there was one. Blocks."""
        self._is_reserve_kept = False
        with suppress(OSError, VolumeAway), self._files.folder.open() as folder:
            return give_back_reserve(folder)
        return False

    async def keep_reserve(self) -> bool:
        self._is_reserve_kept = await self._files.in_folder(keep_reserve)
        return self._is_reserve_kept

    def close(self) -> None:
        """Wait for the calls that are under way and end the threads."""
        self._files.close()

    async def _has(self, upload: Upload) -> bool:
        """Return whether an earlier try has made this concatenation, and its answer was lost."""
        with suppress(ValueError):
            sidecar = await self.read(upload.id)
            found = sidecar.upload
            same = (found.offset, found.length, found.concat, found.metadata)
            return sidecar.is_ours and same == (upload.offset, upload.length, upload.concat, upload.metadata)
        return False

    async def _text(self, upload_id: str) -> tuple[str, float]:
        """Return the text of a sidecar and when it was changed, in Unix seconds. Raises ValueError, OSError."""
        name = upload_id + SIDECAR
        if not is_upload_id(upload_id):
            raise ValueError(f"{upload_id[:200]!r} is not the id of an upload")
        try:
            async with aiofiles.open(name, "rb", opener=self._open_to_read) as file:
                data = await file.read(LARGEST + 1)
                changed_at = os.fstat(file.fileno()).st_mtime
        except OSError as exc:
            raise about_one(exc, name) from exc
        if len(data) > LARGEST:
            raise ValueError(f"{name} has more than {LARGEST} bytes")
        try:
            return data.decode(), changed_at
        except UnicodeDecodeError as exc:
            raise ValueError(f"{name} is not UTF-8: {exc.reason} at byte {exc.start}") from None

    async def _bytes(self, upload_id: str) -> os.stat_result | None:
        """Return what is known of the file with the bytes, None without one. Raises ValueError, OSError."""
        try:
            return await self._files.in_folder(lambda folder: fresh_stat(folder, upload_id))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise about_one(exc, upload_id) from exc

    def _open_to_read(self, name: str, flags: int) -> int:
        with self._files.folder.open() as folder:
            return open_to_read(folder, name)


def fresh_stat(folder: int, name: str) -> os.stat_result:
    """Return what is known of a regular file through a fresh descriptor. Raises ValueError, OSError."""
    fd = open_to_read(folder, name)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def about_one(exc: OSError, name: str) -> Exception:
    """Return ValueError for what is wrong with one entry of the folder, the error itself for the others."""
    if exc.errno in _TROUBLE:
        return exc
    return ValueError(f"{name} is missing" if exc.errno == errno.ENOENT else f"{name}: {exc.strerror}")
