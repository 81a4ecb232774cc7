"""The border, over real HTTP: what clients and browsers see of one server."""

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.support import tus
from tests.support.processes import Server, eventually, running_app, running_server
from tusd_py import Settings, create_app

KIB = 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the module, with a limit of 1 MiB an upload."""
    flags = ("--max-size", str(KIB * KIB), "--read-timeout", "1", "--checkpoint-bytes", "65536")
    with running_server(tmp_path_factory.mktemp("app"), *flags) as running:
        yield running


def raw(server: Server, request: bytes) -> bytes:
    """Return everything that the server sends back on one connection, until it closes it or is silent for 1 s."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=1) as sock:
        sock.sendall(request)
        received = b""
        try:
            while piece := sock.recv(65536):
                received += piece
        except TimeoutError:
            pass
        return received


def test_options_tells_what_the_server_can_do(server: Server) -> None:
    response = httpx.options(server.url)

    assert 204 == response.status_code
    assert "1.0.0" == response.headers["Tus-Version"]
    assert str(KIB * KIB) == response.headers["Tus-Max-Size"]
    assert (
        "creation,creation-with-upload,creation-defer-length,termination,checksum,concatenation,expiration"
        == response.headers["Tus-Extension"]
    )


def test_an_upload_from_creation_to_the_download(server: Server) -> None:
    url = tus.create(server.url, 11, filename="hello.txt", filetype="text/plain")

    assert re.fullmatch(re.escape(server.url) + "[0-9a-f]{32}", url)

    head = tus.head(url)

    assert ("0", "11") == (head.headers["Upload-Offset"], head.headers["Upload-Length"])
    assert "filename aGVsbG8udHh0,filetype dGV4dC9wbGFpbg==" == head.headers["Upload-Metadata"]
    assert "no-store" == head.headers["Cache-Control"]
    assert "Upload-Expires" in head.headers
    assert 409 == httpx.get(url).status_code
    assert "6" == tus.patch(url, 0, b"hello ").headers["Upload-Offset"]
    assert "11" == tus.patch(url, 6, b"world").headers["Upload-Offset"]

    got = httpx.get(url)

    assert (200, b"hello world") == (got.status_code, got.content)
    assert "text/plain; charset=utf-8" == got.headers["Content-Type"]
    assert "inline; filename=\"hello.txt\"; filename*=UTF-8''hello.txt" == got.headers["Content-Disposition"]
    assert "nosniff" == got.headers["X-Content-Type-Options"]


def test_a_finished_upload_can_be_fetched_in_ranges(server: Server) -> None:
    url = tus.create(server.url, 10)
    tus.patch(url, 0, b"0123456789")
    etag = httpx.get(url).headers["ETag"]

    def get(**headers: str) -> httpx.Response:
        return httpx.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})

    assert (206, b"234", "bytes 2-4/10") == (
        (part := get(range="bytes=2-4")).status_code,
        part.content,
        part.headers["Content-Range"],
    )
    assert (206, b"89") == ((tail := get(range="bytes=-2")).status_code, tail.content)
    assert 416 == get(range="bytes=10-").status_code
    assert (206, b"0") == ((same := get(range="bytes=0-0", if_range=etag)).status_code, same.content)
    assert 200 == get(range="bytes=0-0", if_range='"other"').status_code
    assert (304, b"") == ((cached := get(if_none_match=etag)).status_code, cached.content)


def test_the_sidecar_has_tusds_fields(server: Server) -> None:
    url = tus.create(server.url, 3, filename="a.mp4")
    folder = Path(server.log.parent / "uploads").resolve()
    sidecar = folder / f"{tus.upload_id(url)}.info"

    assert not sidecar.exists()  # without a byte there is nothing that it could tell of

    tus.patch(url, 0, b"a")
    info = json.loads(sidecar.read_text())
    info.pop("TusdPy")

    assert {
        "ID": tus.upload_id(url),
        "Size": 3,
        "SizeIsDeferred": False,
        "Offset": 1,
        "MetaData": {"filename": "a.mp4"},
        "IsPartial": False,
        "IsFinal": False,
        "PartialUploads": None,
        "Storage": {
            "Type": "filestore",
            "Path": str(folder / tus.upload_id(url)),
            "InfoPath": str(sidecar),
        },
    } == info

    tus.patch(url, 1, b"bc")

    assert 3 == json.loads(sidecar.read_text())["Offset"]


