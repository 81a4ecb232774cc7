"""A storage in a folder of its own, and a real disk that can be filled."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tusd_py.storage.file import FileStorage

Open = Callable[..., FileStorage]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def open_storage(folder: Path) -> Iterator[Open]:
    """Opens a storage like a replica of its own; all are closed at the end."""
    with ExitStack() as stack:

        def opened(path: Path = folder, *, durable: bool = True, min_free: int = 0) -> FileStorage:
            storage = FileStorage(path, durable=durable, min_free=min_free)
            stack.callback(storage.close)
            return storage

        yield opened


@pytest.fixture
def storage(open_storage: Open) -> FileStorage:
    return open_storage()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system of 32 MiB with blocks of 1 KiB."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(32 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
