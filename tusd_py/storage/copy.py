"""Concatenation: one file made of others, without the bytes passing through this process.

It may take minutes, so it can be interrupted between two blocks, and whatever fails frees what was copied. Each
function blocks as long as the volume does; folder is a descriptor of the upload folder.
"""

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..ports import LeaseLost
from ..protocol.refusals import UploadLocked, UploadNotFound
from ..protocol.upload import Upload
from .files import Files
from .posix import gone, make_safe, open_file, remove
from .sidecar import open_to_read

COPY_BYTES = 64 * 1024 * 1024  # between two looks at the lease; 3 s at 20 MB/s, well below a lease

_CANNOT_COPY = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def copy_all(files: Files, folder: int, upload: Upload, parts: Sequence[str], guard: Callable[[], None]) -> None:
    """Make a complete upload of the bytes of its parts, in order.

    What an earlier try left under its name is overwritten. Where the file system can (XFS, Btrfs), the kernel shares
    the blocks instead of copying them. Raises what guard raises before a block is copied; StorageFull, before anything
    is copied where that is known; UploadLocked; UploadNotFound when the parts do not have its length together; OSError.
    """
    sizes = [part_size(folder, part) for part in parts]
    if sum(sizes) != upload.offset:
        raise UploadNotFound(
            f"The parts have {sum(sizes)} bytes, their records say {upload.offset}; start a new upload"
        )
    start = upload.at(0, expires_at=None)
    with files.room.promise(folder, max(0, upload.offset - allocated(folder, upload.id))) as promise:
        guard()
        is_new = files.begin(folder, start)
        out = open_file(folder, upload.id, locking=files.locking, create=True)
        try:
            if not is_the_file(folder, upload.id, out):
                raise UploadLocked(f"The upload {upload.id} is just being removed; try again")
            try:
                guard()
                if not is_new:
                    files.note(folder, start, sync=False)
                offset = 0
                for part, size in zip(parts, sizes, strict=True):
                    offset = copy_part(folder, part, size, out, offset, guard, promise.kept)
                make_safe(out, upload.offset, durable=files.durable)
                guard()
                files.note(folder, upload, sync=files.durable)
            except BaseException as exc:
                # Under the lock. Without locks, whoever has the lease now may be writing to it already.
                if files.locking or not isinstance(exc, LeaseLost):
                    remove(folder, upload.id)
                raise
        finally:
            os.close(out)


def copy_part(
    folder: int,
    source: str,
    size: int,
    out: int,
    offset: int,
    guard: Callable[[], None],
    copied: Callable[[int], None],
) -> int:
    """Copy size bytes of the source to offset in out; return the offset behind them. Raises OSError, UploadNotFound."""
    fd = open_part(folder, source)
    try:
        at = 0
        while at < size:
            guard()
            moved = copy_some(fd, at, out, offset + at, min(COPY_BYTES, size - at))
            if not moved:
                raise UploadNotFound(f"The part {source} has {at} bytes, it had {size}; start a new upload")
            copied(moved)
            at += moved
        return offset + at
    finally:
        os.close(fd)


def copy_some(fd: int, at: int, out: int, offset: int, count: int) -> int:
    """Copy count bytes from one place to the other; return how many, 0 at the end. Raises OSError."""
    try:
        return os.copy_file_range(fd, out, count, at, offset)
    except OSError as exc:
        if exc.errno not in _CANNOT_COPY:
            raise
        os.lseek(out, offset, os.SEEK_SET)
        return os.sendfile(out, fd, at, count)  # some network file systems cannot copy by themselves


def open_part(folder: int, source: str) -> int:
    """Return a descriptor of a part. Raises UploadNotFound, OSError."""
    try:
        return open_to_read(folder, source)
    except (FileNotFoundError, ValueError):
        raise gone(source) from None


def part_size(folder: int, source: str) -> int:
    """Return the bytes of a part through a fresh descriptor. Raises UploadNotFound, OSError."""
    fd = open_part(folder, source)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def allocated(folder: int, name: str) -> int:
    """Return the bytes that a file has on the disk already: an earlier try need not find room again."""
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_blocks * 512
    return 0


def is_the_file(folder: int, name: str, fd: int) -> bool:
    """Return whether the name is that of the open file: an earlier try may have removed it while we waited."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(fd))
    return False