def test_a_refusal_says_what_to_do(server: Server) -> None:
    url = tus.create(server.url, 10)
    refused = tus.patch(url, 3, b"x")

    assert 409 == refused.status_code
    assert "0" == refused.headers["Upload-Offset"]
    assert "application/problem+json" == refused.headers["Content-Type"]
    assert {
        "code": "ERR_MISMATCHED_OFFSET",
        "action": "resume",
        "detail": "Upload-Offset is 3, the upload is at 0",
    }.items() <= refused.json().items()


def test_too_much_is_413_and_changes_nothing(server: Server) -> None:
    url = tus.create(server.url, 10)

    assert 413 == tus.patch(url, 0, b"x" * 11).status_code
    assert 0 == tus.offset_of(url)
    assert 413 == httpx.post(server.url, headers={**tus.TUS, "Upload-Length": str(KIB * KIB + 1)}).status_code


def test_a_chunked_body_is_taken(server: Server) -> None:
    url = tus.create(server.url, 10)
    headers = {**tus.BYTES, "Upload-Offset": "0"}

    assert "10" == httpx.patch(url, content=iter([b"01234", b"56789"]), headers=headers).headers["Upload-Offset"]


def test_a_chunked_body_that_is_too_long_does_not_complete_the_upload(server: Server) -> None:
    """The client has another file in hand: nobody is told that this one is finished."""
    url = tus.create(server.url, 10)
    headers = {**tus.BYTES, "Upload-Offset": "0"}

    assert 413 == httpx.patch(url, content=iter([b"01234", b"567890"]), headers=headers).status_code
    assert tus.offset_of(url) < 10

    finished = tus.create(server.url, 0)

    assert 413 == httpx.patch(finished, content=iter([b"x"]), headers=headers).status_code


def test_an_empty_patch_is_fine(server: Server) -> None:
    url = tus.create(server.url, 10)

    assert (204, "0") == ((r := tus.patch(url, 0, b"")).status_code, r.headers["Upload-Offset"])

    tus.patch(url, 0, b"0123456789")

    assert (204, "10") == ((r := tus.patch(url, 10, b"")).status_code, r.headers["Upload-Offset"])


def test_an_empty_upload_is_complete_at_once(server: Server) -> None:
    url = tus.create(server.url, 0)

    assert (200, b"") == ((r := httpx.get(url)).status_code, r.content)


def test_creation_can_bring_the_first_bytes(server: Server) -> None:
    response = httpx.post(server.url, content=b"hello", headers={**tus.BYTES, "Upload-Length": "11"})

    assert (201, "5") == (response.status_code, response.headers["Upload-Offset"])

    url = response.headers["Location"]

    assert "11" == tus.patch(url, 5, b" world").headers["Upload-Offset"]
    assert b"hello world" == httpx.get(url).content


def test_creation_can_bring_all_bytes(server: Server) -> None:
    response = httpx.post(server.url, content=b"hello", headers={**tus.BYTES, "Upload-Length": "5"})

    assert (201, "5") == (response.status_code, response.headers["Upload-Offset"])
    assert b"hello" == httpx.get(response.headers["Location"]).content


def test_the_length_can_come_later(server: Server) -> None:
    created = httpx.post(server.url, headers={**tus.TUS, "Upload-Defer-Length": "1"})
    url = created.headers["Location"]

    assert "1" == tus.head(url).headers["Upload-Defer-Length"]
    assert "5" == tus.patch(url, 0, b"hello").headers["Upload-Offset"]
    assert "11" == tus.patch(url, 5, b" world", Upload_Length="11").headers["Upload-Offset"]
    assert b"hello world" == httpx.get(url).content


def test_a_deferred_length_that_is_reached_already_completes_the_upload(server: Server) -> None:
    created = httpx.post(server.url, headers={**tus.TUS, "Upload-Defer-Length": "1"})
    url = created.headers["Location"]
    tus.patch(url, 0, b"hello")

    assert 204 == tus.patch(url, 5, b"", Upload_Length="5").status_code
    assert b"hello" == httpx.get(url).content


