"""tus-js-client on Node uploads to a real server, through kills on either side."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.content import sha256, stored
from tests.support.node import CLIENTS
from tests.support.processes import Server, end, eventually, running_server
from tests.support.receiver import receiving
from tests.support.tus import head, offset_of, patch, upload_id

MIB = 1024 * 1024
SHORT_LEASE = ("--lease-ttl", "2")  # seconds that a killed server's upload stays locked
SECRET = ("--webhook-secret", "whsec_" + base64.b64encode(b"k" * 32).decode())


@dataclass
class Client:
    """One run of upload.mjs."""

    process: "subprocess.Popen[bytes]"
    log: Path  # its standard output

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return what it has told so far, of one kind."""
        lines = self.log.read_bytes().splitlines(keepends=True)
        events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [event for event in events if event["event"] == kind]

    def requests(self) -> list[str]:
        """Return the methods of its requests, in order."""
        return [event["method"] for event in self.events("request")]

    def url(self) -> str:
        """Return the URL of the upload, as soon as there is one."""
        return str(eventually(lambda: self.events("url"), what="the client has a URL")[0]["url"])

    def created(self) -> list[str]:
        """Return the URLs of all uploads that it has created so far, parts and finals too."""
        replies = [event for event in self.events("response") if event["method"] == "POST"]
        return [event["location"] for event in replies if event["status"] == 201]

    def end(self) -> None:
        """Wait for the end by itself, whatever has become of the upload."""
        status = self.process.wait(40)
        assert status == 0, self.log.read_text()[-2000:]

    def finish(self) -> str:
        """Wait for the end and return the URL of the finished upload."""
        self.end()
        return str(self.events("success")[0]["url"])

    def kill(self) -> None:
        """SIGKILL: no goodbye to the server but a closed connection."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def running_client(node: str, server: Server, file: Path, *flags: str) -> Iterator[Client]:
    """upload.mjs for the length of the block; it remembers URLs beside the file, so the next run resumes."""
    log = file.with_name(f"client-{len(list(file.parent.glob('client-*')))}.jsonl")
    command = [node, str(CLIENTS / "upload.mjs"), "--store", str(file.with_name("urls.json")), *flags, server.url]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, str(file)], stdout=out, stdin=subprocess.DEVNULL)
    try:
        yield Client(process, log)
    finally:
        end(process)


def make_file(folder: Path, length: int) -> Path:
    """Return a new file of that many random bytes."""
    file = folder / "lecture.bin"
    file.write_bytes(os.urandom(length))
    return file


def downloaded(url: str) -> str:
    """Return the SHA-256 of what a GET brings."""
    return sha256(httpx.get(url).raise_for_status().content)


def remembered(file: Path) -> str:
    """Return what the client remembers of unfinished uploads, as JSON."""
    store = file.with_name("urls.json")
    return store.read_text() if store.exists() else "{}"


def arrived(url: str, at_least: int) -> int:
    """Return the offset as soon as it is at_least."""

    def far_enough() -> int:
        offset = offset_of(url)
        return offset if offset >= at_least else 0

    return eventually(far_enough, what=f"{at_least} bytes have arrived")


def test_an_upload_in_one_request_arrives_whole(node: str, tmp_path: Path) -> None:
    """A POST, one PATCH, and the bytes are on the disk and under the URL."""
    file = make_file(tmp_path, 24 * MIB)
    with running_server(tmp_path) as server, running_client(node, server, file) as client:
        url = client.finish()
        fetched = downloaded(url)

    assert ["POST", "PATCH"] == client.requests()
    assert sha256(file.read_bytes()) == stored(tmp_path, url) == fetched


def test_an_upload_in_many_requests_arrives_whole(node: str, tmp_path: Path) -> None:
    """Chunks of 512 KiB and an odd rest: one PATCH each, and no retry among them."""
    file = make_file(tmp_path, 24 * MIB + 12345)
    with running_server(tmp_path) as server:
        with running_client(node, server, file, "--chunk-size", str(MIB // 2)) as client:
            url = client.finish()
        fetched = downloaded(url)

    assert ["POST", *["PATCH"] * 49] == client.requests()
    assert [] == client.events("retry")
    assert sha256(file.read_bytes()) == stored(tmp_path, url) == fetched


def test_an_upload_within_the_creation_is_one_request(node: str, tmp_path: Path) -> None:
    """With uploadDataDuringCreation the POST carries the whole file."""
    file = make_file(tmp_path, 24 * MIB)
    with running_server(tmp_path) as server:
        with running_client(node, server, file, "--data-during-creation") as client:
            url = client.finish()
        fetched = downloaded(url)

    assert ["POST"] == client.requests()
    assert sha256(file.read_bytes()) == stored(tmp_path, url) == fetched


def test_an_upload_begun_within_the_creation_goes_on_in_chunks(node: str, tmp_path: Path) -> None:
    """With uploadDataDuringCreation and a chunk size the POST carries the first chunk."""
    file = make_file(tmp_path, 10 * MIB)
    flags = ("--data-during-creation", "--chunk-size", str(4 * MIB))
    with running_server(tmp_path) as server, running_client(node, server, file, *flags) as client:
        url = client.finish()

    assert ["POST", "PATCH", "PATCH"] == client.requests()
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_a_killed_client_resumes_where_it_was(node: str, tmp_path: Path) -> None:
    """kill -9 of the client in mid-PATCH; its second start asks with HEAD and sends the rest to the same URL."""
    file = make_file(tmp_path, 32 * MIB)
    with running_server(tmp_path) as server:
        with running_client(node, server, file, "--rate", str(10 * MIB)) as first:
            url = first.url()
            arrived(url, 4 * MIB)
            first.kill()
        cut_at = offset_of(url)
        with running_client(node, server, file) as second:
            finished = second.finish()
        fetched = downloaded(url)

    assert 0 < cut_at < 32 * MIB
    assert url == finished
    assert ["HEAD", "PATCH"] == second.requests()
    assert cut_at <= second.events("request")[1]["offset"] < 32 * MIB
    assert sha256(file.read_bytes()) == stored(tmp_path, url) == fetched


def test_a_killed_server_is_outlived(node: str, tmp_path: Path) -> None:
    """kill -9 of the server in mid-PATCH; the client's own retries find the next server and send it the rest."""
    file = make_file(tmp_path, 24 * MIB)
    slowly = ("--rate", str(10 * MIB))
    with running_server(tmp_path, *SHORT_LEASE) as server, running_client(node, server, file, *slowly) as client:
        url = client.url()
        cut_at = arrived(url, 4 * MIB)
        server.kill()
        eventually(lambda: client.events("retry"), what="the client has noticed")
        with running_server(tmp_path, *SHORT_LEASE, port=urlsplit(server.url).port or 0):
            finished = client.finish()
            fetched = downloaded(url)
        patches = [event["offset"] for event in client.events("request") if event["method"] == "PATCH"]

    assert 0 < cut_at < 24 * MIB
    assert url == finished
    assert 1 == client.requests().count("POST")
    assert cut_at <= patches[-1] < 24 * MIB
    assert sha256(file.read_bytes()) == stored(tmp_path, url) == fetched


