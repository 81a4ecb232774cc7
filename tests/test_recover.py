"""A ledger that lost everything: the records again from the volume, beside live servers."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import redis

from tests import tus
from tests.processes import environment, eventually, running_server
from tests.receiver import receiving
from tusd_py.protocol.fileinfo import build_sidecar
from tusd_py.protocol.upload import Upload

SECRET = "whsec_" + base64.b64encode(b"r" * 32).decode()
MIB = 1024 * 1024


def recover(folder: Path, *flags: str) -> list[str]:
    """Run `tusd-py recover` and return what it printed."""
    ended = subprocess.run(
        [sys.executable, "-m", "tusd_py", "recover", "--upload-dir", str(folder), *flags],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(),
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines() + ended.stderr.splitlines()


def test_a_redis_that_lost_everything(tmp_path: Path, redis_url: str) -> None:
    """What was complete is complete and told again under its id, the rest resumes at a safe offset. Twice is once."""
    uploads = tmp_path / "uploads"
    with receiving() as receiver:
        flags = ("--redis-url", redis_url, "--webhook-url", receiver.url, "--webhook-secret", SECRET)
        with running_server(tmp_path, *flags) as server:
            complete = tus.create(server.url, 5, filename="done.mp4")
            tus.patch(complete, 0, b"01234")
            half = tus.create(server.url, 10, filename="half.mp4")
            tus.patch(half, 0, b"012")
            # Never acknowledged: it must not count, though it lies in the file.
            digest = base64.b64encode(b"x" * 20).decode()
            assert 460 == tus.patch(half, 3, b"XXXX", Upload_Checksum=f"sha1 {digest}").status_code
            gone = tus.create(server.url, 10)
            httpx.delete(gone, headers=tus.TUS)
            eventually(lambda: len(receiver.received) == 1)
            with redis.Redis.from_url(redis_url) as client:
                client.flushall()

            assert [404, 404] == [tus.head(complete).status_code, tus.head(half).status_code]

            expected = ["1 are complete and told again", "1 can be resumed"]

            assert [f"{line} (dry run)" for line in expected] == recover(uploads, "--redis-url", redis_url, "--dry-run")
            assert 404 == tus.head(half).status_code
            assert expected == recover(uploads, "--redis-url", redis_url)
            assert ["2 had a record"] == recover(uploads, "--redis-url", redis_url)

            eventually(lambda: len(receiver.received) == 2)

            assert {f"post-finish-{tus.upload_id(complete)}"} == set(receiver.ids())
            assert b"01234" == httpx.get(complete).content

            head = tus.head(half)

            assert ("3", "10", "filename aGFsZi5tcDQ=") == (
                head.headers["Upload-Offset"],
                head.headers["Upload-Length"],
                head.headers["Upload-Metadata"],
            )
            assert 204 == tus.patch(half, 3, b"3456789").status_code
            assert b"0123456789" == httpx.get(half).content


def test_a_running_patch_does_not_mix_with_what_was_recovered(tmp_path: Path, redis_url: str) -> None:
    """Its lease is gone with the record: nothing that it still writes is acknowledged to anybody."""
    source = bytes(range(256)) * (2 * MIB // 256)
    flags = ("--redis-url", redis_url, "--lease-ttl", "2")
    with running_server(tmp_path, *flags) as a, running_server(tmp_path, *flags) as b:
        url = tus.create(a.url, len(source))
        with tus.half_sent(url, 0, len(source), source[:MIB]) as running:
            eventually(lambda: MIB == tus.offset_of(url))
            with redis.Redis.from_url(redis_url) as client:
                client.flushall()
            recover(tmp_path / "uploads", "--redis-url", redis_url)
            running.sendall(b"\xee" * 1000)
            offset = tus.offset_of(tus.on(url, b.url))

            assert MIB == offset

            eventually(lambda: tus.patch(tus.on(url, b.url), offset, source[offset:]).status_code == 204)
        assert source == httpx.get(url).content


def test_a_lost_sqlite_file(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        url = tus.create(server.url, 10)
        tus.patch(url, 0, b"01234")
    for path in (tmp_path / "uploads").glob(".tusd_py.sqlite3*"):
        path.unlink()

    assert ["1 can be resumed"] == recover(tmp_path / "uploads")

    with running_server(tmp_path) as server:
        assert 5 == tus.offset_of(tus.on(url, server.url))
        assert 204 == tus.patch(tus.on(url, server.url), 5, b"56789").status_code


def test_a_folder_of_tusds_is_taken_over(tmp_path: Path) -> None:
    """Offset is the size of the file; what cannot be read is named."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    for name, size in (("a" * 32, 10), ("b" * 32, 4)):
        storage = {"Type": "filestore", "Path": str(folder / name), "InfoPath": str(folder / f"{name}.info")}
        info = {
            "ID": name,
            "Size": 10,
            "SizeIsDeferred": False,
            "Offset": 0,
            "MetaData": {"filename": "a.mp4"},
            "IsPartial": False,
            "IsFinal": False,
            "PartialUploads": None,
            "Storage": storage,
        }
        (folder / f"{name}.info").write_text(json.dumps(info))
        (folder / name).write_bytes(b"0123456789"[:size])
    (folder / ("c" * 32)).write_bytes(b"whose?")
    printed = recover(folder)

    assert ["1 are complete and told again", "1 can be resumed", "1 could not be read"] == sorted(printed[:3])
    assert re.match("c{32}: .* is missing", printed[3])

    with running_server(tmp_path) as server:
        assert 4 == tus.offset_of(server.url + "b" * 32)
        assert 204 == tus.patch(server.url + "b" * 32, 4, b"456789").status_code
        assert b"0123456789" == httpx.get(server.url + "a" * 32).content


def test_what_a_crash_left_over_is_removed(tmp_path: Path) -> None:
    """Old files with our mark and without bytes; never a file that others may have put there."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    for name in ("a" * 32, "b" * 32, "d" * 32):
        upload = Upload(id=name, length=10, offset=0, metadata="", created_at=0.0)
        (folder / f"{name}.info").write_text(build_sidecar(upload, {}))
        (folder / name).touch()
    (folder / ("b" * 32)).write_bytes(b"something")
    for name in ("LICENSE", "e" * 32, "f" * 32, f"{'f' * 32}.info"):
        (folder / name).touch()
    for path in folder.iterdir():
        if path.name[0] != "d":
            subprocess.run(["touch", "-d", "2 hours ago", str(path)], check=True)
    with running_server(tmp_path, "--tidy-interval", "1"):
        eventually(lambda: not (folder / ("a" * 32)).exists())

        left = sorted(path.name[0] for path in folder.iterdir() if not path.name.startswith("."))

        assert ["L", "b", "b", "d", "d", "e", "f", "f"] == left