def sha1(body: bytes) -> str:
    return "sha1 " + base64.b64encode(hashlib.sha1(body).digest()).decode()


def test_a_body_with_the_right_checksum_is_recorded(server: Server) -> None:
    url = tus.create(server.url, 11)

    assert "6" == tus.patch(url, 0, b"hello ", Upload_Checksum=sha1(b"hello ")).headers["Upload-Offset"]

    for name in ("md5", "sha256", "sha512"):
        wrong = name + " " + base64.b64encode(hashlib.new(name, b"other").digest()).decode()

        assert 460 == tus.patch(url, 6, b"world", Upload_Checksum=wrong).status_code

    digest = "sha512 " + base64.b64encode(hashlib.sha512(b"world").digest()).decode()

    assert "11" == tus.patch(url, 6, b"world", Upload_Checksum=digest).headers["Upload-Offset"]
    assert b"hello world" == httpx.get(url).content


def test_a_body_with_a_wrong_checksum_is_discarded_and_nothing_else(server: Server) -> None:
    """Also one that is longer than a checkpoint, and one that would complete the upload."""
    url = tus.create(server.url, 300_000)
    tus.patch(url, 0, b"x" * 100_000)
    refused = tus.patch(url, 100_000, b"y" * 200_000, Upload_Checksum=sha1(b"z"))

    assert (460, "ERR_CHECKSUM_MISMATCH") == (refused.status_code, refused.json()["code"])
    assert 100_000 == tus.offset_of(url)
    assert 204 == tus.patch(url, 100_000, b"x" * 200_000).status_code
    assert b"x" * 300_000 == httpx.get(url).content


def test_a_checksum_that_is_cut_short_records_nothing(server: Server) -> None:
    url = tus.create(server.url, 300_000)
    headers = f"Upload-Checksum: {sha1(b'x' * 300_000)}\r\n"
    with tus.half_sent(url, 0, 300_000, b"x" * 200_000, headers):
        # Who asks meanwhile hears what is recorded.
        assert 0 == tus.offset_of(url)
    assert 0 == tus.offset_of(url)


def test_an_algorithm_that_is_not_known_is_400_and_records_nothing(server: Server) -> None:
    url = tus.create(server.url, 11)

    assert 400 == tus.patch(url, 0, b"hello ", Upload_Checksum="crc32 AAAAAA==").status_code
    assert 0 == tus.offset_of(url)


def part(server: Server, body: bytes) -> str:
    """Return the URL of a finished partial upload."""
    headers = {**tus.BYTES, "Upload-Concat": "partial", "Upload-Length": str(len(body))}
    return httpx.post(server.url, content=body, headers=headers).headers["Location"]


def concatenate(server: Server, *urls: str, **headers: str) -> httpx.Response:
    return httpx.post(server.url, headers={**tus.TUS, "Upload-Concat": "final;" + " ".join(urls), **headers})


def test_parts_are_concatenated_in_the_order_of_the_list(server: Server) -> None:
    """Absolute and relative URLs, one of them twice; the metadata is the request's."""
    hello, world = part(server, b"hello "), part(server, b"world")
    concat = f"final;{hello} {urlsplit(hello).path} {world}"
    created = httpx.post(server.url, headers={**tus.TUS, "Upload-Concat": concat, "Upload-Metadata": "filename YQ=="})

    assert 201 == created.status_code

    final = tus.head(created.headers["Location"])

    assert ("17", "17", concat, "filename YQ==") == (
        final.headers["Upload-Offset"],
        final.headers["Upload-Length"],
        final.headers["Upload-Concat"],
        final.headers["Upload-Metadata"],
    )
    assert b"hello hello world" == httpx.get(created.headers["Location"]).content
    assert "partial" == tus.head(hello).headers["Upload-Concat"]
    assert 403 == tus.patch(created.headers["Location"], 17, b"x").status_code
    assert 201 == concatenate(server, world).status_code

    sidecar = server.log.parent / "uploads" / f"{tus.upload_id(created.headers['Location'])}.info"
    info = json.loads(sidecar.read_text())

    assert (True, False, [tus.upload_id(url) for url in (hello, hello, world)]) == (
        info["IsFinal"],
        info["IsPartial"],
        info["PartialUploads"],
    )


