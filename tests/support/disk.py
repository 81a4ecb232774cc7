"""A small disk of its own for a test: an ext4 image, mounted. It needs root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 32 * 1024 * 1024  # bytes


def image_of(folder: Path) -> Path:
    """Return the path of the image file of the small disk at this folder."""
    return folder.with_name(folder.name + ".image")


def mount(image: Path, folder: Path) -> None:
    """Mount the file system in an image file."""
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, *, block: int | None = None) -> Iterator[Path]:
    """Mount a file system of 32 MiB at a new folder for the length of the with block.

    block: the size of a file system block in bytes, with no blocks reserved for root; None: ext4's defaults.
    """
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
