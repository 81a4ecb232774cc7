"""A final upload that is asked for again, or whose making was interrupted: one upload, one copy, one completion."""

import base64
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import tus
from tests.support.processes import Server, eventually, running_server
from tests.support.receiver import Receiver, receiving

SECRET = "whsec_" + base64.b64encode(b"c" * 32).decode()
MIB = 1024 * 1024


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture(params=["sqlite", "redis"])
def flags(request: pytest.FixtureRequest, redis_url: str, receiver: Receiver) -> tuple[str, ...]:
    ledger = ("--redis-url", redis_url) if request.param == "redis" else ()
    return *ledger, "--webhook-url", receiver.url, "--webhook-secret", SECRET, "--lease-ttl", "1"


def part(url: str, body: bytes) -> str:
    """Return the path of a finished part."""
    headers = {**tus.BYTES, "Upload-Length": str(len(body)), "Upload-Concat": "partial"}
    created = httpx.post(url, headers=headers, content=body, timeout=30)

    assert 201 == created.status_code
    return "/files/" + tus.upload_id(created.headers["Location"])


def concatenate(url: str, parts: list[str], metadata: str = "") -> httpx.Response:
    headers = {**tus.TUS, "Upload-Concat": "final;" + " ".join(parts), "Upload-Metadata": metadata}
    return httpx.post(url, headers=headers, timeout=30)


def files_of(folder: Path) -> set[str]:
    return {path.name for path in (folder / "uploads").iterdir() if not path.name.startswith(".")}


def test_asked_for_again_it_is_the_same_upload(tmp_path: Path, flags: tuple[str, ...], receiver: Receiver) -> None:
    """The answer was lost, or the client asks many times at once."""
    with running_server(tmp_path, *flags) as server:
        parts = [part(server.url, b"hello "), part(server.url, b"world")]
        before = files_of(tmp_path)
        answers: list[httpx.Response] = []
        asking = [threading.Thread(target=lambda: answers.append(concatenate(server.url, parts))) for _ in range(6)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()

        assert {201} == {answer.status_code for answer in answers}

        [location] = {answer.headers["Location"] for answer in answers}

        assert b"hello world" == httpx.get(location).content
        assert {tus.upload_id(location), tus.upload_id(location) + ".info"} == files_of(tmp_path) - before

        other = concatenate(server.url, parts, "filename YQ==")

        assert location != other.headers["Location"]

        eventually(lambda: len(set(receiver.ids())) == 2)

        assert 2 == len(receiver.received)


def test_a_final_upload_that_was_removed_can_be_made_again(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with running_server(tmp_path, *flags) as server:
        parts = [part(server.url, b"hello "), part(server.url, b"world")]
        first = concatenate(server.url, parts).headers["Location"]

        assert 204 == httpx.delete(first, headers=tus.TUS).status_code

        second = concatenate(server.url, parts).headers["Location"]

        assert first != second
        assert b"hello world" == httpx.get(second).content
        assert tus.head(first).status_code in (404, 410)


def test_tries_that_a_crash_ended_leave_one_copy_and_no_completion(
    tmp_path: Path, flags: tuple[str, ...], receiver: Receiver
) -> None:
    """Each left a whole copy, and recover called them complete."""

    def killed_while_it_copies(server: Server, parts: list[str]) -> None:
        copying = threading.Thread(target=lambda: ask_in_vain(server, parts))
        known = files_of(tmp_path)
        copying.start()
        eventually(lambda: files_of(tmp_path) - known or not copying.is_alive())
        server.kill()
        copying.join()

    with running_server(tmp_path, *flags) as server:
        parts = [part(server.url, bytes([n]) * (4 * MIB)) for n in range(4)]
    for _ in range(3):
        with running_server(tmp_path, *flags) as server:
            killed_while_it_copies(server, parts)
    finals = {name for name in files_of(tmp_path) if f"/files/{name.removesuffix('.info')}" not in parts}

    assert len(finals) <= 2, finals

    with running_server(tmp_path, *flags) as server:
        answer = concatenate(server.url, parts)

        assert 201 == answer.status_code

        location = answer.headers["Location"]

        assert b"".join(bytes([n]) * (4 * MIB) for n in range(4)) == httpx.get(location).content

        eventually(lambda: receiver.ids())

        assert {f"post-finish-{tus.upload_id(location)}"} == set(receiver.ids())
        assert {tus.upload_id(location), tus.upload_id(location) + ".info"} == {
            name for name in files_of(tmp_path) if f"/files/{name.removesuffix('.info')}" not in parts
        }


def ask_in_vain(server: Server, parts: list[str]) -> None:
    try:
        concatenate(server.url, parts)
    except httpx.HTTPError:
        return