def test_parts_that_cannot_be_concatenated_are_refused(server: Server) -> None:
    done = part(server, b"done")
    headers = {**tus.TUS, "Upload-Concat": "partial", "Upload-Length": "3"}
    unfinished = httpx.post(server.url, headers=headers).headers["Location"]
    whole = tus.create(server.url, 0)

    assert 409 == (refused := concatenate(server, done, unfinished)).status_code
    assert "ERR_UPLOAD_NOT_FINISHED" == refused.json()["code"]
    assert 400 == concatenate(server, done, whole).status_code
    assert 404 == concatenate(server, done, "/files/" + "0" * 32).status_code
    assert 413 == concatenate(server, *[part(server, b"x" * 700_000)] * 2).status_code
    assert 200 == tus.head(done).status_code


def test_a_terminated_upload_is_gone(server: Server) -> None:
    url = tus.create(server.url, 3)
    tus.patch(url, 0, b"abc")

    assert 204 == httpx.delete(url, headers=tus.TUS).status_code
    assert [410] * 4 == [
        tus.head(url).status_code,
        httpx.get(url).status_code,
        tus.patch(url, 3, b"").status_code,
        httpx.delete(url, headers=tus.TUS).status_code,
    ]
    assert "restart" == httpx.get(url).json()["action"]


@pytest.mark.parametrize("target", ["0" * 32, "x", "..%2f..%2fetc%2fpasswd", ".tusd_py.sqlite3", "a/b", "%00"])
def test_what_is_no_upload_is_404(server: Server, target: str) -> None:
    assert 404 == httpx.get(server.url + target).status_code
    assert 404 == tus.head(server.url + target).status_code
    assert 404 == tus.patch(server.url + target, 0, b"x").status_code


def test_the_slash_at_the_end_is_not_needed(server: Server) -> None:
    response = httpx.post(server.url.rstrip("/"), headers={**tus.TUS, "Upload-Length": "1"})

    assert 201 == response.status_code
    assert response.headers["Location"].startswith(server.url)


def test_tus_resumable_is_on_every_answer(server: Server) -> None:
    root = server.url.removesuffix("files/")
    for response in (
        httpx.options(server.url),
        httpx.options(server.url, headers={"Origin": "http://x", "Access-Control-Request-Method": "PATCH"}),
        httpx.put(server.url),
        httpx.get(root + "nowhere"),
        tus.head(server.url + "0" * 32),
    ):
        assert "1.0.0" == response.headers["Tus-Resumable"]


def test_a_page_of_another_origin_may_upload_and_read_the_headers(server: Server) -> None:
    preflight = httpx.options(
        server.url,
        headers={
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "tus-resumable,upload-offset,x-own",
        },
    )

    assert 200 == preflight.status_code
    assert "*" == preflight.headers["Access-Control-Allow-Origin"]
    assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
    assert "tus-resumable,upload-offset,x-own" == preflight.headers["Access-Control-Allow-Headers"]

    response = httpx.post(server.url, headers={**tus.TUS, "Upload-Length": "1", "Origin": "https://page.example"})
    exposed = response.headers["Access-Control-Expose-Headers"]

    assert {"Location", "Upload-Offset", "Upload-Length", "Upload-Expires"} <= set(exposed.split(", "))


def test_a_refusal_is_answered_before_the_body_is_asked_for(server: Server) -> None:
    """Expect: 100-continue: the client keeps its gigabytes."""
    request = (
        "PATCH /files/{id} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\nContent-Length: 9000000\r\n"
        "Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\nExpect: 100-continue\r\n\r\n"
    )
    answer = raw(server, request.format(id="0" * 32).encode())

    assert answer.startswith(b"HTTP/1.1 404")

    url = tus.create(server.url, 10)

    assert raw(server, request.format(id=tus.upload_id(url)).encode()).startswith(b"HTTP/1.1 413")


