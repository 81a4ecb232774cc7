"""Nothing is removed that is not provably ours, whatever lies in the folder and however old it is."""

import json
import os
import random
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import tus
from tests.support.processes import environment, eventually, running_server
from tests.support.tusd import tusds_upload
from tusd_py.engine import Engine, Recovered
from tusd_py.lease import Leases
from tusd_py.ledger.sqlite import SqliteLedger
from tusd_py.protocol.fileinfo import build_sidecar
from tusd_py.protocol.messages import Limits
from tusd_py.protocol.upload import Upload
from tusd_py.storage.file import FileStorage
from tusd_py.transfer import Pace
from tusd_py.upkeep import STRAY_S, recover, sweep, tidy
from tusd_py.wiring import LEDGER_FILE

DAY_S = 24 * 3600.0
OURS = ".tusd_py"

Tree = dict[bytes, tuple[object, ...]]

QUIETLY: dict[str, Any] = {"callback": lambda at: True, "step": lambda: None, "say": lambda text: None}


def tree_of(folder: Path) -> Tree:
    """Return everything about every entry of the folder that is not ours by its name."""
    tree: Tree = {}
    for entry in os.scandir(os.fsencode(folder)):
        if entry.name.startswith(OURS.encode()):
            continue
        is_ = entry.stat(follow_symlinks=False)
        content: object = None
        if stat.S_ISREG(is_.st_mode):
            content = Path(os.fsdecode(entry.path)).read_bytes()
        elif stat.S_ISLNK(is_.st_mode):
            content = os.readlink(entry.path)
        elif stat.S_ISDIR(is_.st_mode):
            content = sorted(os.listdir(entry.path))
        tree[entry.name] = (is_.st_mode, is_.st_size, is_.st_ino, is_.st_nlink, is_.st_mtime_ns, content)
    return tree


def fill(folder: Path, chance: random.Random) -> None:
    """Put a thousand entries of other people into the folder: of every kind, with every form of name, of every age."""
    folder.mkdir(exist_ok=True)
    for name in (
        "LICENSE",
        "Makefile",
        "id_rsa",
        "Thumbs.db",
        "notes.txt",
        ".DS_Store",
        "video.mp4",
        "a.info",
        "x.json",
    ):
        (folder / name).write_text(name)
    (folder / "empty").touch()
    (folder / "a").touch()  # beside a.info, which is no sidecar
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("inside")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "outside").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "sock"))
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.mp4")).write_text("not UTF-8")
    for n in range(160):
        name = chance.randbytes(16).hex()
        text = chance.randbytes(chance.randrange(30)).hex()
        path, info = folder / name, folder / f"{name}.info"
        match n % 16:
            case 0:
                path.write_text(text)
            case 1:
                path.touch()
            case 2:
                info.write_text(text)
            case 3:
                info.touch()
            case 4:  # @tus/server
                path.write_text(text)
                (folder / f"{name}.json").write_text(json.dumps({"id": name, "offset": 0, "size": 10}))
            case 5:  # tusd, resumable
                tusds_upload(folder, name, chance.randrange(10))
            case 6:  # tusd, complete
                tusds_upload(folder, name, 10)
            case 7:  # tusd, without a byte, or moved away by a hook
                tusds_upload(folder, name, 0)
                path.unlink()
            case 8:  # tusd, with the bytes elsewhere
                tusds_upload(folder, name, 0, path="/mnt/elsewhere/" + name)
            case 9:
                path.mkdir()
                info.write_text("{}")
            case 10:
                path.write_text(text)
                info.mkdir()
            case 11:
                path.symlink_to("LICENSE")
                info.symlink_to("a.info")
            case 12:
                os.mkfifo(path)
                os.mkfifo(info)
            case 13:  # ours, and a pipeline moved the bytes: it was finished
                info.write_text(sidecar(name, 10, 10))
            case 14:  # ours, of another name: somebody copied it
                info.write_text(sidecar("f" * 32, 10, 0))
                path.touch()
            case 15:  # tusd, without a byte so far
                tusds_upload(folder, name, 0)
    while len(os.listdir(folder)) < 1000:
        name = chance.choice(("file", "IMG", "clip", chance.randbytes(8).hex())) + str(chance.randrange(10**6))
        (folder / (name + chance.choice(("", "", ".mp4", ".info", ".json", ".lock", ".part")))).write_text(name)
    now = time.time()
    for entry in os.scandir(folder):
        at = now - chance.choice((0, 60, 2 * STRAY_S, 8 * DAY_S, 3650 * DAY_S))
        os.utime(entry.path, (at, at), follow_symlinks=False)


