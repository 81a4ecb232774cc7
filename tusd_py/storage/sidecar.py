"""The file <id>.info: made before the file with the bytes, then kept up to date in place.

With the mark in it, whatever a crash leaves can be told from the files of others. Each function blocks as long as the
volume does; folder is a descriptor of the upload folder.
"""

import errno
import os
import stat

from .folder import SIDECAR

SPARE = 48  # blanks at the end, for an offset and a length to grow in place
LARGEST = 1024 * 1024  # bytes; with 16 KiB of metadata and 1,000 parts it has a fifth of that


def create_sidecar(folder: int, upload_id: str, text: bytes) -> bool:
    """Make a sidecar; return False when there is one, which stays as it is. Raises OSError.

    A former holder that was frozen and wakes up must not overwrite what its successor wrote.
    """
    name, text = upload_id + SIDECAR, text + b" " * SPARE
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660, dir_fd=folder)
    except FileExistsError:
        return False
    try:
        write_whole(fd, text, name)
    except BaseException:
        os.unlink(name, dir_fd=folder)  # without the mark nobody would know whose it is
        raise
    finally:
        os.close(fd)
    return True


def update_sidecar(folder: int, upload_id: str, text: bytes, *, sync: bool) -> None:
    """Write the text in place; one write does it, so that whoever reads sees the old text or the new one.

    sync: it and the names of both files survive a host's crash. What was removed does not come back. Raises OSError.
    """
    name = upload_id + SIDECAR
    try:
        fd = os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        write_whole(fd, text.ljust(os.fstat(fd).st_size), name)
        if sync:
            os.fdatasync(fd)
    finally:
        os.close(fd)
    if sync:
        os.fsync(folder)


def write_whole(fd: int, text: bytes, name: str) -> None:
    """Write the text from the start of the file. Raises OSError, also when only a part of it found room."""
    if os.pwrite(fd, text, 0) < len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


def open_to_read(folder: int, name: str) -> int:
    """Return a descriptor of a regular file to read from. Raises ValueError for everything else there is, OSError.

    It waits for nobody at the other end of a pipe, follows no link and wakes no device.
    """
    kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if not stat.S_ISREG(kind):
        raise ValueError(f"{name} is {kind_of(kind)}, not a regular file")
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind):  # exchanged since
        os.close(fd)
        raise ValueError(f"{name} is {kind_of(kind)}, not a regular file")
    return fd


def kind_of(mode: int) -> str:
    """Return what a file is that is not a regular one."""
    return {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }.get(stat.S_IFMT(mode), "a device")