def test_a_body_is_asked_for_when_it_is_wanted(server: Server) -> None:
    url = tus.create(server.url, 10)
    request = (
        f"PATCH /files/{tus.upload_id(url)} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\nContent-Length: 5\r\n"
        "Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\nExpect: 100-continue\r\n\r\n"
    )

    assert raw(server, request.encode()).startswith(b"HTTP/1.1 100 Continue")


def test_the_connection_lives_on_when_the_body_was_read_and_ends_when_not(server: Server) -> None:
    url = tus.create(server.url, 10)
    head = f"/files/{tus.upload_id(url)} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\n"
    bytes_ = "Content-Type: application/offset+octet-stream\r\nContent-Length: 5\r\n"
    good = f"PATCH {head}{bytes_}Upload-Offset: 0\r\n\r\n01234".encode()
    bad = f"PATCH {head}{bytes_}Upload-Offset: 9\r\n\r\n56789".encode()
    ask = f"HEAD {head}\r\n".encode()

    assert 3 == raw(server, good + ask + ask).count(b"upload-offset: 5")

    refused = raw(server, bad + ask)

    assert (1, 1) == (refused.count(b"HTTP/1.1 409"), refused.count(b"connection: close"))
    assert 0 == refused.count(b"HTTP/1.1 200")


def test_a_client_hears_the_refusal_of_a_large_body(server: Server) -> None:
    """Closed over unread bytes, the connection would be reset and the answer lost."""
    url = tus.create(server.url, 10)
    refused = tus.patch(url, 0, b"x" * (20 * KIB * KIB))

    assert (413, "ERR_UPLOAD_SIZE_EXCEEDED") == (refused.status_code, refused.json()["code"])


def test_a_client_that_falls_silent_is_let_go(server: Server) -> None:
    """--read-timeout: the bytes that came are kept, the connection ends."""
    url = tus.create(server.url, 10)
    with tus.half_sent(url, 0, 10, b"0123") as silent:
        status, headers = tus.answer(silent)

        assert (204, "4") == (status, headers["upload-offset"])


@pytest.mark.parametrize(
    "garbage", [b"\x00\x01\x02\r\n\r\n", b"PATCH\r\n\r\n", b"PATCH / HTTP/1.1\r\nContent-Length: -5\r\n\r\n"]
)
def test_what_is_not_http_is_400(server: Server, garbage: bytes) -> None:
    assert raw(server, garbage).startswith(b"HTTP/1.1 400")


def test_memory_stays_flat_whatever_the_size(tmp_path: Path) -> None:
    """Two batches of 1 MiB an upload, not the video: 200 MiB go through with less than 24 MiB more memory."""

    def resident(pid: int) -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * KIB  # type: ignore[index]

    with running_server(tmp_path) as running:
        tus.patch(tus.create(running.url, 1), 0, b"x")
        before = resident(running.process.pid)
        piece = os.urandom(KIB * KIB)
        url = tus.create(running.url, 200 * KIB * KIB)
        sent = httpx.patch(
            url,
            content=(piece for _ in range(200)),
            headers={**tus.BYTES, "Upload-Offset": "0", "Content-Length": str(200 * KIB * KIB)},
            timeout=60,
        )

        assert 204 == sent.status_code
        assert resident(running.process.pid) - before < 24 * KIB * KIB

        digest = hashlib.sha256()
        for _ in range(200):
            digest.update(piece)
        stored = (tmp_path / "uploads" / tus.upload_id(url)).read_bytes()

        assert digest.digest() == hashlib.sha256(stored).digest()


def test_uploads_that_expired_are_410_and_swept(tmp_path: Path) -> None:
    with running_server(tmp_path, "--expire-after", "1") as running:
        url = tus.create(running.url, 10)
        finished = tus.create(running.url, 1)
        tus.patch(finished, 0, b"x")
        eventually(lambda: tus.head(url).status_code == 410)

        assert 410 == (r := tus.patch(url, 0, b"x")).status_code
        assert "restart" == r.json()["action"]
        assert 200 == tus.head(finished).status_code
    with running_server(tmp_path, "--sweep-interval", "0.5") as again:
        eventually(lambda: not (tmp_path / "uploads" / tus.upload_id(url)).exists())

        assert 410 == tus.head(tus.on(url, again.url)).status_code
        assert b"x" == httpx.get(tus.on(finished, again.url)).content


