"""Room: what must stay free, the reserve, and a real disk that is full."""

import os
from pathlib import Path

import pytest

from tests.support.storage import ID, UPLOAD, Open, fill, free, nothing, written
from tusd_py.protocol.refusals import StorageFull
from tusd_py.protocol.upload import Upload
from tusd_py.storage.posix import check_locks

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
RESERVE = ".tusd_py.reserve"


@pytest.mark.parametrize("durable", [True, False], ids=["fsync", "none"])
@pytest.mark.parametrize("size", [2, 1000, 65_536, 65_537, 3 * MIB])
@pytest.mark.parametrize("leave", [0, 1, 1024, 40_000, 70_000, MIB])
async def test_the_bytes_that_found_room_count(
    disk: Path, open_storage: Open, durable: bool, size: int, leave: int
) -> None:
    """Sizes on both sides of every limit; what is acknowledged is in the file, and the rest follows later."""
    storage = open_storage(disk, durable=durable)
    source = os.urandom(size)
    upload = Upload(id=ID, length=size, offset=0, metadata="", created_at=0.0)
    await written(storage, source[:1], upload)
    filler = fill(disk, leave)
    writer = await storage.open(upload.at(1, expires_at=None), nothing)
    try:
        await writer.write([source[1:]], last=True)
        offset = await writer.finish()
    except StorageFull:
        offset = await writer.finish()
    await writer.close()

    assert source[:offset] == storage.path(ID).read_bytes()[:offset]
    assert offset == (await storage.read(ID)).upload.offset
    assert offset >= min(size, leave * 9 // 10 - 4096)

    filler.unlink()
    writer = await storage.open(upload.at(offset, expires_at=None), nothing)
    await writer.write([source[offset:]], last=True)
    await writer.finish()
    await writer.close()

    assert source == storage.path(ID).read_bytes()
    assert (await storage.read(ID)).upload.is_complete


async def test_a_disk_without_room_for_a_sidecar_gets_no_files(disk: Path, open_storage: Open) -> None:
    storage = open_storage(disk)
    await storage.claim()
    filler = fill(disk, 0)
    names = os.listdir(disk)
    for size in (1, 100_000):
        writer = await storage.open(UPLOAD, nothing)
        with pytest.raises(StorageFull):
            await writer.write([b"x" * size], last=True)
            await writer.finish()
        offset = await writer.finish()
        await writer.close()

        assert (0, names) == (offset, os.listdir(disk))

    check_locks(disk)
    await storage.check()
    filler.unlink()
    await written(storage, b"0")


@pytest.mark.parametrize("pieces", [[b"x" * 65_536] * 64, [b"x" * (4 * MIB)], [b"x" * 1000] * 4000])
async def test_writes_stop_before_the_room_that_must_stay_free(
    disk: Path, open_storage: Open, pieces: list[bytes]
) -> None:
    storage = open_storage(disk, min_free=8 * MIB)
    fill(disk, 9 * MIB)
    writer = await storage.open(Upload(id=ID, length=None, offset=0, metadata="", created_at=0.0), nothing)
    with pytest.raises(StorageFull):
        for piece in pieces:
            await writer.write([piece])
    offset = await writer.finish()
    await writer.close()

    assert MIB * 3 // 4 < offset <= MIB
    assert 8 * MIB - 64 * 1024 <= free(disk)
    assert offset == storage.path(ID).stat().st_size

    with pytest.raises(StorageFull):
        await written(storage, b"0", Upload(id="b" * 32, length=1, offset=0, metadata="", created_at=0.0))

    assert not storage.path("b" * 32).exists()


async def test_uploads_together_stop_before_it_too(disk: Path, open_storage: Open) -> None:
    """Each of them has looked when there was room for it alone."""
    storage = open_storage(disk, min_free=4 * MIB)
    fill(disk, 7 * MIB)
    uploads = [Upload(id=f"{n:032}", length=None, offset=0, metadata="", created_at=0.0) for n in range(8)]
    writers = [await storage.open(upload, nothing) for upload in uploads]
    for writer in writers:
        await writer.write([b"x"])
    for writer in writers:
        try:
            for _ in range(16):
                await writer.write([b"x" * 65_536])
        except StorageFull:
            await writer.finish()
    for writer in writers:
        await writer.close()

    assert 4 * MIB - 256 * 1024 <= free(disk)


async def test_check_room_counts_what_must_stay_free(disk: Path, open_storage: Open) -> None:
    storage = open_storage(disk, min_free=4 * MIB)
    await storage.check_room(free(disk) - 4 * MIB - 65_536)
    with pytest.raises(StorageFull):
        await storage.check_room(free(disk) - 4 * MIB + 65_536)
    fill(disk, 3 * MIB)
    with pytest.raises(StorageFull):
        await storage.check_room()


async def test_the_reserve_is_real_room_and_comes_back(disk: Path, open_storage: Open) -> None:
    storage = open_storage(disk, min_free=2 * MIB)

    assert not storage.give_back_reserve()

    before = free(disk)

    assert (True, True) == (await storage.keep_reserve(), await storage.keep_reserve())
    assert 4 * MIB <= before - free(disk)

    filler = fill(disk, 0)

    assert await storage.keep_reserve()
    assert storage.give_back_reserve()
    assert 4 * MIB <= free(disk)

    rest = fill(disk, 1 * MIB)

    assert not await storage.keep_reserve()
    assert 0.5 * MIB <= (disk / RESERVE).stat().st_size < MIB  # better than none

    rest.unlink()
    filler.unlink(missing_ok=True)
    (disk / RESERVE).write_bytes(b"")  # of a process that was killed while it made it

    assert await storage.keep_reserve()
    assert 4 * MIB == (disk / RESERVE).stat().st_size
