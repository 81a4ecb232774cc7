"""A disk that takes bytes and fails when they are flushed: the kernel forgets the failure, we do not."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.storage import ID, Open, nothing
from tusd_py.protocol.refusals import StorageFull
from tusd_py.protocol.upload import Upload

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def thin_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 64 MiB in a sparse image, on a volume that has room for 16 MiB of it."""
    under, folder = tmp_path / "under", tmp_path / "disk"
    under.mkdir()
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(under)], check=True)
    try:
        with (under / "image").open("wb") as file:
            file.truncate(64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(under / "image")], check=True)
        subprocess.run(["mount", "-o", "loop", str(under / "image"), str(folder)], check=True)
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(under)], check=True)


async def test_only_what_an_earlier_flush_made_safe_counts(thin_disk: Path, open_storage: Open) -> None:
    storage = open_storage(thin_disk)
    upload = Upload(id=ID, length=None, offset=0, metadata="", created_at=0.0)
    source = os.urandom(24 * MIB)
    writer = await storage.open(upload, nothing)
    await writer.write([source[:MIB]])

    assert MIB == await writer.flush()

    await writer.write([source[MIB:]])
    with pytest.raises(StorageFull):
        await writer.flush()

    assert MIB == writer.offset

    for _ in range(2):
        with pytest.raises(StorageFull):
            await writer.flush()
        with pytest.raises(StorageFull):
            await writer.write([b"0"])
    safe = await writer.finish()
    await writer.close()

    assert MIB == safe == writer.offset == (await storage.read(ID)).upload.offset
    assert source[:MIB] == storage.path(ID).read_bytes()[:MIB]