def sidecar(name: str, length: int, offset: int) -> str:
    upload = Upload(id=name, length=length, offset=offset, metadata="", created_at=1.5)
    return build_sidecar(upload, {"Type": "filestore"})


@asynccontextmanager
async def parts(folder: Path, days: float) -> AsyncIterator[tuple[Engine, SqliteLedger, FileStorage]]:
    """An engine on the folder, so many days from now."""
    storage = FileStorage(folder, durable=False)
    ledger = SqliteLedger(folder / LEDGER_FILE, wall=lambda: time.time() + days * DAY_S)
    try:
        await ledger.open(storage)
        await ledger.bind()
        yield (
            Engine(ledger, storage, Leases(ledger, 10.0, 1.0), Limits(), Pace(2**24, 10.0), 7 * DAY_S),
            ledger,
            storage,
        )
    finally:
        await ledger.close()
        storage.close()


@pytest.mark.anyio
async def test_a_thousand_files_of_others_are_left_as_they_are(tmp_path: Path) -> None:
    """Days of sweep, tidy and recover, with and without records: not a byte, not a time, not a name changes."""
    folder = tmp_path / "uploads"
    fill(folder, random.Random(5))
    before = tree_of(folder)

    assert len(before) >= 1000

    for days in (0, 8, 30):
        async with parts(folder, days) as (engine, ledger, storage):
            assert () == (await tidy(ledger, storage)).removed

            await recover(engine, (await storage.listing()).ids, dry_run=days == 0, **QUIETLY)
            await ledger.recovered()

            assert () == (await tidy(ledger, storage)).removed

            await sweep(engine, ledger)

        assert before == tree_of(folder)


def test_a_server_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    fill(folder, random.Random(6))
    before = tree_of(folder)
    command = [sys.executable, "-m", "tusd_py", "tidy", "--upload-dir", str(folder)]
    with running_server(tmp_path, "--tidy-interval", "0.2", "--sweep-interval", "0.2") as server:
        url = tus.create(server.url, 3)
        tus.patch(url, 0, b"012")
        eventually(lambda: "have no record" in server.log.read_text() or "has uploads" in server.log.read_text())
        subprocess.run(command, check=False, capture_output=True, timeout=30, env=environment())
        after = tree_of(folder)

    assert before == {name: entry for name, entry in after.items() if tus.upload_id(url).encode() not in name}


@pytest.mark.anyio
async def test_what_a_crash_left_is_removed_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sidecars of ours without an acknowledged byte, and what is left of uploads that are gone."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    old = time.time() - 2 * STRAY_S
    for name, size in (("a" * 32, None), ("b" * 32, 0), ("c" * 32, 4), ("d" * 32, 0)):
        (folder / f"{name}.info").write_text(sidecar(name, 10, 0))
        if size is not None:
            (folder / name).write_bytes(b"x" * size)
        for path in folder.glob(f"{name}*"):
            if name[0] != "d":
                os.utime(path, (old, old))
    async with parts(folder, 0) as (_, ledger, storage):
        await ledger.recovered()  # there were uploads, and the ledger is new
        dry = await tidy(ledger, storage, dry_run=True)

        assert ("a" * 32, "b" * 32) == dry.removed
        assert 2 == dry.unrecorded
        assert 7 == len([path for path in folder.iterdir() if not path.name.startswith(OURS)])

        caplog.set_level("INFO")
        tidied = await tidy(ledger, storage)

    assert dry == tidied
    assert {"c", "d"} == {path.name[0] for path in folder.iterdir() if not path.name.startswith(OURS)}
    for name in ("a" * 32, "b" * 32):
        assert any(name in record.message for record in caplog.records)


@pytest.mark.anyio
async def test_a_tombstone_outlives_files_that_could_not_be_removed(tmp_path: Path) -> None:
    """A deleted video must not come back through recover, however long its folder was in trouble."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    name = "a" * 32
    async with parts(folder, 0) as (engine, ledger, _):
        upload = Upload(id=name, length=4, offset=4, metadata="", created_at=1.0).finished(2.0)
        await ledger.create(upload)
        await engine.terminate(name)
        (folder / name).write_bytes(b"0123")  # as if a crash had come between the record and the files
        (folder / f"{name}.info").write_text(sidecar(name, 4, 4))
    async with parts(folder, 8) as (engine, ledger, _storage):
        assert [Recovered.GONE] == list(await recover(engine, [name], dry_run=False, **QUIETLY))

        await sweep(engine, ledger)

        assert [] == [path.name for path in folder.iterdir() if not path.name.startswith(OURS)]
        assert () == (await ledger.due(ledger.now(), 10)).forgettable
