"""The files: where bytes go, what keeps two writers apart, what happens when the disk or the size lies."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.storage import UPLOAD, nothing, written
from tusd_py.ports import LeaseLost
from tusd_py.protocol.refusals import StorageFull, UploadLocked, UploadNotFound
from tusd_py.protocol.upload import Upload
from tusd_py.storage.file import FileStorage

pytestmark = pytest.mark.anyio

CONCAT = f"final;/files/{'c' * 32} /files/{'b' * 32} /files/{'c' * 32}"


@pytest.fixture(params=[True, False], ids=["fsync", "none"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileStorage]:
    storage = FileStorage(tmp_path, durable=request.param)
    yield storage
    storage.close()


async def test_bytes_go_to_the_offset_and_the_writer_moves_on(storage: FileStorage) -> None:
    grown: list[int] = []
    writer = await storage.open(UPLOAD, nothing)
    writer.when_grown(lambda: grown.append(1))
    await writer.write([b"01", b"234"])
    await writer.write([b"56789"])

    assert (10, 10, [1, 1]) == (writer.offset, await writer.flush(), grown)
    assert b"0123456789" == storage.path(UPLOAD.id).read_bytes()

    await writer.close()


async def test_more_pieces_than_one_call_takes_are_written(storage: FileStorage) -> None:
    writer = await storage.open(UPLOAD, nothing)
    await writer.write([b"ab"] * 3000)
    await writer.close()

    assert b"ab" * 3000 == storage.path(UPLOAD.id).read_bytes()


async def test_a_tail_that_was_never_acknowledged_is_overwritten(storage: FileStorage) -> None:
    """Nothing truncates on open; finish() cuts what is behind the length."""
    storage.path(UPLOAD.id).write_bytes(b"0123xxxxxxxxxxxxxxxxx")
    writer = await storage.open(UPLOAD.at(4, expires_at=None), nothing)

    assert 21 == storage.path(UPLOAD.id).stat().st_size

    await writer.write([b"456789"])
    await writer.finish()

    assert b"0123456789" == storage.path(UPLOAD.id).read_bytes()


async def test_a_second_writer_is_locked_out_until_the_first_has_closed(storage: FileStorage) -> None:
    first, second = await storage.open(UPLOAD, nothing), await storage.open(UPLOAD, nothing)
    await first.write([b"0"])
    with pytest.raises(UploadLocked):
        await second.write([b"1"])
    with pytest.raises(UploadLocked):
        await storage.open(UPLOAD.at(1, expires_at=None), nothing)
    await second.close()
    await first.close()
    await first.close()

    third = await storage.open(UPLOAD.at(1, expires_at=None), nothing)
    await third.finish()
    await third.close()

    assert b"0" == storage.path(UPLOAD.id).read_bytes()


async def test_whoever_is_cancelled_while_a_file_opens_leaves_no_lock(storage: FileStorage) -> None:
    await written(storage, b"0")
    opening = asyncio.create_task(storage.open(UPLOAD.at(1, expires_at=None), nothing))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    await (await storage.open(UPLOAD.at(1, expires_at=None), nothing)).close()


async def test_no_write_after_the_lease_has_run_out(storage: FileStorage, tmp_path: Path) -> None:
    def guard() -> None:
        raise LeaseLost

    writer = await storage.open(UPLOAD, guard)
    with pytest.raises(LeaseLost):
        await writer.write([b"0"])
    with pytest.raises(LeaseLost):
        await writer.finish()
    await writer.close()

    assert [] == os.listdir(tmp_path)


async def test_whoever_was_frozen_before_the_lock_writes_nothing(storage: FileStorage, tmp_path: Path) -> None:
    """His successor has been there: his sidecar stays as it is."""
    sidecar = storage.path(UPLOAD.id + ".info")
    sidecar.write_text("of the successor")
    checks = iter([True, True, False])

    def guard() -> None:
        if not next(checks):
            raise LeaseLost

    writer = await storage.open(UPLOAD, guard)
    with pytest.raises(LeaseLost):
        await writer.write([b"0" * 2**20])
    await writer.close()

    assert "of the successor" == sidecar.read_text()
    assert b"" == storage.path(UPLOAD.id).read_bytes()

    await written(storage, b"0")


async def test_without_bytes_there_are_no_files(storage: FileStorage, tmp_path: Path) -> None:
    writer = await storage.open(UPLOAD, nothing)

    assert 0 == await writer.flush()

    await writer.finish()
    await writer.close()

    assert [] == os.listdir(tmp_path)


async def test_a_flush_beside_the_first_write_tells_only_what_is_there(storage: FileStorage) -> None:
    writer = await storage.open(UPLOAD, nothing)
    writing = asyncio.create_task(writer.write([b"x" * 2**20]))
    await asyncio.sleep(0)

    assert 0 == await writer.flush()

    await writing

    assert 2**20 == await writer.flush()

    await writer.close()


async def test_a_file_shorter_than_its_record_opens_at_its_size(storage: FileStorage) -> None:
    """A host that crashed without --durability fsync, or a volume that lost bytes."""
    storage.path(UPLOAD.id).write_bytes(b"0123")
    writer = await storage.open(UPLOAD.at(7, expires_at=None), nothing)

    assert 4 == writer.offset

    await writer.close()


async def test_a_size_that_is_late_is_looked_at_again(storage: FileStorage) -> None:
    """Network file systems show an old size for a moment."""
    path = storage.path(UPLOAD.id)
    path.write_bytes(b"0123")
    opening = asyncio.create_task(storage.open(UPLOAD.at(7, expires_at=None), nothing))
    await asyncio.sleep(0.1)
    with path.open("ab") as other_client:
        other_client.write(b"456")
    writer = await opening

    assert 7 == writer.offset

    await writer.close()


async def test_bytes_that_are_gone_are_not_found(storage: FileStorage) -> None:
    with pytest.raises(UploadNotFound):
        await storage.open(UPLOAD.at(1, expires_at=None), nothing)


async def test_remove_frees_everything_and_may_be_repeated(storage: FileStorage, tmp_path: Path) -> None:
    await written(storage, b"0")
    await storage.remove(UPLOAD.id)
    await storage.remove(UPLOAD.id)

    assert [] == os.listdir(tmp_path)


async def test_the_sidecar_tells_whose_bytes_they_are(storage: FileStorage) -> None:
    await written(storage, b"012")
    with open(storage.describe(UPLOAD.id)["InfoPath"]) as file:  # noqa: ASYNC230  # nothing else runs
        info = json.load(file)

    assert (UPLOAD.id, 10, 3) == (info["ID"], info["Size"], info["Offset"])
    assert {"CreatedAt": 1.5, "UploadMetadata": "filename YS5tcDQ=", "UploadConcat": ""} == info["TusdPy"]


async def test_a_writer_that_is_cancelled_closes_only_after_its_write(storage: FileStorage) -> None:
    """A descriptor closed under a running write would be reused, and the bytes land in another upload."""
    writer = await storage.open(UPLOAD, nothing)
    big = [b"x" * (32 * 1024 * 1024)]
    writing = asyncio.create_task(writer.write(big))
    await asyncio.sleep(0)
    writing.cancel()
    await writer.close()

    assert 32 * 1024 * 1024 == storage.path(UPLOAD.id).stat().st_size


def free(folder: Path) -> int:
    """Return the free bytes of the file system that has the folder."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("last", [False, True])
