"""The upload folder, on a small disk that can be filled and unmounted if the test may mount one."""

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

RECHECK_S = 0.5  # a server that starts creates a file to see if it can write, and removes it at once


class Disk:
    """A tmpfs mounted on the folder. Without the right to mount, the folder is moved away instead.

    content is a path to the files that works also while the volume is unmounted.
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
        """Use up the free space but for room bytes, including space that is freed while this runs."""
        with (self.content / ".filler").open("wb") as file, suppress(OSError):
            for _ in range(100):
                found = os.statvfs(self.content)
                free = found.f_bavail * found.f_frsize - room
                if room and free <= 0:
                    break
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, max(free, 1))

    def free(self) -> None:
        """Free the space that fill() has used up."""
        (self.content / ".filler").unlink(missing_ok=True)

    def unmount(self, *, leave_a_folder: bool) -> None:
        """Unmount the volume while it is in use. An empty folder, or none, takes its place."""
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True, timeout=30)
            if not leave_a_folder:
                self.folder.rmdir()
        else:
            self.folder.rename(self._aside)
            if leave_a_folder:
                self.folder.mkdir()

    def remount(self) -> list[str]:
        """Mount the same volume again, and return the names of the files that were written in its place."""
        written = self._names_in_place()
        if written:
            time.sleep(RECHECK_S)
            written &= self._names_in_place()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.is_mounted:
            self.folder.mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", str(self._aside), str(self.folder)], check=True, timeout=30)
        else:
            self._aside.rename(self.folder)
        return sorted(written)

    def _names_in_place(self) -> set[str]:
        """Return the names of the files in the place of the volume."""
        with suppress(FileNotFoundError):
            return {path.name for path in self.folder.iterdir()}
        return set()

    def close(self) -> None:
        if self.is_mounted:
            for mounted in (self.folder, self._aside):
                # A plain unmount works if no file on it is open, which is so once all processes have ended.
                run_quietly("umount", str(mounted)) or run_quietly("umount", "-l", str(mounted))
        else:
            os.close(self._descriptor)


def run_quietly(*command: str) -> bool:
    """Return whether a command succeeded."""
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
