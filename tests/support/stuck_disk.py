"""A disk that can be made to hang, and what hangs in it. It needs root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support import tus
from tests.support.disk import small_disk


class Disk:
    """An ext4 file system of its own, which can be made to hang."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._frozen = False

    def freeze(self) -> None:
        """Let every write wait."""
        subprocess.run(["fsfreeze", "--freeze", str(self.folder)], check=True)
        self._frozen = True

    def thaw(self) -> None:
        """Let them go on, if they wait."""
        if self._frozen:
            subprocess.run(["fsfreeze", "--unfreeze", str(self.folder)], check=True)
            self._frozen = False


@contextmanager
def stuck_disk(folder: Path) -> Iterator[Disk]:
    """A disk of 32 MiB at a new folder for the length of the block, thawed at the end whatever happened."""
    with small_disk(folder) as mounted:
        disk = Disk(mounted)
        try:
            yield disk
        finally:
            disk.thaw()


def patch(url: str, content: bytes | Iterator[bytes]) -> httpx.Response:
    """Send the whole body, and wait for the answer as long as the disk may hang."""
    return httpx.patch(url, content=content, headers={**tus.BYTES, "Upload-Offset": "0"}, timeout=60)


def is_in_a_write(pid: int) -> bool:
    """Return whether a thread of the process sleeps and cannot be interrupted."""
    return any(state(thread) == "D" for thread in Path(f"/proc/{pid}/task").iterdir())


def state(thread: Path) -> str:
    """Return the state of a thread, as R, S or D."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]
