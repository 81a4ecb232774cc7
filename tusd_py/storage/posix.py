"""The system calls on an upload's files. Each function blocks as long as the volume does: run it in a thread."""

import errno
import fcntl
import os
import secrets
import stat
import struct
from contextlib import suppress
from pathlib import Path

from ..protocol.refusals import UploadLocked, UploadNotFound, VolumeAway
from .folder import SIDECAR

MOST_PIECES = os.sysconf("SC_IOV_MAX")  # that one pwritev takes; 1,024 on Linux
SMALLEST_BLOCK = 1024  # bytes, on a disk; half of what found no room is tried again down to this

_ODD = (errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV)  # a folder, a link in a circle, a socket, no device

# struct flock: l_type, l_whence, l_start, l_len (0: to the end, however far it grows), l_pid (0 for OFD locks)
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def open_file(folder: int, name: str, *, locking: bool, create: bool = False) -> int:
    """Return a descriptor to write to, with the exclusive lock on the file; folder is a descriptor too.

    Raises UploadNotFound, unless create makes it, or UploadLocked.
    """
    try:
        fd = os.open(name, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o660, dir_fd=folder)
    except FileNotFoundError as exc:
        if create:  # the folder itself was removed after it was opened
            raise VolumeAway() from exc
        raise gone(name) from None
    except OSError as exc:
        if exc.errno in _ODD:
            raise gone(name) from exc
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise gone(name)
        if locking:
            # An open-file-description lock belongs to this descriptor: other threads and processes are kept out alike,
            # and a holder that was frozen between its check and its write still has it.
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        return fd
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, by file system
        os.close(fd)
        raise UploadLocked(f"The file of the upload {name} is still open elsewhere; try again") from None
    except BaseException:
        os.close(fd)
        raise


def check_locks(path: Path) -> None:
    """Raise OSError when files in the folder cannot be locked, ValueError when their locks keep nobody out.

    Where there is no room for a file to try it with, they count as right: a full volume must not stop a start.
    """
    trial = f".tusd_py.trial-{secrets.token_hex(8)}"
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        first = open_file(folder, trial, locking=True, create=True)
        try:
            os.close(open_file(folder, trial, locking=True))
        except UploadLocked:
            return
        finally:
            os.close(first)
            os.unlink(trial, dir_fd=folder)
        raise ValueError("locks keep nobody out")
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        os.close(folder)


def remove(folder: int, upload_id: str) -> list[str]:
    """Remove the files of an upload, regular ones only; return the names of those that were there. Raises OSError."""
    removed = []
    # The bytes first: a sidecar without bytes is seen for what it is, bytes without a sidecar are anybody's.
    for name in (upload_id, upload_id + SIDECAR):
        with suppress(FileNotFoundError):
            if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=folder)
                removed.append(name)
    return removed


def gone(upload_id: str) -> UploadNotFound:
    """Return the refusal for an upload whose file somebody took away."""
    return UploadNotFound(f"The bytes of the upload {upload_id} are gone; start a new upload")


def write_at(fd: int, pieces: list[bytes], offset: int, at_most: int) -> int:
    """Write the pieces at offset, at_most bytes of them; return how many bytes found room.

    They are fewer when the volume is full after them; the next call says so. Raises OSError when there are none.
    """
    total = sum(map(len, pieces))
    size = min(at_most, total)
    if size < total or len(pieces) > MOST_PIECES:  # the latter: a trickle that was gathered for a second
        pieces = [b"".join(pieces)[:size]]
    while True:
        try:
            return os.pwritev(fd, pieces, offset)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT) or size <= SMALLEST_BLOCK:
                raise
            # ext4 refuses a whole run of pages when the last of them finds no room, though the first would.
            size //= 2
            pieces = [b"".join(pieces)[:size]]


def make_safe(fd: int, length: int | None, *, durable: bool) -> None:
    """Drop what a former holder may have left behind length, if given, and make the rest safe. Raises OSError."""
    sync = os.fdatasync
    if length is not None and os.fstat(fd).st_size != length:
        os.ftruncate(fd, length)
        sync = os.fsync  # fdatasync need not keep a size that shrank
    if durable:
        sync(fd)


def size_of(folder: int, name: str) -> int:
    """Return the size of a file through a fresh descriptor, in bytes: stat() on a network file system may be old."""
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
