"""A disk that hangs under one upload: the others go on, and it goes on itself when the disk does."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import tus
from tests.support.processes import eventually, running_server
from tests.support.stuck_disk import Disk, is_in_a_write, patch, stuck_disk

MIB = 1024 * 1024
SOURCE = os.urandom(2 * MIB)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with stuck_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.mark.parametrize("body", ["carried by the kernel", "through Python", "small"])
def test_one_stuck_write_stops_nobody_else(disk: Disk, tmp_path: Path, body: str) -> None:
    source = SOURCE[:1000] if body == "small" else SOURCE
    chunks = iter([source]) if body == "through Python" else source  # an iterator goes in chunked coding
    with running_server(tmp_path, "--lease-wait", "1") as server:
        stuck, file = tus.create(server.url, len(source)), disk.folder / "stuck"
        file.touch()
        (tmp_path / "uploads" / tus.upload_id(stuck)).symlink_to(file)
        answers: list[httpx.Response] = []
        disk.freeze()
        patching = threading.Thread(target=lambda: answers.append(patch(stuck, chunks)))
        patching.start()
        try:
            eventually(lambda: is_in_a_write(server.process.pid), what="a thread hangs in the disk")
            for _ in range(20):
                url, began_at = tus.create(server.url, len(SOURCE)), time.monotonic()

                assert 204 == tus.patch(url, 0, SOURCE).status_code
                assert len(SOURCE) == tus.offset_of(url)
                assert time.monotonic() - began_at < 5  # a tenth of a second where the machine does nothing else

            assert [] == answers
            assert 423 == tus.head(stuck).status_code
        finally:
            disk.thaw()
            patching.join(30)

        assert [204] == [answer.status_code for answer in answers]
        assert source == file.read_bytes()
        assert len(source) == tus.offset_of(stuck)