def test_a_killed_server_is_outlived_in_many_requests(node: str, tmp_path: Path) -> None:
    """The same with chunks: what was answered with 204 before the kill is never sent again."""
    file = make_file(tmp_path, 24 * MIB)
    flags = ("--rate", str(10 * MIB), "--chunk-size", str(2 * MIB))
    with running_server(tmp_path, *SHORT_LEASE) as server, running_client(node, server, file, *flags) as client:
        url = client.url()
        arrived(url, 4 * MIB)
        server.kill()
        eventually(lambda: client.events("retry"), what="the client has noticed")
        patches_before = [event for event in client.events("response") if event["status"] == 204]
        with running_server(tmp_path, *SHORT_LEASE, port=urlsplit(server.url).port or 0):
            client.finish()
        patches = [event["offset"] for event in client.events("request") if event["method"] == "PATCH"]

    assert 0 < len(patches_before) < 12
    assert 1 == client.requests().count("POST")
    assert sorted(patches) == patches
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_a_killed_client_resumes_all_its_parts(node: str, tmp_path: Path) -> None:
    """kill -9 amid parallelUploads; the second start asks for each part, sends its rest, and concatenates them.

    Only the final upload is told as finished, and only once.
    """
    file = make_file(tmp_path, 24 * MIB + 1)
    with receiving() as receiver:
        with running_server(tmp_path, "--webhook-url", receiver.url, *SECRET) as server:
            with running_client(node, server, file, "--parallel", "3", "--rate", str(4 * MIB)) as first:
                parts = eventually(lambda: len(first.created()) == 3 and first.created(), what="three parts")
                eventually(lambda: "parallelUploadUrls" in remembered(file), what="their URLs are remembered")
                for part in parts:
                    arrived(part, 2 * MIB)
                first.kill()
            cut_at = {part: offset_of(part) for part in parts}
            with running_client(node, server, file, "--parallel", "3") as second:
                url = second.finish()
            fetched = downloaded(url)
            eventually(lambda: receiver.received, what="the callback")
        told = [json.loads(body)["Event"]["Upload"] for _, body in receiver.received]
    patched = {event["url"]: event["offset"] for event in second.events("request") if event["method"] == "PATCH"}

    assert ["HEAD", "HEAD", "HEAD", "PATCH", "PATCH", "PATCH", "POST"] == sorted(second.requests())
    assert "POST" == second.requests()[-1]
    assert set(parts) == set(patched)
    assert all(0 < cut_at[part] <= patched[part] < 8 * MIB for part in parts)
    assert [url] == second.created()
    assert url not in parts
    assert [upload_id(url)] == [upload["ID"] for upload in told]
    assert sha256(file.read_bytes()) == stored(tmp_path, url) == fetched


