"""A ledger that lost everything: the records again from the volume, beside live servers."""

import base64
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import redis

from tests.support import tus
from tests.support.processes import environment, eventually, running_server
from tests.support.receiver import receiving
from tests.support.tusd import tusds_upload

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
    """What was complete is complete, its event is sent again, the rest resumes at a safe offset. Twice is once."""
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

            # Not 404: the client would start again from byte 0.
            assert [423, 423] == [tus.head(complete).status_code, tus.head(half).status_code]

            expected = ["1 are complete", "1 can be resumed"]

            assert [f"{line} (dry run)" for line in expected] == recover(uploads, "--redis-url", redis_url, "--dry-run")
            assert 423 == tus.head(half).status_code
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
            assert 404 == tus.head(server.url + "0" * 32).status_code


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


def test_a_ledger_that_is_older_than_the_volume_is_brought_forward(tmp_path: Path, redis_url: str) -> None:
    """Redis came back with an older snapshot: what was finished since is finished, and its callback goes out."""
    uploads = tmp_path / "uploads"
    with receiving() as receiver, redis.Redis.from_url(redis_url) as client:
        flags = ("--redis-url", redis_url, "--webhook-url", receiver.url, "--webhook-secret", SECRET)
        with running_server(tmp_path, *flags) as server:
            finished, grown, same = (tus.create(server.url, 10) for _ in range(3))
            for url in (finished, grown, same):
                tus.patch(url, 0, b"012")
            snapshot = {key: client.dump(key) for key in client.keys("*")}
            tus.patch(finished, 3, b"3456789")
            tus.patch(grown, 3, b"345")
            eventually(lambda: len(receiver.received) == 1)
        client.flushall()
        for key, value in snapshot.items():
            client.restore(key, 0, value)

        expected = ["1 had a record", "2 had a record that was behind"]

        assert [f"{line} (dry run)" for line in expected] == recover(uploads, "--redis-url", redis_url, "--dry-run")
        assert expected == recover(uploads, "--redis-url", redis_url)
        assert ["3 had a record"] == recover(uploads, "--redis-url", redis_url)

        with running_server(tmp_path, *flags) as server:
            assert [10, 6, 3] == [tus.offset_of(tus.on(url, server.url)) for url in (finished, grown, same)]
            eventually(lambda: len(receiver.received) == 2)

            assert {f"post-finish-{tus.upload_id(finished)}"} == set(receiver.ids())
            assert b"0123456789" == httpx.get(tus.on(finished, server.url)).content


def test_events_of_old_finishes_need_not_be_sent_again(tmp_path: Path, redis_url: str) -> None:
    """By hand (--no-callbacks) or by time; what is sent says that recover sent it."""
    uploads = tmp_path / "uploads"
    flags = ("--redis-url", redis_url)
    with redis.Redis.from_url(redis_url) as client:

        def owed() -> list[bytes]:
            return [fields[b"body"] for _, fields in client.xrange("tusd:{0}:events")]

        with running_server(tmp_path, *flags) as server:
            old, new = tus.create(server.url, 3), tus.create(server.url, 3)
            for url in (old, new):
                tus.patch(url, 0, b"012")
            for name in (tus.upload_id(old), tus.upload_id(old) + ".info"):
                subprocess.run(["touch", "-d", "2 days ago", str(uploads / name)], check=True)
        since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        for options, expected in (
            (["--no-callbacks"], []),
            (["--callbacks-since", since], [new]),
            (["--callbacks-since", "2020-01-01"], [old, new]),
            ([], [old, new]),
        ):
            client.flushall()

            assert ["2 are complete"] == recover(uploads, *flags, *options)

            events = [json.loads(body) for body in owed()]

            assert {tus.upload_id(url) for url in expected} == {event["Event"]["Upload"]["ID"] for event in events}
            assert all(event["Recovered"] is True for event in events)


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tusd_py", "recover", "--upload-dir", str(tmp_path), "--callbacks-since", "yesterday"],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(),
    )

    assert (2, True) == (ended.returncode, "yesterday" in ended.stderr)


def test_a_folder_of_tusds_is_taken_over(tmp_path: Path) -> None:
    """Offset is the size of the file; what cannot be read is named."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    for name, size in (("a" * 32, 10), ("b" * 32, 4)):
        tusds_upload(folder, name, size)
    (folder / ("c" * 32)).write_bytes(b"whose?")
    printed = recover(folder)

    assert ["1 are complete", "1 are no uploads", "1 can be resumed"] == sorted(printed[:3])
    assert re.match("c{32}: .* is missing", printed[3])

    with running_server(tmp_path) as server:
        assert 4 == tus.offset_of(server.url + "b" * 32)
        assert 204 == tus.patch(server.url + "b" * 32, 4, b"456789").status_code
        assert b"0123456789" == httpx.get(server.url + "a" * 32).content


def test_what_tusd_finished_meanwhile_is_finished(tmp_path: Path, redis_url: str) -> None:
    """Taken over half-way, and then written to by tusd again: only a file with every byte proves anything."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    for name in ("a" * 32, "b" * 32):
        tusds_upload(folder, name, 4)

    assert ["2 can be resumed"] == recover(folder, "--redis-url", redis_url)

    (folder / ("a" * 32)).write_bytes(b"0123456789")
    (folder / ("b" * 32)).write_bytes(b"012345")

    assert ["1 had a record", "1 had a record that was behind"] == recover(folder, "--redis-url", redis_url)

    with running_server(tmp_path, "--redis-url", redis_url) as server:
        assert 10 == tus.offset_of(server.url + "a" * 32)
        assert 4 == tus.offset_of(server.url + "b" * 32)
        assert b"0123456789" == httpx.get(server.url + "a" * 32).content


@pytest.mark.parametrize(
    "metadata",
    [
        {"größe": "1", "filename": "a.mp4"},
        {"two words": "1", "filename": "a.mp4"},
        {"filename": "a.mp4", "x": "y" * 40_000},
    ],
)
def test_what_can_be_resumed_according_to_recover_can(tmp_path: Path, metadata: dict[str, str]) -> None:
    """Metadata that no header can carry is left out, and named."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    tusds_upload(folder, "a" * 32, 4, metadata)
    printed = recover(folder)

    assert "1 can be resumed" == printed[0]
    assert re.search("metadata .* is left out", printed[1])

    with running_server(tmp_path) as server:
        url = server.url + "a" * 32

        assert (200, "filename YS5tcDQ=") == (tus.head(url).status_code, tus.head(url).headers["Upload-Metadata"])
        assert 204 == tus.patch(url, 4, b"456789").status_code


def test_whatever_lies_in_the_folder_is_counted_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    tusds_upload(folder, "a" * 32, 10)
    (folder / ("b" * 32 + ".info")).mkdir()
    (folder / "no upload.info").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    (folder / "sub").mkdir()
    (folder / "away").symlink_to(folder / "nowhere")
    os.mkfifo(folder / ("c" * 32 + ".info"))
    printed = recover(folder)
    lines = "\n".join(printed)

    assert "1 are complete" in printed

    for name in ("b" * 32, "no upload.info", "notes.txt", "sub", "away", "c" * 32):
        assert re.search(f"^{name}.*: ", lines, re.MULTILINE), name
