"""A storage in a folder of its own, and a real disk that can be filled."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.disk import small_disk
from tests.support.storage import Open
from tusd_py.storage.file import FileStorage


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
    """A small disk with blocks of 1 KiB."""
    with small_disk(tmp_path / "disk", block=1024) as folder:
        yield folder
