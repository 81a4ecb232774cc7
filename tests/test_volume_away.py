"""A volume that is not there, or another one in its place: an outage; nothing is lost, written or called unknown."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import tus
from tests.support.processes import Server, eventually, running_server

LARGE = os.urandom(200_000)  # carried by the kernel


@pytest.fixture(params=["sqlite", "redis"])
def server(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Server]:
    with running_server(tmp_path, *(("--redis-url", redis_url) if request.param == "redis" else ())) as running:
        yield running


def moved_away(folder: Path) -> None:
    folder.rename(folder.with_name("away"))


def empty_in_its_place(folder: Path) -> None:
    moved_away(folder)
    folder.mkdir()


def another_in_its_place(folder: Path) -> None:
    empty_in_its_place(folder)
    (folder / ".tusd_py.folder").write_text("0" * 32)


def without_identity(folder: Path) -> None:
    empty_in_its_place(folder)
    for path in folder.with_name("away").iterdir():
        if path.name != ".tusd_py.folder":
            shutil.copy(path, folder)


def sizes(folder: Path) -> dict[str, int]:
    """Return the size of every file, but those of a ledger that somebody copied: it is used as what it is."""
    if not folder.exists():
        return {}
    return {path.name: path.stat().st_size for path in folder.iterdir() if ".sqlite3" not in path.name}


AWAYS = [moved_away, empty_in_its_place, another_in_its_place, without_identity]


@pytest.mark.parametrize("leave", AWAYS)
def test_nothing_is_lost_while_the_volume_is_away(
    server: Server, tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    folder = tmp_path / "uploads"
    half, large, done = tus.create(server.url, 10), tus.create(server.url, len(LARGE)), tus.create(server.url, 3)
    tus.patch(half, 0, b"01234")
    tus.patch(done, 0, b"abc")
    leave(folder)
    inside = sizes(folder)
    create = {**tus.TUS, "Upload-Length": "3"}
    refused = {
        "PATCH": tus.patch(half, 5, b"56789"),
        "PATCH of a large body": tus.patch(large, 0, LARGE),
        "POST": httpx.post(server.url, headers=create),
        "POST with a body": httpx.post(server.url, headers=tus.BYTES | create, content=b"abc"),
        "DELETE": httpx.delete(half, headers=tus.TUS),
        "DELETE of a finished upload": httpx.delete(done, headers=tus.TUS),
        "GET": httpx.get(done),
        "ready": httpx.get(server.url.replace("/files/", "/readyz")),
    }

    assert dict.fromkeys(refused, 503) == {name: response.status_code for name, response in refused.items()}
    assert {"retry"} == {response.json()["action"] for name, response in refused.items() if name != "ready"}

    # Another answer but 423, and tus-js-client starts again from byte 0.
    assert [423, 423, 423] == [tus.head(url).status_code for url in (half, large, done)]
    assert 200 == httpx.get(server.url.replace("/files/", "/healthz")).status_code
    assert inside == sizes(folder)

    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name("away").rename(folder)
    eventually(lambda: tus.head(half).status_code == 200, what="the volume is back")

    assert 5 == tus.offset_of(half)
    assert 204 == tus.patch(half, 5, b"56789").status_code
    assert 204 == tus.patch(large, 0, LARGE).status_code
    assert b"0123456789" == httpx.get(half).content
    assert LARGE == httpx.get(large).content
    assert b"abc" == httpx.get(done).content
    assert 204 == httpx.delete(done, headers=tus.TUS).status_code
    assert tus.head(done).status_code in (404, 410)
    assert "Traceback" not in server.log.read_text()


def test_a_file_that_a_pipeline_moved_is_not_found(server: Server, tmp_path: Path) -> None:
    url = tus.create(server.url, 3)
    tus.patch(url, 0, b"abc")
    (tmp_path / "uploads" / tus.upload_id(url)).rename(tmp_path / "moved.mp4")
    response = httpx.get(url)

    assert (404, "ERR_UPLOAD_NOT_FOUND") == (response.status_code, response.json()["code"])
    assert "Traceback" not in server.log.read_text()


def test_a_server_does_not_start_on_an_unmounted_volume(tmp_path: Path, redis_url: str) -> None:
    """Its Redis remembers the folder; an empty one is another."""
    with running_server(tmp_path, "--redis-url", redis_url):
        pass
    empty_in_its_place(tmp_path / "uploads")
    with (
        pytest.raises(AssertionError, match="mount the right volume"),
        running_server(tmp_path, "--redis-url", redis_url),
    ):
        pass

    assert [] == [path.name for path in (tmp_path / "uploads").iterdir()]