def test_an_upload_that_receives_does_not_expire(tmp_path: Path) -> None:
    """It goes --expire-after its last byte, however long one PATCH takes; a checksum does not change that."""
    flags = ("--expire-after", "1", "--sweep-interval", "0.2", "--checkpoint-interval", "0.2")
    with running_server(tmp_path, *flags) as running:
        for headers in ("", f"Upload-Checksum: {sha1(b'x' * 30)}\r\n"):
            url = tus.create(running.url, 30)
            with tus.half_sent(url, 0, 30, b"", headers) as slow:
                for _ in range(30):
                    slow.sendall(b"x")
                    time.sleep(0.1)

                assert (204, "30") == ((answer := tus.answer(slow))[0], answer[1]["upload-offset"])


def test_bytes_that_the_volume_lost_take_the_offset_back_loudly(tmp_path: Path) -> None:
    with running_server(tmp_path) as running:
        url = tus.create(running.url, 10)
        tus.patch(url, 0, b"01234567")
        os.truncate(tmp_path / "uploads" / tus.upload_id(url), 3)
        refused = tus.patch(url, 8, b"89")

        assert (409, "3") == (refused.status_code, refused.headers["Upload-Offset"])
        assert "bytes lost by the volume" in running.log.read_text()
        assert 3 == tus.offset_of(url)
        assert 204 == tus.patch(url, 3, b"3456789").status_code
        assert b"0123456789" == httpx.get(url).content


def test_a_size_that_is_shown_late_makes_no_409(tmp_path: Path) -> None:
    """A network file system may show the size from before another client's write for a moment."""
    with running_server(tmp_path) as running:
        url = tus.create(running.url, 10)
        tus.patch(url, 0, b"01234567")
        path = tmp_path / "uploads" / tus.upload_id(url)
        (tmp_path / "late").write_bytes(b"01234567")
        os.truncate(path, 3)
        late = threading.Timer(0.1, subprocess.run, [["cp", "--no-preserve=all", str(tmp_path / "late"), str(path)]])
        late.start()

        assert 204 == tus.patch(url, 8, b"89").status_code

        late.join()
        assert b"0123456789" == httpx.get(url).content


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    path = tmp_path / "tusd_py.sock"
    for _ in range(2):  # the second finds the socket that the killed one left
        with running_server(tmp_path, "--unix-socket", str(path)) as running:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://videos.example") as client:
                created = client.post("/files/", headers={**tus.TUS, "Upload-Length": "1"})

                assert created.headers["Location"].startswith("http://videos.example/files/")
            running.kill()


def test_mounted_in_another_application_without_lifespan(tmp_path: Path) -> None:
    """A parent passes no lifespan events on: the first request opens what is needed."""
    mounted = create_app(Settings(upload_dir=tmp_path))
    with running_app(Starlette(routes=[Mount("/api", mounted)])) as root:
        url = tus.create(root + "/api/files/", 3)

        assert url.startswith(root + "/api/files/")
        assert 204 == tus.patch(url, 0, b"abc").status_code
        assert b"abc" == httpx.get(url).content


def test_mounted_in_another_application_with_lifespan(tmp_path: Path) -> None:
    mounted = create_app(Settings(upload_dir=tmp_path))
    parent = Starlette(routes=[Mount("/", mounted)], lifespan=mounted.router.lifespan_context)
    with running_app(parent) as root:
        assert (tmp_path / ".tusd_py.sqlite3").exists()
        assert 201 == httpx.post(root + "/files", headers={**tus.TUS, "Upload-Length": "3"}).status_code


def test_a_head_of_a_held_upload_waits_no_longer_than_it_must(server: Server) -> None:
    """Nobody holds the upload: HEAD is one read."""
    url = tus.create(server.url, 10)
    asked_at = time.monotonic()
    for _ in range(20):
        tus.offset_of(url)

    assert time.monotonic() - asked_at < 2
