"""The example pipeline accepts only signed callbacks, handles each event once, and survives any file."""

import base64
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from examples.video_assessment.assess import NotAVideo, assess
from tests.support.processes import end, eventually
from tests.support.videos import make_video, rotated

SECRET = "whsec_" + base64.b64encode(b"p" * 32).decode()


@dataclass
class Pipeline:
    """One running service."""

    url: str
    folder: Path
    process: "subprocess.Popen[bytes]"

    def hook(self, name: str, **upload: Any) -> dict[str, Any]:
        """Return a hook about the file with this name in the videos folder."""
        storage = {"Type": "filestore", "Path": f"/elsewhere/uploads/{name}"}
        fields = {"ID": name, "Size": 3, "MetaData": {"filename": f"{name}.mp4"}, "Storage": storage}
        return {"Type": "post-finish", "Event": {"Upload": fields | upload}}

    def post(self, event_id: str, hook: Any, *, age_s: float = 0, secret: str = SECRET) -> httpx.Response:
        """Send a hook as the upload server does."""
        body = hook if isinstance(hook, str) else json.dumps(hook)
        at = datetime.now(UTC) - timedelta(seconds=age_s)
        headers = {
            "webhook-id": event_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign(event_id, at, body),
        }
        return httpx.post(self.url + "/hooks", content=body, headers=headers)

    def settled(self) -> list[dict[str, Any]]:
        """Return all assessments once none of them is waiting."""

        def look() -> list[dict[str, Any]] | None:
            found: list[dict[str, Any]] = httpx.get(self.url + "/assessments").json()
            return found if found and all(one["state"] != "waiting" for one in found) else None

        return eventually(look) or []


@contextmanager
def running(folder: Path) -> Iterator[Pipeline]:
    log = folder / f"log-{time.monotonic_ns()}"
    (folder / "videos").mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "examples.video_assessment", "--port", "0", "--secret", SECRET),
        *("--videos-dir", str(folder / "videos"), "--database", str(folder / "assessments.sqlite3")),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        found = eventually(lambda: re.search(r"Listening on (\S+)", log.read_text()))
        yield Pipeline(found[1], folder / "videos", process)
    finally:
        end(process)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "v.mp4")


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with running(tmp_path) as one:
        yield one


def test_a_video_is_assessed(pipeline: Pipeline, video: Path) -> None:
    shutil.copy(video, pipeline.folder / "v1")
    answer = pipeline.post("e1", pipeline.hook("v1"))

    assert 202 == answer.status_code

    [found] = pipeline.settled()

    assert (answer.json()["id"], "done", "v1.mp4") == (found["id"], found["state"], found["filename"])
    assert {
        "container": "mov,mp4,m4a,3gp,3g2,mj2",
        "video_codec": "h264",
        "audio_codecs": [],
        "duration_s": 2.0,
        "width": 320,
        "height": 240,
        "frame_rate": 25.0,
        "frames": 50,
        "decodes_to_end": True,
        "error": "",
    } == found["assessment"]
    assert found == httpx.get(f"{pipeline.url}/assessments/{found['id']}").json()


def test_concurrent_repeats_of_an_event_are_dropped(pipeline: Pipeline, video: Path) -> None:
    shutil.copy(video, pipeline.folder / "v1")
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: pipeline.post("e1", pipeline.hook("v1")).status_code, range(16)))

    assert [200] * 15 + [202] == sorted(statuses)
    assert 1 == len(pipeline.settled())


def test_a_wrong_or_old_signature_is_401(pipeline: Pipeline) -> None:
    hook = pipeline.hook("v1")
    other = "whsec_" + base64.b64encode(b"q" * 32).decode()

    assert 401 == pipeline.post("e1", hook, secret=other).status_code
    assert 401 == pipeline.post("e1", hook, age_s=600).status_code
    assert 401 == pipeline.post("e1", hook, age_s=-600).status_code
    assert 401 == httpx.post(pipeline.url + "/hooks", json=hook).status_code
    junk = {"webhook-id": "e", "webhook-timestamp": "x", "webhook-signature": "v1,*"}
    assert 401 == httpx.post(pipeline.url + "/hooks", content=b"\xff", headers=junk).status_code
    assert [] == httpx.get(pipeline.url + "/assessments").json()


@pytest.mark.parametrize(
    "hook",
    ["", "not json", "[]", "null", '{"Type":"post-finish"}', '{"Type":"post-finish","Event":{"Upload":[]}}',
     '{"Type":"post-finish","Event":{"Upload":{"ID":"a","Size":"b","Storage":{"Path":"c"}}}}',
     '{"Type":"post-finish","Event":{"Upload":{"ID":"a","Size":true,"Storage":{"Path":"c"}}}}',
     '{"Type":"post-finish","Event":{"Upload":{"ID":"a","Size":9223372036854775808,"Storage":{"Path":"c"}}}}',
     '{"Type":"post-finish","Event":{"Upload":{"ID":"a","Size":%s,"Storage":{"Path":"c"}}}}' % ("9" * 5000),
     '{"Type":"post-finish","Event":{"Upload":{"ID":"\\ud800","Size":1,"Storage":{"Path":"c"}}}}',
     "[" * 100_000],
    ids=lambda hook: hook[:8] + hook[-60:],
)  # fmt: skip
def test_a_body_that_is_not_a_hook_is_422(pipeline: Pipeline, hook: str) -> None:
    assert 422 == pipeline.post("e1", hook).status_code


