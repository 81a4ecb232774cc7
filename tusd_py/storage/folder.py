"""The upload folder: whether it is still the one that the server started with, and what is in it.

An unmounted volume looks like an empty folder. So the folder holds an identity, and every call that opens, makes or
removes a file goes through a descriptor of a folder whose identity was compared: a mount or an unmount between the
comparison and the call changes nothing about where the call goes. Each function blocks as long as the volume does.
"""

import errno
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..ports import Listing, WrongLedger
from ..protocol.fields import is_upload_id
from ..protocol.refusals import VolumeAway

SIDECAR = ".info"
OURS = ".tusd_py"  # what begins with this is no upload, and nobody's but this server's
IDENTITY = OURS + ".folder"
LOOKS, LOOK_S = 20, 0.05  # at an identity that is still empty: whoever makes it has written it within a second

# The folder is there, but this process cannot open one more file.
_OUR_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EACCES)

log = logging.getLogger("tusd_py")

Seen = tuple[int, int, int]  # st_dev, st_ino, st_mtime_ns


class Folder:
    """One folder, by its path and its identity."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity: str | None = None  # of the folder that this process started with
        self._seen: Seen | None = None  # the identity's file when its text was last read
        self._is_away = False

    @contextmanager
    def open(self) -> Iterator[int]:
        """Give a descriptor of the folder for the length of the block. Raises VolumeAway, OSError."""
        try:
            fd = self._open()
        except VolumeAway as exc:
            if not self._is_away:
                self._is_away = True
                log.error("%s: %s; mount the right volume there", self.path, exc.__cause__ or "another folder is there")
            raise
        if self._is_away:
            self._is_away = False
            log.warning("%s: the upload folder is back", self.path)
        try:
            yield fd
        finally:
            os.close(fd)

    def identity(self) -> str | None:
        """Return the identity of the folder that is there, None if it has none.

        The first one that is seen is the one that open() compares with from then on. Raises VolumeAway, OSError, and
        WrongLedger when the identity cannot be read at the start.
        """
        fd = self._opened()
        try:
            found = read_identity(fd)
            if found is None:
                return None
            text, seen = found
            if self._identity is None:
                if not is_identity(text):
                    raise WrongLedger(
                        f"{self.path / IDENTITY} does not hold 32 hex digits; write the right ones into it, or"
                        " remove it if no ledger belongs to this folder"
                    )
                self._identity, self._seen = text, seen
            return text
        finally:
            os.close(fd)

    def claim(self) -> str:
        """Give the folder an identity if it has none, and return the one that it has.

        Raises VolumeAway, OSError, and WrongLedger when the identity cannot be read at the start.
        """
        if self._identity is None and self.identity() is None:
            fd = self._opened()
            try:
                make_identity(fd)
            finally:
                os.close(fd)
        with self.open():
            identity = self._identity or self.identity()
        if identity is None:  # made a moment ago, and removed since
            raise VolumeAway()
        return identity

    def _open(self) -> int:
        fd = self._opened()
        try:
            if self._identity is not None and seen_of(fd) != self._seen:
                self._compare(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _opened(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno in _OUR_OWN:
                raise
            raise VolumeAway() from exc

    def _compare(self, fd: int) -> None:
        """Read the identity again: a volume that was mounted anew has other numbers and the same text."""
        try:
            found = read_identity(fd)
        except OSError as exc:
            if exc.errno in _OUR_OWN:
                raise
            raise VolumeAway() from exc
        if found is None or found[0] != self._identity:
            raise VolumeAway()
        self._seen = found[1]


def seen_of(folder: int) -> Seen | None:
    """Return what tells one file of an identity from another, None when it does not tell."""
    try:
        found = os.stat(IDENTITY, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def is_identity(text: str) -> bool:
    """Return whether text is 32 hex digits."""
    return len(text) == 32 and all(digit in "0123456789abcdef" for digit in text)


def read_identity(folder: int) -> tuple[str, Seen] | None:
    """Return the text of a folder's identity, and its file; None without one. Raises OSError."""
    text, seen = "", (0, 0, 0)
    for _ in range(LOOKS):
        try:
            fd = os.open(IDENTITY, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        try:
            found = os.fstat(fd)
            seen = found.st_dev, found.st_ino, found.st_mtime_ns
            text = os.read(fd, 64).decode("ascii", "replace").strip() if stat.S_ISREG(found.st_mode) else "?"
        finally:
            os.close(fd)
        if text:
            break
        time.sleep(LOOK_S)
    return text, seen


def make_identity(folder: int) -> None:
    """Make the identity of a folder, unless somebody else makes it at the same moment. Raises OSError."""
    text = secrets.token_hex(16).encode()  # 128 random bits: no two folders have the same
    trial = f"{IDENTITY}.{secrets.token_hex(8)}"
    write_new(folder, trial, text)
    try:
        # The name appears with the text in it, for one of those who try at once.
        os.link(trial, IDENTITY, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        with suppress(FileExistsError):
            write_new(folder, IDENTITY, text)
    finally:
        os.unlink(trial, dir_fd=folder)
    os.fsync(folder)


def write_new(folder: int, name: str, text: bytes) -> None:
    """Make a file that is on the disk when this returns, or none. Raises FileExistsError, OSError."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660, dir_fd=folder)
    try:
        if os.write(fd, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        os.fsync(fd)
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(fd)


def list_folder(folder: int) -> Listing:
    """Return what there is in the folder. Raises OSError."""
    ids: set[str] = set()
    others: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            upload_id = entry.name.removesuffix(SIDECAR)
            if entry.name.startswith(OURS):
                continue
            if is_upload_id(upload_id) and entry.is_file(follow_symlinks=False):
                ids.add(upload_id)
            else:
                others.append(readable(entry.name))
    return Listing(ids=tuple(sorted(ids)), others=tuple(sorted(others)))


def has_uploads(folder: int) -> bool:
    """Return whether there is any sidecar, ours or tusd's. Raises OSError."""
    with os.scandir(folder) as entries:
        return any(
            entry.name.endswith(SIDECAR)
            and is_upload_id(entry.name.removesuffix(SIDECAR))
            and entry.is_file(follow_symlinks=False)
            for entry in entries
        )


def readable(name: str) -> str:
    """Return a file's name as one line of text, whatever bytes are in it."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
