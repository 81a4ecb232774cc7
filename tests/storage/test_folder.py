"""The folder: its identity, what happens while it is away, and what may lie in it."""

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.disk import image_of, mount
from tests.support.storage import ID, UPLOAD, Open, nothing, written
from tusd_py.ports import WrongLedger
from tusd_py.protocol.refusals import UploadNotFound, VolumeAway
from tusd_py.storage.file import FileStorage

pytestmark = pytest.mark.anyio

IDENTITY = ".tusd_py.folder"


async def test_replicas_that_claim_at_once_agree(folder: Path, open_storage: Open) -> None:
    replicas = [open_storage() for _ in range(6)]

    assert [None] * 6 == await asyncio.gather(*(replica.identity() for replica in replicas))

    claimed = await asyncio.gather(*(replica.claim() for replica in replicas))

    assert 1 == len(set(claimed))
    assert claimed[0] == (folder / IDENTITY).read_text() == await replicas[0].identity()
    assert 32 == len(claimed[0])
    assert [IDENTITY] == os.listdir(folder)


async def test_an_identity_that_is_being_written_is_looked_at_again(folder: Path, storage: FileStorage) -> None:
    path = folder / IDENTITY
    path.touch()
    asking = asyncio.create_task(storage.claim())
    await asyncio.sleep(0.1)
    path.write_text("0123456789abcdef" * 2)

    assert "0123456789abcdef" * 2 == await asking


@pytest.mark.parametrize("text", ["", "0123", "g" * 32, "0" * 33])
async def test_an_identity_that_is_damaged_is_refused_at_the_start(
    folder: Path, storage: FileStorage, text: str
) -> None:
    (folder / IDENTITY).write_text(text)
    with pytest.raises(WrongLedger, match="32 hex digits"):
        await storage.claim()


CALLS: dict[str, Callable[[FileStorage], Awaitable[object]]] = {
    "check": lambda storage: storage.check(),
    "check_room": lambda storage: storage.check_room(),
    "claim": lambda storage: storage.claim(),
    "first write": lambda storage: written(storage, b"0"),
    "open": lambda storage: storage.open(UPLOAD.at(1, expires_at=None), nothing),
    "concatenate": lambda storage: storage.concatenate(UPLOAD.at(10, expires_at=None), [ID], nothing),
    "empty": lambda storage: storage.concatenate(UPLOAD, (), nothing),
    "remove": lambda storage: storage.remove(ID),
    "read": lambda storage: storage.read(ID),
    "is_stray": lambda storage: storage.is_stray(ID, 0),
    "listing": lambda storage: storage.listing(),
    "has_uploads": lambda storage: storage.has_uploads(),
    "keep_reserve": lambda storage: storage.keep_reserve(),
}


@pytest.mark.parametrize("other", ["none", "empty", "another", "file"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_folder_that_is_away_is_an_outage(folder: Path, open_storage: Open, call: str, other: str) -> None:
    """Nothing is made, removed or called unknown, and everything goes on when it is the same folder again."""
    storage, away = open_storage(), folder.with_name("away")
    await storage.claim()
    await written(storage, b"0123456789")
    folder.rename(away)
    if other == "file":
        folder.touch()
    elif other != "none":
        folder.mkdir()
    if other == "another":
        await open_storage(folder).claim()
        (folder / ID).write_bytes(b"of another")
    before = sorted(os.listdir(folder)) if folder.is_dir() else None
    with pytest.raises(VolumeAway, match="nothing was lost"):
        await CALLS[call](storage)

    assert before == (sorted(os.listdir(folder)) if folder.is_dir() else None)

    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    folder.unlink(missing_ok=True)
    away.rename(folder)
    await storage.check()

    assert b"0123456789" == storage.path(ID).read_bytes()


async def test_bytes_in_a_folder_that_was_removed_are_not_acknowledged(folder: Path, storage: FileStorage) -> None:
    await storage.claim()
    writer = await storage.open(UPLOAD, nothing)
    await writer.write([b"0123"])
    folder.rename(folder.with_name("away"))
    with pytest.raises(VolumeAway):
        await writer.flush()
    with pytest.raises(VolumeAway):
        await writer.finish()
    await writer.close()


async def test_a_volume_that_is_mounted_again_is_the_same(disk: Path, tmp_path: Path, open_storage: Open) -> None:
    storage = open_storage(disk)
    await storage.claim()
    await written(storage, b"0123")
    subprocess.run(["umount", str(disk)], check=True)
    with pytest.raises(VolumeAway):
        await storage.check()
    with pytest.raises(VolumeAway):
        await written(storage, b"0")

    assert [] == os.listdir(disk)

    # Another loop device first, so that the numbers of the device differ.
    (tmp_path / "spare").mkdir()
    with (tmp_path / "other").open("wb") as file:
        file.truncate(4 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", str(tmp_path / "other")], check=True)
    mount(tmp_path / "other", tmp_path / "spare")
    try:
        mount(image_of(disk), disk)
        await storage.check()

        assert 4 == (await storage.read(ID)).upload.offset
    finally:
        subprocess.run(["umount", str(tmp_path / "spare")], check=True)


async def test_a_file_that_is_gone_from_the_right_folder_is_not_found(storage: FileStorage) -> None:
    await storage.claim()
    with pytest.raises(UploadNotFound):
        await storage.open(UPLOAD.at(1, expires_at=None), nothing)


async def test_the_listing_names_everything_that_is_not_an_upload(folder: Path, storage: FileStorage) -> None:
    await storage.claim()
    await storage.keep_reserve()
    await written(storage, b"0")
    for name in ("LICENSE", "b.info", "notes.txt", "c.json", ".hidden", "d" * 129):
        (folder / name).touch()
    for name in ("folder", "e.info"):
        (folder / name).mkdir()
    (folder / "link").symlink_to(ID)
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff\n"))).touch()
    os.mknod(folder / ".socket", 0o140600)
    found = await storage.listing()

    assert ("LICENSE", ID, "b") == found.ids
    assert sorted(
        [
            ".hidden",
            ".socket",
            "\\xff\\n",
            "c.json",
            "dangling",
            "d" * 129,
            "e.info",
            "folder",
            "link",
            "notes.txt",
            "pipe",
        ]
    ) == list(found.others)


async def test_only_a_sidecar_looks_like_an_upload(folder: Path, storage: FileStorage) -> None:
    (folder / ID).touch()
    (folder / "b.info").mkdir()
    (folder / ".x.info").touch()

    assert not await storage.has_uploads()

    (folder / "c.info").touch()

    assert await storage.has_uploads()
