"""A disk that can be made to hang. It needs root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support import tus
from tests.support.disk import small_disk


class Disk:
    """A mounted ext4 file system that can be made to hang."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._frozen = False

    def freeze(self) -> None:
        """Block every write until thaw()."""
        subprocess.run(["fsfreeze", "--freeze", str(self.folder)], check=True)
        self._frozen = True

    def thaw(self) -> None:
        """Unblock the writes, if they are blocked."""
        if self._frozen:
            subprocess.run(["fsfreeze", "--unfreeze", str(self.folder)], check=True)
            self._frozen = False


@contextmanager
def stuck_disk(folder: Path) -> Iterator[Disk]:
    """Mount a disk of 32 MiB at a new folder for the length of the with block; it is thawed at the end in any case."""
    with small_disk(folder) as mounted:
        disk = Disk(mounted)
        try:
            yield disk
        finally:
            disk.thaw()


def patch(url: str, content: bytes | Iterator[bytes]) -> httpx.Response:
    """Send a PATCH from offset 0, with a timeout that is longer than the disk hangs."""
    return httpx.patch(url, content=content, headers={**tus.BYTES, "Upload-Offset": "0"}, timeout=60)


def is_in_a_write(pid: int) -> bool:
    """Return whether a thread of the process is in an uninterruptible sleep, as in a blocked write."""
    return any(state(thread) == "D" for thread in Path(f"/proc/{pid}/task").iterdir())


def state(thread: Path) -> str:
    """Return the state of a thread: one letter, for example R, S or D."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]