def test_a_killed_server_is_outlived_in_parts(node: str, tmp_path: Path) -> None:
    """kill -9 of the server amid parallelUploads in chunks: every part finds its way to the next server."""
    file = make_file(tmp_path, 24 * MIB + 1)
    flags = ("--parallel", "3", "--chunk-size", str(3 * MIB), "--rate", str(4 * MIB))
    with running_server(tmp_path, *SHORT_LEASE) as server, running_client(node, server, file, *flags) as client:
        parts = eventually(lambda: len(client.created()) == 3 and client.created(), what="three parts")
        for part in parts:
            arrived(part, 2 * MIB)
        server.kill()
        eventually(lambda: client.events("retry"), what="the client has noticed")
        with running_server(tmp_path, *SHORT_LEASE, port=urlsplit(server.url).port or 0):
            url = client.finish()

    assert [*parts, url] == client.created()
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_a_stream_tells_its_length_at_its_end(node: str, tmp_path: Path) -> None:
    """With uploadLengthDeferred the length comes with the last chunk."""
    file = make_file(tmp_path, 24 * MIB + 1)
    flags = ("--stream", "--chunk-size", str(8 * MIB))
    with running_server(tmp_path) as server, running_client(node, server, file, *flags) as client:
        url = client.finish()
        fetched = downloaded(url)
        length = head(url).headers["Upload-Length"]

    assert ["POST", *["PATCH"] * 4] == client.requests()
    assert [None] * 4 + [str(24 * MIB + 1)] == [event.get("length") for event in client.events("request")]
    assert str(24 * MIB + 1) == length
    assert sha256(file.read_bytes()) == stored(tmp_path, url) == fetched


def test_a_stream_may_tell_its_length_twice(node: str, tmp_path: Path) -> None:
    """kill -9 of the server amid the last chunk: the retry tells the length again, and is not refused for it."""
    file = make_file(tmp_path, 24 * MIB)
    flags = ("--stream", "--chunk-size", str(14 * MIB), "--rate", str(10 * MIB))
    with running_server(tmp_path, *SHORT_LEASE) as server, running_client(node, server, file, *flags) as client:
        url = client.url()
        arrived(url, 16 * MIB)
        server.kill()
        eventually(lambda: client.events("retry"), what="the client has noticed")
        with running_server(tmp_path, *SHORT_LEASE, port=urlsplit(server.url).port or 0):
            client.finish()
        told = [event["offset"] for event in client.events("request") if event.get("length")]

    assert 14 * MIB == told[0]
    assert 14 * MIB <= told[-1] < 24 * MIB
    assert 2 <= len(told)
    assert 1 == client.requests().count("POST")
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_a_stream_that_never_told_its_length_can_be_finished(node: str, tmp_path: Path) -> None:
    """A chunk size that divides the stream's length: tus-js-client 4.3.1 waits for more and never says that it is over.

    Its issue 779. No byte is lost: all are here under an unknown length, and an empty PATCH that tells it finishes.
    """
    file = make_file(tmp_path, 24 * MIB)
    flags = ("--stream", "--chunk-size", str(8 * MIB))
    with running_server(tmp_path) as server:
        with running_client(node, server, file, *flags) as client:
            client.end()
        url = client.url()
        left = head(url).headers
        finished = patch(url, 24 * MIB, b"", Upload_Length=str(24 * MIB))
        length = head(url).headers["Upload-Length"]
        fetched = downloaded(url)

    assert ["POST", *["PATCH"] * 3] == client.requests()
    assert [] == client.events("success")
    assert [] == client.events("error")
    assert (str(24 * MIB), "1", None) == (
        left["Upload-Offset"],
        left["Upload-Defer-Length"],
        left.get("Upload-Length"),
    )
    assert 204 == finished.status_code
    assert str(24 * MIB) == length
    assert sha256(file.read_bytes()) == stored(tmp_path, url) == fetched