def test_other_types_of_hooks_are_ignored_and_a_large_body_is_413(pipeline: Pipeline) -> None:
    assert 200 == pipeline.post("e1", pipeline.hook("v1") | {"Type": "post-create"}).status_code
    assert 200 == pipeline.post("e1", {"Type": "pre-create", "Event": {"Upload": {"ID": "", "Size": 3}}}).status_code
    assert 413 == httpx.post(pipeline.url + "/hooks", content=b"x" * (1024 * 1024 + 1)).status_code
    assert [] == httpx.get(pipeline.url + "/assessments").json()


def test_a_file_that_cannot_be_assessed_fails_with_its_reason(pipeline: Pipeline, video: Path) -> None:
    (pipeline.folder / "text").write_text("not a video")
    (pipeline.folder.parent / "secret").write_text("outside")
    (pipeline.folder / "link").symlink_to(pipeline.folder.parent / "secret")
    for name in ("text", "nowhere", "link"):
        pipeline.post(name, pipeline.hook(name))
    found = {one["upload_id"]: one for one in pipeline.settled()}

    assert {"failed"} == {one["state"] for one in found.values()}
    assert "cannot open the file as a video" in found["text"]["reason"]
    assert "No such file" in found["nowhere"]["reason"]
    assert "not in the videos folder" in found["link"]["reason"]


def test_a_truncated_video_does_not_decode_to_the_end(tmp_path: Path, video: Path) -> None:
    whole = tmp_path / "whole.mkv"
    make_video(whole)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assessment = assess(cut)

    assert not assessment.decodes_to_end
    assert 0 < assessment.frames < 50
    assert assessment.error

    headless = tmp_path / "cut.mp4"
    headless.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(NotAVideo):
        assess(headless)


def test_an_mp4_that_lost_its_last_bytes_does_not_decode_to_the_end(tmp_path: Path) -> None:
    """The index comes first, so the file opens and plays; only its last frames are missing."""
    whole = make_video(tmp_path / "whole.mp4", index_first=True).read_bytes()
    cut = tmp_path / "cut.mp4"
    for length in (*range(len(whole) * 9 // 10, len(whole), len(whole) // 50), len(whole) - 100, len(whole) - 1):
        cut.write_bytes(whole[:length])

        assert not assess(cut).decodes_to_end, f"{length} of {len(whole)} bytes"
    cut.write_bytes(whole)

    assert assess(cut).decodes_to_end


def test_a_recording_that_declares_no_duration_is_as_long_as_its_frames(tmp_path: Path) -> None:
    assessment = assess(make_video(tmp_path / "live.mkv", live=True))

    assert (2.0, 50, True) == (assessment.duration_s, assessment.frames, assessment.decodes_to_end)


def test_a_video_held_upright_is_higher_than_wide(tmp_path: Path, video: Path) -> None:
    upright = tmp_path / "upright.mp4"
    upright.write_bytes(rotated(video.read_bytes()))
    assessment = assess(upright)

    assert (240, 320) == (assessment.width, assessment.height)


def test_a_job_answered_with_202_survives_sigkill(tmp_path: Path, video: Path) -> None:
    with running(tmp_path) as first:
        shutil.copy(video, first.folder / "v1")
        answer = first.post("e1", first.hook("v1"))
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(10)

        assert 202 == answer.status_code
    with running(tmp_path) as second:
        [found] = second.settled()

        assert (answer.json()["id"], "done") == (found["id"], found["state"])
        assert 200 == second.post("e1", second.hook("v1")).status_code


def test_the_pages_escape_text_from_outside(pipeline: Pipeline) -> None:
    pipeline.post("e1", pipeline.hook("v1", MetaData={"filename": "<script>alert(1)</script>"}))
    [found] = pipeline.settled()
    for path in ("/assessments", f"/assessments/{found['id']}"):
        page = httpx.get(pipeline.url + path, headers={"Accept": "text/html"})

        assert "text/html; charset=utf-8" == page.headers["Content-Type"]
        assert "<script>" not in page.text
        assert "&lt;script&gt;" in page.text


def test_an_unknown_assessment_is_404_and_a_wrong_limit_400(pipeline: Pipeline) -> None:
    assert 404 == httpx.get(pipeline.url + "/assessments/nothing").status_code
    assert 400 == httpx.get(pipeline.url + "/assessments?limit=-1").status_code
    assert 400 == httpx.get(pipeline.url + "/assessments?limit=" + "9" * 5000).status_code
    assert 200 == httpx.get(pipeline.url + "/assessments?limit=1").status_code


def test_without_a_secret_it_does_not_start() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "examples.video_assessment"], capture_output=True, text=True, timeout=30, env={}
    )

    assert (1, 1) == (ended.returncode, len(ended.stderr.splitlines()))
    assert "--secret" in ended.stderr
