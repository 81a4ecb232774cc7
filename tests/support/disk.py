"""A real disk of its own for a test: an ext4 image, mounted. It needs root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 32 * 1024 * 1024  # bytes


def image_of(folder: Path) -> Path:
    """Return the file that a small disk at this folder is in."""
    return folder.with_name(folder.name + ".image")


def mount(image: Path, folder: Path) -> None:
    """Mount the file system that is in a file."""
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, *, block: int | None = None) -> Iterator[Path]:
    """A file system of 32 MiB at a new folder for the length of the block; block is the size of its own, in bytes."""
    image = image_of(folder)
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    blocks = ["-b", str(block), "-m", "0"] if block else []
    subprocess.run(["mkfs.ext4", "-q", *blocks, str(image)], check=True)
    mount(image, folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
