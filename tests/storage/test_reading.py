"""Reading and removing in a folder that others use too."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.storage import ID, UPLOAD, nothing, sidecar, written
from tusd_py.ports import LeaseLost
from tusd_py.protocol.upload import Upload
from tusd_py.storage.file import FileStorage

pytestmark = pytest.mark.anyio

OLD = (1.0, 1.0)


KINDS: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("real"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "circle": lambda path: path.symlink_to(path.name),
    "pipe": os.mkfifo,
    "socket": lambda path: os.mknod(path, 0o140600),
    "device": lambda path: os.mknod(path, 0o020600, os.makedev(1, 5)),  # /dev/zero has no end
}


@pytest.mark.parametrize("name", [ID, f"{ID}.info"])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_no_regular_file_is_said_so_and_stays(
    folder: Path, storage: FileStorage, kind: str, name: str
) -> None:
    (folder / "real").write_text(sidecar())
    (folder / ID).touch()
    (folder / f"{ID}.info").write_text(sidecar())
    (folder / name).unlink()
    KINDS[kind](folder / name)
    with pytest.raises(ValueError, match="not a regular file"):
        await storage.read(ID)

    assert not await storage.is_stray(ID, -60)

    await storage.remove(ID)

    assert {"real", name} == set(os.listdir(folder))
    assert sidecar() == (folder / "real").read_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "JSON|Expecting"),
        (b"\xff", "UTF-8"),
        (b" " * (1024 * 1024 + 1), "more than"),
        (b"[" * 100_000, "too deep"),
        (sidecar(ID="b").encode(), "is about b"),
        (sidecar(Offset=True).encode(), "Offset is True"),
        (sidecar(Offset=float("nan")).encode(), "NaN"),
        (sidecar(Size=-1).encode(), "Size is -1"),
    ],
)
async def test_a_sidecar_that_does_not_tell_is_said_so(
    folder: Path, storage: FileStorage, text: bytes, reason: str
) -> None:
    (folder / ID).touch()
    (folder / f"{ID}.info").write_bytes(text)
    with pytest.raises(ValueError, match=reason):
        await storage.read(ID)

    assert not await storage.is_stray(ID, -60)


@pytest.mark.parametrize("name", ["../a", "", "a.b", "é"])
async def test_what_is_no_id_is_not_read(storage: FileStorage, name: str) -> None:
    with pytest.raises(ValueError, match="not the id"):
        await storage.read(name)


async def test_an_unfinished_concatenation_cannot_be_resumed(folder: Path, storage: FileStorage) -> None:
    text = json.loads(sidecar())
    text["TusdPy"]["UploadConcat"] = "final;/files/b"
    (folder / f"{ID}.info").write_text(json.dumps(text))
    (folder / ID).write_bytes(b"012")
    with pytest.raises(ValueError, match="did not end"):
        await storage.read(ID)

    for path in folder.iterdir():
        os.utime(path, OLD)

    assert await storage.is_stray(ID, 60)


@pytest.mark.parametrize(
    ("info", "content", "stray"),
    [
        (sidecar(), b"", True),
        (sidecar(), None, True),
        (sidecar(), b"0", False),  # bytes that were never acknowledged; recover takes the upload back to 0
        (sidecar(Offset=1), b"", False),  # bytes that the volume lost
        (sidecar(Offset=1), None, False),
        (sidecar(Size=0), b"", False),  # finished
        (sidecar(ID="b"), b"", False),
        (sidecar(TusdPy=None), b"", False),
        (json.dumps({key: value for key, value in json.loads(sidecar()).items() if key != "TusdPy"}), b"", False),
        ("", b"", False),
        (None, b"", False),
    ],
)
async def test_only_what_has_our_mark_and_nothing_in_it_is_a_stray(
    folder: Path, storage: FileStorage, info: str | None, content: bytes | None, stray: bool
) -> None:
    if info is not None:
        (folder / f"{ID}.info").write_text(info)
    if content is not None:
        (folder / ID).write_bytes(content)
    for path in folder.iterdir():
        os.utime(path, OLD)

    assert stray is await storage.is_stray(ID, 60)

    for path in folder.iterdir():
        os.utime(path)

        assert not await storage.is_stray(ID, 60), f"{path.name} is new"

        os.utime(path, OLD)


async def test_each_removal_is_logged_by_name(storage: FileStorage, caplog: pytest.LogCaptureFixture) -> None:
    await written(storage, b"0")
    with caplog.at_level(logging.INFO, "tusd_py"):
        await storage.remove(ID)
        await storage.remove(ID)

    assert [f"removed {ID} and {ID}.info"] == caplog.messages


@pytest.mark.parametrize("size", [1, 100_000])
async def test_the_sidecar_is_there_before_the_file_with_the_bytes(
    folder: Path, storage: FileStorage, size: int
) -> None:
    """What a crash leaves is recognised: here the lease is lost between the two."""

    def guard() -> None:
        if (folder / ID).exists():
            raise LeaseLost

    writer = await storage.open(Upload(id=ID, length=None, offset=0, metadata="", created_at=0.0), guard)
    with pytest.raises(LeaseLost):
        await writer.write([b"x" * size], last=True)
        await writer.finish()
    await writer.close()

    assert {ID, f"{ID}.info"} == set(os.listdir(folder))
    assert 0 == (await storage.read(ID)).upload.offset
    assert (await storage.read(ID)).is_ours


async def test_a_sidecar_ahead_of_the_record_goes_back_before_its_bytes_are_overwritten(
    storage: FileStorage, folder: Path
) -> None:
    """Its offset was never recorded; recover would believe it."""
    await written(storage, b"012345678")
    for offset in (4, 0):
        writer = await storage.open(UPLOAD.at(offset, expires_at=None), nothing)
        await writer.write([b"x"])

        assert offset == (await storage.read(ID)).upload.offset

        await writer.close()