def test_patch_may_come_as_post(node: str, tmp_path: Path) -> None:
    """With overridePatchMethod every PATCH is a POST with X-HTTP-Method-Override."""
    file = make_file(tmp_path, 3 * MIB)
    flags = ("--override-patch", "--chunk-size", str(MIB))
    with running_server(tmp_path) as server, running_client(node, server, file, *flags) as client:
        url = client.finish()

    assert ["POST"] * 4 == client.requests()
    assert [None, *["PATCH"] * 3] == [event.get("override") for event in client.events("request")]
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_headers_of_the_clients_own_reach_the_receiver(node: str, tmp_path: Path) -> None:
    """addRequestId and the headers option: what came with the last request is in the callback, but credentials."""
    file = make_file(tmp_path, MIB)
    flags = ("--request-id", "--header", "X-Course:algebra", "--header", "Authorization:Bearer abc")
    with receiving() as receiver:
        with (
            running_server(tmp_path, "--webhook-url", receiver.url, *SECRET) as server,
            running_client(node, server, file, *flags) as client,
        ):
            client.finish()
            eventually(lambda: receiver.received, what="the callback")
        told = json.loads(receiver.received[0][1])["Event"]["HTTPRequest"]["Header"]
    ids = [event["id"] for event in client.events("request")]

    assert 2 == len(set(ids))
    assert [ids[-1]] == told["X-Request-Id"]
    assert ["algebra"] == told["X-Course"]
    assert "Authorization" not in told


@pytest.mark.parametrize(
    ("flags", "uploads"),
    [
        (["--terminate"], 1),
        (["--parallel", "3", "--terminate"], 1),
        (["--rate", str(6 * MIB), "--abort-at", str(4 * MIB)], 1),
        (["--parallel", "3", "--rate", str(2 * MIB), "--abort-at", str(4 * MIB)], 3),
    ],
    ids=["finished", "finished in parts", "unfinished", "unfinished in parts"],
)
def test_a_terminated_upload_is_gone(flags: list[str], uploads: int, node: str, tmp_path: Path) -> None:
    """Upload.terminate() when it is finished, abort(true) amid a PATCH: no retry, 410 from then on, no bytes left.

    The next start uploads anew, also when the client still remembers the URLs of the parts.
    """
    file = make_file(tmp_path, 12 * MIB)
    with running_server(tmp_path) as server, running_client(node, server, file, *flags) as client:
        client.end()
        terminated = [event["url"] for event in client.events("request") if event["method"] == "DELETE"]
        statuses = [head(url).status_code for url in terminated]
        fetched = [httpx.get(url).status_code for url in terminated]
        left = [url for url in terminated if (tmp_path / "uploads" / upload_id(url)).exists()]
        with running_client(node, server, file) as another:
            url = another.finish()

    assert 1 == len(client.events("terminated"))
    assert [] == client.events("retry")
    assert uploads == len(set(terminated)) == len(terminated)
    assert [410] * uploads == statuses == fetched
    assert [] == left
    assert url not in terminated
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_the_lock_file_names_no_registry() -> None:
    """package-lock.json pins by version and hash; where packages come from is a matter of each machine."""
    packages = json.loads((CLIENTS / "package-lock.json").read_text())["packages"]
    del packages[""]

    assert [] == [name for name, package in packages.items() if "resolved" in package]
    assert [] == [name for name, package in packages.items() if "integrity" not in package]
