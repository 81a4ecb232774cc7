"""The main job, end to end: a real video goes up, is cut off, resumes, and the pipeline hears of it."""

import base64
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support import tus
from tests.support.processes import end, environment, eventually, free_port, running_server, start_server
from tests.support.videos import make_video

SECRET = "whsec_" + base64.b64encode(b"m" * 32).decode()


@contextmanager
def running_pipeline(folder: Path, port: int = 0) -> Iterator[str]:
    """The example service for the length of the block; gives its root URL."""
    log = folder / f"pipeline-{time.monotonic_ns()}.log"
    command = [
        *(sys.executable, "-m", "examples.video_assessment", "--port", str(port), "--secret", SECRET),
        *("--videos-dir", str(folder / "uploads"), "--database", str(folder / "assessments.sqlite3")),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        found = eventually(lambda: re.search(r"Listening on (\S+)", log.read_text()), what="the pipeline listens")
        yield found[1]
    finally:
        end(process)


def upload(file: Path, url: str, home: Path, *flags: str) -> "subprocess.Popen[str]":
    """Start `tusd-py upload`."""
    return subprocess.Popen(
        [sys.executable, "-m", "tusd_py", "upload", str(file), "--to", url, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(XDG_STATE_HOME=str(home)),
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sizes(folder: Path) -> list[int]:
    """Return the sizes of the uploads' files."""
    return [path.stat().st_size for path in (folder / "uploads").glob("*") if re.fullmatch("[0-9a-f]{32}", path.name)]


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
def test_a_video_survives_kill_9_and_the_pipeline_hears_of_it(backend: str, tmp_path: Path, redis_url: str) -> None:
    """tuspy uploads; the server dies in the middle and comes back; the same command line goes on by itself."""
    video = make_video(tmp_path / "holiday.mp4", seconds=3)
    port = free_port()
    pipeline_port = free_port()
    flags = [
        *("--webhook-url", f"http://127.0.0.1:{pipeline_port}/hooks", "--webhook-secret", SECRET),
        *("--lease-ttl", "1", "--webhook-timeout", "2"),
    ]
    if backend == "redis":
        flags += ["--redis-url", redis_url]
    with running_pipeline(tmp_path, pipeline_port) as pipeline:
        server = start_server(tmp_path, *flags, port=port)
        client = upload(video, server.url, tmp_path, "--chunk-size", "65536")
        try:
            eventually(lambda: sizes(tmp_path) and sizes(tmp_path)[0] >= 3 * 65536)
            server.kill()

            assert 0 < sizes(tmp_path)[0] < video.stat().st_size

            server = start_server(tmp_path, *flags, port=port)
            out, err = client.communicate(timeout=60)
        finally:
            client.kill()
            client.wait()
            end(server.process)

        assert 0 == client.returncode, err
        assert digest(video) == digest(tmp_path / "uploads" / tus.upload_id(out.strip()))

        with running_server(tmp_path, *flags):
            found = eventually(
                lambda: [a for a in httpx.get(pipeline + "/assessments").json() if a["state"] != "waiting"]
            )

    assert 1 == len(found)
    assert ("done", "holiday.mp4", tus.upload_id(out.strip())) == (
        found[0]["state"],
        found[0]["filename"],
        found[0]["upload_id"],
    )
    assessment = found[0]["assessment"]

    assert (3.0, 320, 240, 25.0, "h264", 75, True) == (
        assessment["duration_s"],
        assessment["width"],
        assessment["height"],
        assessment["frame_rate"],
        assessment["video_codec"],
        assessment["frames"],
        assessment["decodes_to_end"],
    )


def test_ctrl_c_and_the_same_command_again_resumes(tmp_path: Path) -> None:
    """Exit status 130, then 0; no byte is sent twice, no second upload is made."""
    file = tmp_path / "big.bin"
    file.write_bytes(os.urandom(24 * 1024 * 1024))
    with running_server(tmp_path) as server:
        client = upload(file, server.url, tmp_path, "--chunk-size", "65536")
        eventually(lambda: sizes(tmp_path) and sizes(tmp_path)[0] >= 5 * 65536)
        client.send_signal(signal.SIGINT)
        _, err = client.communicate(timeout=30)

        assert (130, True) == (client.returncode, "the same command resumes" in err), err

        again = upload(file, server.url, tmp_path)
        out, err = again.communicate(timeout=60)

        assert 0 == again.returncode, err
        assert re.search(rf"resuming at [1-9]\d* of {file.stat().st_size} bytes", err)
        assert [file.stat().st_size] == sizes(tmp_path)
        assert digest(file) == digest(tmp_path / "uploads" / tus.upload_id(out.strip()))

        # It is done: the same file once more is a new upload.
        third = upload(file, server.url, tmp_path, "--quiet")

        assert out != third.communicate(timeout=60)[0]


def test_an_upload_that_is_gone_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "big.bin"
    file.write_bytes(os.urandom(24 * 1024 * 1024))
    with running_server(tmp_path) as server:
        client = upload(file, server.url, tmp_path, "--chunk-size", "65536")
        eventually(lambda: sizes(tmp_path) and sizes(tmp_path)[0] >= 65536)
        [name] = {path.stem for path in (tmp_path / "uploads").glob("*.info")}
        httpx.delete(server.url + name, headers=tus.TUS)
        out, err = client.communicate(timeout=60)

        assert 0 == client.returncode, err
        assert name != tus.upload_id(out.strip())
        assert digest(file) == digest(tmp_path / "uploads" / tus.upload_id(out.strip()))


def test_the_exit_status_tells(tmp_path: Path) -> None:
    file = tmp_path / "small.bin"
    file.write_bytes(b"x" * 100)
    empty = tmp_path / "empty.bin"
    empty.touch()
    with running_server(tmp_path, "--max-size", "10") as server:
        refused = upload(file, server.url, tmp_path)

        assert "at most 10" in refused.communicate(timeout=30)[1]
        assert 1 == refused.returncode

        nothing = upload(empty, server.url, tmp_path)

        assert nothing.communicate(timeout=30)[0].startswith(server.url)
        assert 0 == nothing.returncode
    away = upload(file, f"http://127.0.0.1:{free_port()}/files/", tmp_path, "--give-up-after", "1")

    assert "gave up" in away.communicate(timeout=30)[1]
    assert 75 == away.returncode

    wrong = upload(tmp_path / "nowhere", "http://x/", tmp_path)

    assert 1 == len(wrong.communicate(timeout=30)[1].splitlines())
    assert 2 == wrong.returncode