async def test_a_full_disk_is_507_and_the_bytes_that_found_room_count(small_disk: Path, last: bool) -> None:
    """Held or not: the offset stands behind the last byte that was written, and finish() makes that safe."""
    storage = FileStorage(small_disk, durable=True)
    filler = storage.path("filler")
    filler.write_bytes(b"x" * (free(small_disk) - 40_960))
    source = os.urandom(60_000)
    writer = await storage.open(UPLOAD, nothing)
    with pytest.raises(StorageFull):
        await writer.write([source[:10], source[10:]], last=last)
        await writer.finish()
    offset = await writer.finish()
    await writer.close()

    assert 0 < offset < 60_000
    assert offset == storage.path(UPLOAD.id).stat().st_size
    assert source[:offset] == storage.path(UPLOAD.id).read_bytes()

    storage.close()


async def test_the_sidecar_follows_what_is_safe_and_does_not_come_back(storage: FileStorage) -> None:
    writer = await storage.open(UPLOAD, nothing)
    await writer.write([b"0123"])
    await writer.flush()
    await writer.write([b"456"])
    await writer.close()

    # Behind the offset lie bytes that were never acknowledged.
    assert UPLOAD.at(4, expires_at=None) == (await storage.read(UPLOAD.id)).upload
    assert (UPLOAD.id,) == (await storage.listing()).ids

    again = await storage.open(UPLOAD.at(4, expires_at=None), nothing)
    await storage.remove(UPLOAD.id)
    await again.write([b"456"])
    await again.finish()

    assert () == (await storage.listing()).ids


