"""The upload folder: on a small disk of its own that can be filled and unmounted, where we may mount one."""

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

TWO_LOOKS_S = 0.5  # apart: a server that starts tries whether it can write, and removes what it made


class Disk:
    """A disk in memory, mounted on the folder; without the right to mount, the folder is moved instead.

    content is the folder for whoever has to see it always, mounted or not.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self._aside = folder.with_name(f"{folder.name}-aside")
        folder.mkdir()
        self._aside.mkdir()
        options = f"size={size},mode=0700"
        self.is_mounted = (
            os.geteuid() == 0
            and shutil.which("mount") is not None
            and run_quietly("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._aside))
        )
        if self.is_mounted:
            subprocess.run(["mount", "--bind", str(self._aside), str(folder)], check=True, timeout=30)
            self.content = self._aside
        else:
            self._aside.rmdir()
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            self.content = Path(f"/proc/self/fd/{self._descriptor}")

    def fill(self, room: int = 0) -> None:
        """Take all the room there is but so many bytes, and what is freed meanwhile."""
        with (self.content / ".filler").open("wb") as file, suppress(OSError):
            for _ in range(100):
                found = os.statvfs(self.content)
                free = found.f_bavail * found.f_frsize - room
                if room and free <= 0:
                    break
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, max(free, 1))

    def free(self) -> None:
        """Give the room back."""
        (self.content / ".filler").unlink(missing_ok=True)

    def take_away(self, *, leave_a_folder: bool) -> None:
        """Unmount the volume under those who use it; what is seen instead is an empty folder, or nothing."""
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True, timeout=30)
            if not leave_a_folder:
                self.folder.rmdir()
        else:
            self.folder.rename(self._aside)
            if leave_a_folder:
                self.folder.mkdir()

    def bring_back(self) -> list[str]:
        """Mount the same volume again, and return the names of what was written into the place meanwhile."""
        written = self._in_place()
        if written:
            time.sleep(TWO_LOOKS_S)
            written &= self._in_place()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.is_mounted:
            self.folder.mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", str(self._aside), str(self.folder)], check=True, timeout=30)
        else:
            self._aside.rename(self.folder)
        return sorted(written)

    def _in_place(self) -> set[str]:
        """Return the names of what is in the place of the volume."""
        with suppress(FileNotFoundError):
            return {path.name for path in self.folder.iterdir()}
        return set()

    def close(self) -> None:
        if self.is_mounted:
            for mounted in (self.folder, self._aside):
                # At once where nothing is open on it, which is so when all that we started has ended.
                run_quietly("umount", str(mounted)) or run_quietly("umount", "-l", str(mounted))
        else:
            os.close(self._descriptor)


def run_quietly(*command: str) -> bool:
    """Return whether a command succeeded."""
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
