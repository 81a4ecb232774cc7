"""Concatenation: a whole or nothing, and nobody waits for it."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.storage import Open, fill, free, nothing, written
from tusd_py.ports import LeaseLost
from tusd_py.protocol.refusals import StorageFull, UploadLocked, UploadNotFound
from tusd_py.protocol.upload import Upload
from tusd_py.storage.file import FileStorage

pytestmark = pytest.mark.anyio

B, C, FINAL = "b" * 32, "c" * 32, "d" * 32
MIB = 1024 * 1024


def final(length: int) -> Upload:
    concat = f"final;/files/{B} /files/{C}"
    return Upload(id=FINAL, length=length, offset=length, metadata="", created_at=0.0, concat=concat)


async def parts(storage: FileStorage, *contents: bytes) -> int:
    """Write the parts and return their length."""
    for name, content in zip((B, C), contents, strict=True):
        part = Upload(id=name, length=len(content), offset=0, metadata="", created_at=0.0, concat="partial")
        await written(storage, content, part)
    return sum(map(len, contents))


async def test_what_an_earlier_try_left_is_overwritten_and_cut(storage: FileStorage) -> None:
    length = await parts(storage, b"hello ", b"world")
    storage.path(FINAL).write_bytes(b"x" * 1000)
    storage.path(f"{FINAL}.info").write_text("of an earlier try" + " " * 1000)
    await storage.concatenate(final(length), [B, C], nothing)

    assert b"hello world" == storage.path(FINAL).read_bytes()
    assert final(length) == (await storage.read(FINAL)).upload


async def test_what_an_earlier_try_finished_is_not_copied_again(storage: FileStorage) -> None:
    """Nor lost: the parts may be gone by now."""
    length = await parts(storage, b"hello ", b"world")
    await storage.concatenate(final(length), [B, C], nothing)
    await storage.remove(B)
    await storage.concatenate(final(length), [B, C], nothing)

    assert b"hello world" == storage.path(FINAL).read_bytes()


async def test_the_sidecar_comes_first_and_is_complete_last(storage: FileStorage) -> None:
    length = await parts(storage, b"hello ", b"world")
    sidecars: list[str] = []

    def guard() -> None:
        if storage.path(FINAL).exists():
            sidecars.append(storage.path(f"{FINAL}.info").read_text())

    await storage.concatenate(final(length), [B, C], guard)

    assert len(sidecars) > 2
    assert all('"Offset": 0,' in text and '"TusdPy"' in text for text in sidecars)


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
async def test_whatever_call_of_the_guard_fails_leaves_nothing(storage: FileStorage, folder: Path, call: int) -> None:
    length = await parts(storage, b"hello ", b"world")
    before, calls = sorted(os.listdir(folder)), iter(range(1, call))

    def guard() -> None:
        if next(calls, None) is None:
            raise LeaseLost

    with pytest.raises(LeaseLost):
        await storage.concatenate(final(length), [B, C], guard)

    assert before == sorted(os.listdir(folder))


@pytest.mark.parametrize("odd", [lambda path: None, lambda path: path.mkdir(), lambda path: path.symlink_to(C)])
async def test_a_part_that_is_no_file_leaves_nothing(
    storage: FileStorage, folder: Path, odd: Callable[[Path], object]
) -> None:
    length = await parts(storage, b"hello ", b"world")
    storage.path(B).unlink()
    odd(storage.path(B))
    with pytest.raises(UploadNotFound):
        await storage.concatenate(final(length), [B, C], nothing)

    assert not {FINAL, f"{FINAL}.info"} & set(os.listdir(folder))


async def test_two_tries_at_once_do_not_mix(open_storage: Open) -> None:
    """The second replica is locked out, and takes nothing from the first."""
    storage, other = open_storage(), open_storage()
    length = await parts(storage, os.urandom(MIB), b"world")
    going, refused = asyncio.get_running_loop(), asyncio.Event()
    tries: list[asyncio.Future[None]] = []

    def guard() -> None:
        if storage.path(FINAL).exists() and not tries:
            again = other.concatenate(final(length), [B, C], nothing)
            tries.append(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(again, going), loop=going))
            going.call_soon_threadsafe(tries[0].add_done_callback, lambda done: refused.set())
            asyncio.run_coroutine_threadsafe(refused.wait(), going).result(20)

    await storage.concatenate(final(length), [B, C], guard)

    assert isinstance(tries[0].exception(), UploadLocked)
    assert length == storage.path(FINAL).stat().st_size
    assert (await storage.read(FINAL)).upload.is_complete


async def test_copies_hold_up_no_write_and_no_empty_upload(storage: FileStorage) -> None:
    """As many as there are threads hang in their guards."""
    length = await parts(storage, b"hello ", b"world")
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def guard() -> None:
        asyncio.run_coroutine_threadsafe(done.wait(), loop).result(60)

    finals = [Upload(id=f"{n:032}", length=length, offset=length, metadata="", created_at=0.0) for n in range(20)]
    copies = [asyncio.create_task(storage.concatenate(one, [B, C], guard)) for one in finals]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await written(storage, b"0")
        empty = Upload(id="e" * 32, length=0, offset=0, metadata="", created_at=0.0)
        await storage.concatenate(empty, (), nothing)
    done.set()
    await asyncio.gather(*copies)

    assert [b"hello world"] * 20 == [storage.path(one.id).read_bytes() for one in finals]


async def test_a_copy_that_is_cancelled_ends_and_leaves_nothing(storage: FileStorage, folder: Path) -> None:
    length = await parts(storage, b"hello ", b"world")
    before = sorted(os.listdir(folder))
    loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def guard() -> None:
        if storage.path(FINAL).exists():
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(60)

    copying = asyncio.create_task(storage.concatenate(final(length), [B, C], guard))
    await begun.wait()
    copying.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await copying

    assert before == sorted(os.listdir(folder))


async def test_the_length_is_checked_before_anything_is_copied(disk: Path, open_storage: Open) -> None:
    """With what must stay free, and with what another copy will still need."""
    storage = open_storage(disk, min_free=2 * MIB)
    length = await parts(storage, os.urandom(4 * MIB), os.urandom(4 * MIB))
    other = Upload(id="e" * 32, length=length, offset=length, metadata="", created_at=0.0)
    filler = fill(disk, 2 * MIB + length - 64 * 1024)
    room = free(disk)
    with pytest.raises(StorageFull):
        await storage.concatenate(final(length), [B, C], nothing)

    assert room == free(disk)
    assert not storage.path(FINAL).exists()

    filler.unlink()
    fill(disk, 2 * MIB + length + 4 * MIB)
    loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def guard() -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(60)

    copying = asyncio.create_task(storage.concatenate(final(length), [B, C], guard))
    await begun.wait()
    with pytest.raises(StorageFull):
        await storage.concatenate(other, [B, C], nothing)
    go_on.set()
    await copying

    assert storage.path(B).read_bytes() + storage.path(C).read_bytes() == storage.path(FINAL).read_bytes()