async def test_only_a_finish_tells_the_sidecar_that_an_upload_is_complete(storage: FileStorage) -> None:
    """Behind the last byte of a flush the body may go on, and then it is not this upload's."""
    writer = await storage.open(UPLOAD, nothing)
    await writer.write([b"012345678"])
    await writer.flush()
    await writer.write([b"9"])

    assert 10 == await writer.flush()
    assert 9 == (await storage.read(UPLOAD.id)).upload.offset

    await writer.finish()

    assert (await storage.read(UPLOAD.id)).upload.is_complete


async def test_a_sidecar_never_promises_bytes_that_are_not_there(storage: FileStorage) -> None:
    await written(storage, b"012345678")
    os.truncate(storage.path(UPLOAD.id), 3)

    assert 3 == (await storage.read(UPLOAD.id)).upload.offset


async def test_the_files_of_a_crash_before_the_first_record_are_taken_over(storage: FileStorage) -> None:
    """The record is at 0 still; a sidecar may be there, and more bytes than come now."""
    await written(storage, b"0123456")
    await written(storage, b"abc")

    assert b"abc3456" == storage.path(UPLOAD.id).read_bytes()
    assert UPLOAD.at(3, expires_at=None) == (await storage.read(UPLOAD.id)).upload


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"ID": "b", "Size": 1, "SizeIsDeferred": false, "MetaData": {}}'])
async def test_files_that_do_not_tell_are_said_so(storage: FileStorage, tmp_path: Path, text: str) -> None:
    await written(storage, b"0")
    (tmp_path / f"{UPLOAD.id}.info").write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        await storage.read(UPLOAD.id)
    with pytest.raises(ValueError, match="missing"):
        await storage.read("b" * 32)


async def test_concatenation_copies_in_order_and_leaves_nothing_when_it_fails(
    storage: FileStorage, tmp_path: Path
) -> None:
    for name, content in (("b" * 32, b"hello "), ("c" * 32, b"world")):
        await written(storage, content, Upload(id=name, length=len(content), offset=0, metadata="", created_at=0.0))
    final = Upload(id="d" * 32, length=16, offset=16, metadata="", created_at=0.0, concat=CONCAT)
    with pytest.raises(UploadNotFound, match="have 11 bytes, their records say 16"):
        await storage.concatenate(final, ["b" * 32, "c" * 32], nothing)
    with pytest.raises(UploadNotFound, match="gone"):
        await storage.concatenate(final, ["b" * 32, "e" * 32], nothing)

    assert not storage.path(final.id).exists()

    await storage.concatenate(final, ["c" * 32, "b" * 32, "c" * 32], nothing)

    assert b"worldhello world" == storage.path(final.id).read_bytes()
    assert final == (await storage.read(final.id)).upload


async def test_of_no_parts_it_has_no_bytes(storage: FileStorage) -> None:
    empty = Upload(id="d" * 32, length=0, offset=0, metadata="", created_at=0.0)
    await storage.concatenate(empty, (), nothing)

    assert b"" == storage.path(empty.id).read_bytes()
    assert empty == (await storage.read(empty.id)).upload
