"""What the storage and its writers share: the folder, the room in it, the threads, and how a sidecar is written."""

import asyncio
import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ..protocol.fileinfo import build_sidecar
from ..protocol.refusals import StorageFull, VolumeAway
from ..protocol.upload import Upload
from ..threads import Threads
from .folder import SIDECAR, Folder
from .room import NO_ROOM, Room
from .sidecar import create_sidecar, update_sidecar

THREADS = 16  # a few stuck writes leave room for the others
COPIES = 2  # of concatenations, which take minutes: they hold up no other upload, and two keep a disk busy

# The file system that had the file is no longer there.
_AWAY = (errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ESHUTDOWN)

T = TypeVar("T")


class Files:
    """The files of all uploads in one folder."""

    def __init__(self, path: Path, *, durable: bool, locking: bool, min_free: int) -> None:
        self.folder = Folder(path)
        self.room = Room(min_free)
        self.durable = durable
        self.locking = locking
        self._threads = Threads(THREADS, "tusd_py-storage")
        self._copies = Threads(COPIES, "tusd_py-copy")

    def path(self, upload_id: str) -> Path:
        """Return where the bytes of an upload are."""
        return self.folder.path / upload_id

    def describe(self, upload_id: str) -> Mapping[str, str]:
        """Return the same in tusd's words."""
        path = str(self.path(upload_id))
        return {"Type": "filestore", "Path": path, "InfoPath": path + SIDECAR}

    def begin(self, folder: int, upload: Upload) -> bool:
        """Make the sidecar of an upload; return False when there is one, which stays as it is. Blocks."""
        return create_sidecar(folder, upload.id, self._text(upload))

    def note(self, folder: int, upload: Upload, *, sync: bool) -> None:
        """Bring the sidecar up to date; sync: it and the names survive a host's crash. Blocks."""
        update_sidecar(folder, upload.id, self._text(upload), sync=sync)

    def run(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Return what call returns or raises, in a thread; the refusal for an OSError that means one."""
        return self._threads.run(lambda: refusing(call))

    def copy(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """run(), in one of the threads for calls that take long."""
        return self._copies.run(lambda: refusing(call))

    async def in_folder(self, call: Callable[[int], T]) -> T:
        """run() a call that gets a descriptor of the folder. Raises VolumeAway."""

        def opened() -> T:
            with self.folder.open() as folder:
                return call(folder)

        return await self.run(opened)

    def close(self) -> None:
        """Wait for the calls that are under way and end the threads."""
        self._threads.close()
        self._copies.close()

    def _text(self, upload: Upload) -> bytes:
        return build_sidecar(upload, self.describe(upload.id)).encode()


def refusing(call: Callable[[], T]) -> T:
    """Return what call returns. Raises what refusal_for() makes of an OSError."""
    try:
        return call()
    except OSError as exc:
        raise refusal_for(exc) from exc


def refusal_for(exc: OSError) -> Exception:
    """Return the refusal for an error that means one, the error itself for the others."""
    if exc.errno in NO_ROOM:
        return StorageFull("The volume is full; what was acknowledged is safe, resume when there is room again")
    if exc.errno in _AWAY:
        return VolumeAway()
    if exc.errno == errno.EROFS:
        return VolumeAway("The upload folder is read-only")
    return exc
