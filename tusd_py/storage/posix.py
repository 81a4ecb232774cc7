"""The system calls on an upload's files. Each function blocks as long as the volume does: run it in a thread."""

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from ..protocol.refusals import UploadLocked, UploadNotFound

SPARE = 48  # blanks at the end of a sidecar, for an offset and a length to grow in place
MOST_PIECES = os.sysconf("SC_IOV_MAX")  # that one pwritev takes; 1,024 on Linux
COPY_BYTES = 256 * 1024 * 1024  # a call that shares blocks takes no longer for more

# struct flock: l_type, l_whence, l_start, l_len (0: to the end, however far it grows), l_pid (0 for OFD locks)
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def open_file(path: Path, *, locking: bool, create: bool = False) -> int:
    """Return a descriptor to write to, with the exclusive lock on the file.

    Raises UploadNotFound, unless create makes it, or UploadLocked.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o660)
    except FileNotFoundError:
        raise gone(path) from None
    try:
        if locking:
            # An open-file-description lock belongs to this descriptor: other threads and processes are kept out alike,
            # and a holder that was frozen between its check and its write still has it.
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        return fd
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, by file system
        os.close(fd)
        raise UploadLocked(f"The file of the upload {path.name} is still open elsewhere; try again") from None
    except BaseException:
        os.close(fd)
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


def write_sidecar(path: Path, text: bytes, *, new: bool, durable: bool) -> None:
    """Write the text of a sidecar in place; one write does it, so that whoever reads sees the old text or the new one.

    A new one ends in blanks, for its numbers to grow; durable: it and the names of both files survive a host's crash.
    One that is not new and was removed does not come back. Raises OSError.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT if new else 0), 0o660)
    except FileNotFoundError:
        return
    try:
        os.pwrite(fd, text.ljust(max(os.fstat(fd).st_size, len(text) + SPARE if new else 0)), 0)
        if new and durable:
            os.fdatasync(fd)
    finally:
        os.close(fd)
    if new and durable:
        sync_folder(path.parent)


def remove(path: Path, sidecar: Path) -> None:
    """Remove everything that belongs to an upload; it may be gone already. Raises OSError."""
    # The bytes first: a sidecar without bytes is seen for what it is, bytes without a sidecar are anybody's.
    path.unlink(missing_ok=True)
    sidecar.unlink(missing_ok=True)


def gone(path: Path) -> UploadNotFound:
    """Return the refusal for an upload whose file somebody took away."""
    return UploadNotFound(f"The bytes of the upload {path.name} are gone; start a new upload")


def write_at(fd: int, pieces: list[bytes], offset: int) -> None:
    """Write all the pieces at offset. Raises OSError."""
    if len(pieces) > MOST_PIECES:  # a trickle that was gathered for a second
        pieces = [b"".join(pieces)]
    done = os.pwritev(fd, pieces, offset)
    total = sum(map(len, pieces))
    if done < total:  # a signal, or a disk that is nearly full: the second try tells which
        rest = memoryview(b"".join(pieces))
        while done < total:
            done += os.pwrite(fd, rest[done:], offset + done)


def make_safe(fd: int, length: int | None, *, durable: bool) -> None:
    """Drop what a former holder may have left behind length, if given, and make the rest safe. Raises OSError."""
    sync = os.fdatasync
    if length is not None and os.fstat(fd).st_size != length:
        os.ftruncate(fd, length)
        sync = os.fsync  # fdatasync need not keep a size that shrank
    if durable:
        sync(fd)


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

    Both are there before a record tells of bytes: what lacks one of them was never acknowledged to anybody.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return sidecar.stat().st_mtime < before
    return found.st_mtime < before and (found.st_size == 0 or not sidecar.exists())


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
