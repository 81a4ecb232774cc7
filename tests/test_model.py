"""Uploads against a model that holds their bytes: random series of requests, and after each one HEAD must agree.

TUSD_PY_MODEL_EXAMPLES=1000 makes a long run of it, with other series every time.
"""

import base64
import hashlib
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support import tus
from tests.support.processes import Server, eventually, running_server

KIB = 1024
MAX_PIECE = 64 * KIB
MAX_SIZE = 160 * KIB  # of the server: two or three pieces reach it
MAX_LIVING = 6  # in one series; HEAD is asked for each after every step
MAX_RESUMES = 20  # a cut-off request that is still running moves the offset once, perhaps twice
STEPS = 15
EXAMPLES = os.environ.get("TUSD_PY_MODEL_EXAMPLES")
ALGORITHMS: Mapping[str, Callable[[bytes], "hashlib._Hash"]] = {
    "sha1": hashlib.sha1,
    "md5": hashlib.md5,
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
}
PROFILE = settings(
    max_examples=int(EXAMPLES) if EXAMPLES else 40,
    stateful_step_count=STEPS,
    derandomize=not EXAMPLES,
    print_blob=bool(EXAMPLES),
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),  # the speed of a server is not what is looked at
)


@dataclass(eq=False)
class Known:
    """What the model knows of one upload."""

    url: str
    length: int | None  # bytes; None while it is deferred
    metadata: str
    concat: str = ""
    data: bytes = b""
    terminated: bool = False

    @property
    def finished(self) -> bool:
        return len(self.data) == self.length

    @property
    def final(self) -> bool:
        return self.concat.startswith("final")

    @property
    def room(self) -> int:
        """How many bytes it still takes."""
        return (MAX_SIZE if self.length is None else self.length) - len(self.data)

    def headers(self) -> dict[str, str]:
        """Return the headers that HEAD must have of it, those of EXACT."""
        told = {"Upload-Offset": str(len(self.data))}
        if self.length is None:
            told["Upload-Defer-Length"] = "1"
        else:
            told["Upload-Length"] = str(self.length)
        if self.metadata:
            told["Upload-Metadata"] = self.metadata
        if self.concat:
            told["Upload-Concat"] = self.concat
        return told


EXACT = ("Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Concat")

sizes = st.one_of(st.sampled_from([0, 1, 2, MAX_PIECE - 1, MAX_PIECE]), st.integers(0, MAX_PIECE))
pieces = st.builds(lambda size, seed: random.Random(seed).randbytes(size), sizes, st.integers(0, 2**32))
lengths = st.one_of(
    st.just(None),  # deferred
    st.sampled_from([0, 1, MAX_SIZE]),
    st.integers(1, 300),
    st.integers(1, MAX_SIZE),
)
too_large = st.integers(MAX_SIZE + 1, 2**63 - 1)
metadata = st.one_of(
    st.just(""),
    st.dictionaries(st.from_regex(r"[!-+\--~]{1,12}", fullmatch=True), st.binary(max_size=40), max_size=4).map(
        lambda pairs: ",".join(f"{key} {base64.b64encode(value).decode()}".strip() for key, value in pairs.items())
    ),
)
algorithms = st.sampled_from(sorted(ALGORITHMS))


def chosen(kind: str) -> st.SearchStrategy[Known]:
    """Return a strategy for one of the uploads that a property of the running machine lists."""
    return st.runner().flatmap(lambda machine: st.sampled_from(getattr(machine, kind)))


def several(kind: str) -> st.SearchStrategy[list[Known]]:
    """Return a strategy for one to four of them, in any order, also twice the same."""
    return st.runner().flatmap(
        lambda machine: st.lists(st.sampled_from(getattr(machine, kind)), min_size=1, max_size=4)
    )


def having(kind: str) -> Callable[["Uploads"], bool]:
    """Return whether a property of a machine lists any."""
    return lambda machine: bool(getattr(machine, kind))


def checksum(algorithm: str, body: bytes) -> dict[str, str]:
    """Return the header that tells the digest of the body."""
    return {"Upload-Checksum": f"{algorithm} {base64.b64encode(ALGORITHMS[algorithm](body).digest()).decode()}"}


def in_chunks(body: bytes) -> Iterator[bytes]:
    """Give the body in pieces, which httpx sends with chunked transfer coding."""
    for start in range(0, len(body), 20000):
        yield body[start : start + 20000]


class Uploads(RuleBasedStateMachine):
    """All that a client may do, right or wrong, to a handful of uploads on a server that runs."""

    def __init__(self, server: Server, client: httpx.Client) -> None:
        super().__init__()
        self.server = server
        self.client = client
        self.known: list[Known] = []
        self.logged = server.log.stat().st_size  # bytes; what stands before is of other series

    @property
    def living(self) -> list[Known]:
        return [one for one in self.known if not one.terminated]

    @property
    def gone(self) -> list[Known]:
        return [one for one in self.known if one.terminated]

    @property
    def finished(self) -> list[Known]:
        return [one for one in self.living if one.finished]

    @property
    def unfinished(self) -> list[Known]:
        return [one for one in self.living if not one.finished]

    @property
    def open(self) -> list[Known]:
        """Those that have room for a byte or more."""
        return [one for one in self.living if one.room]

    @property
    def deferred(self) -> list[Known]:
        return [one for one in self.living if one.length is None]

    @property
    def appendable(self) -> list[Known]:
        return [one for one in self.living if not one.final]

    @property
    def parts(self) -> list[Known]:
        return [one for one in self.finished if one.concat == "partial"]

    @property
    def no_parts(self) -> list[Known]:
        """Those that cannot be concatenated."""
        return [one for one in self.known if one not in self.parts]

    def ask(
        self, method: str, url: str, headers: Mapping[str, str] = tus.TUS, body: bytes = b"", chunked: bool = False
    ) -> httpx.Response:
        """Return the answer, which is never a fault of the server."""
        content = in_chunks(body) if chunked else body
        response = self.client.request(method, url, headers=headers, content=content)
        note(f"{method} {url} {dict(headers)} with {len(body)} bytes: {response.status_code}")

        assert response.status_code < 500, response.text
        assert "1.0.0" == response.headers["Tus-Resumable"]

        return response

    def append(
        self, upload: Known, offset: int, body: bytes, headers: Mapping[str, str] = tus.TUS, chunked: bool = False
    ) -> httpx.Response:
        """PATCH, with more headers than it must have."""
        return self.ask("PATCH", upload.url, {**tus.BYTES, "Upload-Offset": str(offset), **headers}, body, chunked)

    def refuse(self, response: httpx.Response, status: int, code: str) -> None:
        """The answer is this refusal."""
        assert (status, code) == (response.status_code, response.json()["code"]), response.text

    def learn(self, response: httpx.Response, upload: Known) -> None:
        """The answer has made this upload."""
        assert 201 == response.status_code, response.text
        assert str(len(upload.data)) == response.headers["Upload-Offset"]

        upload.url = response.headers["Location"]

        assert upload.url.startswith(self.server.url)
        assert upload.url not in {one.url for one in self.known}

        self.known.append(upload)

    def few(self) -> bool:
        """Whether there is room for another upload in this series."""
        return len(self.living) < MAX_LIVING

    @initialize(length=lengths, one=pieces, other=pieces)
    def begin(self, length: int | None, one: bytes, other: bytes) -> None:
        """Every series has an upload, an unfinished part without a length and two finished parts to begin with."""
        self.create(length=length, metadata="", partial=False)
        self.create(length=None, metadata="", partial=True)
        for part in (one, other):
            self.create_with_upload(
                length=None, metadata="", partial=True, body=part, whole=True, chunked=False, algorithm=None
            )

    @precondition(few)
    @rule(length=lengths | too_large, metadata=metadata, partial=st.booleans())
    def create(self, length: int | None, metadata: str, partial: bool) -> None:
        upload = Known("", length, metadata, "partial" if partial else "")
        response = self.ask("POST", self.server.url, creation(upload))
        if length is not None and length > MAX_SIZE:
            self.refuse(response, 413, "ERR_MAX_SIZE_EXCEEDED")
        else:
            self.learn(response, upload)

    @precondition(few)
    @rule(
        length=lengths,
        metadata=metadata,
        partial=st.booleans(),
        body=pieces,
        whole=st.booleans(),
        chunked=st.booleans(),
        algorithm=st.none() | algorithms,
    )
    def create_with_upload(
        self,
        length: int | None,
        metadata: str,
        partial: bool,
        body: bytes,
        whole: bool,
        chunked: bool,
        algorithm: str | None,
    ) -> None:
        """Creation with the first bytes, and often with all of them."""
        length = len(body) if whole else length
        upload = Known("", length, metadata, "partial" if partial else "")
        headers = {**creation(upload), "Content-Type": tus.BYTES["Content-Type"]}
        if algorithm:
            headers |= checksum(algorithm, body)
        response = self.ask("POST", self.server.url, headers, body, chunked)
        if len(body) > upload.room:
            self.refuse(response, 413, "ERR_UPLOAD_SIZE_EXCEEDED")
        else:
            upload.data = body
            self.learn(response, upload)

    @precondition(having("living"))
    @rule(
        upload=chosen("living"),
        body=pieces,
        chunked=st.booleans(),
        algorithm=st.none() | algorithms,
        fill=st.booleans(),
    )
    def append_at_the_offset(
        self, upload: Known, body: bytes, chunked: bool, algorithm: str | None, fill: bool
    ) -> None:
        """What fits is taken, also nothing, also by a finished upload; but a concatenation takes nothing at all."""
        if not upload.final:
            body = (body * (upload.room // len(body) + 1))[: upload.room] if fill and body else body[: upload.room]
        headers = checksum(algorithm, body) if algorithm else {}
        response = self.append(upload, len(upload.data), body, headers, chunked)
        if upload.final:
            self.refuse(response, 403, "ERR_MODIFY_FINAL")
            return
        upload.data += body

        assert 204 == response.status_code, response.text
        assert str(len(upload.data)) == response.headers["Upload-Offset"]

    @precondition(having("living"))
    @rule(upload=chosen("living"), body=pieces, offset=st.integers(0, 2 * MAX_SIZE) | st.just(2**63 - 1))
    def append_at_a_wrong_offset(self, upload: Known, body: bytes, offset: int) -> None:
        if offset == len(upload.data):
            offset += 1
        response = self.append(upload, offset, body)
        if upload.final:
            self.refuse(response, 403, "ERR_MODIFY_FINAL")
            return
        self.refuse(response, 409, "ERR_MISMATCHED_OFFSET")

        assert str(len(upload.data)) == response.headers["Upload-Offset"]

    @precondition(having("appendable"))
    @rule(
        upload=chosen("appendable"),
        over=st.integers(1, MAX_PIECE),
        chunked=st.booleans(),
        algorithm=st.none() | algorithms,
    )
    def append_too_much(self, upload: Known, over: int, chunked: bool, algorithm: str | None) -> None:
        body = bytes(upload.room + over)
        headers = checksum(algorithm, body) if algorithm else {}

        self.refuse(self.append(upload, len(upload.data), body, headers, chunked), 413, "ERR_UPLOAD_SIZE_EXCEEDED")

    @precondition(having("open"))
    @rule(
        upload=chosen("open"),
        body=pieces,
        share=st.floats(0, 1, exclude_max=True),
        chunked=st.booleans(),
        reset=st.booleans(),
        seen=st.sampled_from(["by nobody", "by HEAD", "on disk"]),
        declared=st.none() | st.integers(0, MAX_SIZE),
        after=pieces,
    )
    def append_cut_short(
        self,
        upload: Known,
        body: bytes,
        share: float,
        chunked: bool,
        reset: bool,
        seen: str,
        declared: int | None,
        after: bytes,
    ) -> None:
        """What arrived of a request that is cut off is kept; who asks for the offset and resumes is right."""
        body = body[: upload.room] or b"x"
        sent = body[: int(len(body) * share)]
        offset = len(upload.data)
        if upload.length is None and declared is not None:
            upload.length = max(declared, offset + len(body))
            headers = {"Upload-Length": str(upload.length)}
        else:
            headers = {}
        with self.cut(upload, sent, None if chunked else len(body), reset, headers):
            if seen == "by HEAD":  # which makes a PATCH that receives record what it has
                eventually(lambda: offset + len(sent) == tus.offset_of(upload.url), what="HEAD tells what was sent")
            elif seen == "on disk":
                self.wait_for_bytes(upload, sent)
        told = tus.offset_of(upload.url)

        assert offset <= told <= offset + len(sent)
        assert told == offset + len(sent) or seen == "by nobody"

        after = after or b"y"  # a byte at least: the request that was cut off may begin only now, at the old offset
        for _ in range(MAX_RESUMES):
            taken = after[: offset + upload.room - told]
            response = self.append(upload, told, taken, headers)
            if 409 != response.status_code:
                break
            grown = int(response.headers["Upload-Offset"])

            assert told < grown <= offset + len(sent)

            told = grown
        upload.data += sent[: told - offset] + taken

        assert 204 == response.status_code, response.text
        assert str(len(upload.data)) == response.headers["Upload-Offset"]

    @precondition(having("unfinished"))
    @rule(upload=chosen("unfinished"), body=pieces, algorithm=algorithms, chunked=st.booleans())
    def append_with_a_wrong_checksum(self, upload: Known, body: bytes, algorithm: str, chunked: bool) -> None:
        body = body[: upload.room]
        response = self.append(upload, len(upload.data), body, checksum(algorithm, body + b"x"), chunked)

        self.refuse(response, 460, "ERR_CHECKSUM_MISMATCH")

    @precondition(having("open"))
    @rule(
        upload=chosen("open"),
        body=pieces,
        share=st.floats(0, 1, exclude_max=True),
        algorithm=algorithms,
        chunked=st.booleans(),
        reset=st.booleans(),
        seen=st.booleans(),
        of_all=st.booleans(),
    )
    def append_with_a_checksum_cut_short(
        self,
        upload: Known,
        body: bytes,
        share: float,
        algorithm: str,
        chunked: bool,
        reset: bool,
        seen: bool,
        of_all: bool,
    ) -> None:
        """Nothing of it counts, even if it is on disk, even if what arrived has the digest."""
        body = body[: upload.room] or b"x"
        sent = body[: int(len(body) * share)]
        offset = len(upload.data)
        headers = checksum(algorithm, body if of_all else sent)
        with self.cut(upload, sent, None if chunked else len(body), reset, headers):
            if seen:
                self.wait_for_bytes(upload, sent)

                assert offset == tus.offset_of(upload.url)

    @precondition(having("deferred"))
    @rule(upload=chosen("deferred"), body=pieces, more=st.sampled_from([0, 1]) | st.integers(0, MAX_SIZE))
    def declare_the_length(self, upload: Known, body: bytes, more: int) -> None:
        body = body[: upload.room]
        length = min(len(upload.data) + len(body) + more, MAX_SIZE)
        response = self.append(upload, len(upload.data), body, {"Upload-Length": str(length)})
        upload.length = length
        upload.data += body

        assert 204 == response.status_code, response.text

    @precondition(having("appendable"))
    @rule(upload=chosen("appendable"), body=pieces, length=st.integers(0, 2 * MAX_SIZE))
    def declare_a_wrong_length(self, upload: Known, body: bytes, length: int) -> None:
        """A length that is set cannot be changed, none can be less than what is there or more than the server takes."""
        if length == upload.length or len(upload.data) <= length <= MAX_SIZE:
            length = MAX_SIZE + 1
        body = body[: upload.room]
        response = self.append(upload, len(upload.data), body, {"Upload-Length": str(length)})
        if upload.length is None and length > MAX_SIZE:
            self.refuse(response, 413, "ERR_MAX_SIZE_EXCEEDED")
        else:
            self.refuse(response, 400, "ERR_INVALID_UPLOAD_LENGTH")

    @precondition(having("living"))
    @rule(upload=chosen("living"))
    def terminate(self, upload: Known) -> None:
        upload.terminated = True

        assert 204 == self.ask("DELETE", upload.url).status_code

    @precondition(having("gone"))
    @rule(upload=chosen("gone"), body=pieces)
    def whatever_is_asked_of_a_terminated_upload(self, upload: Known, body: bytes) -> None:
        """It is gone, in every request."""
        assert 410 == self.ask("HEAD", upload.url).status_code

        self.refuse(self.ask("GET", upload.url), 410, "ERR_UPLOAD_GONE")
        self.refuse(self.ask("DELETE", upload.url), 410, "ERR_UPLOAD_GONE")
        self.refuse(self.append(upload, len(upload.data), body), 410, "ERR_UPLOAD_GONE")

    @precondition(lambda self: self.few() and self.parts)
    @rule(parts=several("parts"), metadata=metadata, relative=st.booleans())
    def concatenate(self, parts: list[Known], metadata: str, relative: bool) -> None:
        concat = final_of(parts, relative)
        upload = Known("", sum(len(part.data) for part in parts), metadata, concat, b"".join(p.data for p in parts))
        response = self.ask("POST", self.server.url, creation(upload))
        if len(upload.data) > MAX_SIZE:
            self.refuse(response, 413, "ERR_MAX_SIZE_EXCEEDED")
        else:
            self.learn(response, upload)

    @precondition(having("no_parts"))
    @rule(wrong=chosen("no_parts"), before=st.booleans(), relative=st.booleans())
    def concatenate_what_cannot_be(self, wrong: Known, before: bool, relative: bool) -> None:
        """Neither what is unfinished nor what is no part, also not together with what could be."""
        parts = [*self.parts[:2], wrong] if before else [wrong, *self.parts[:2]]
        response = self.ask("POST", self.server.url, {**tus.TUS, "Upload-Concat": final_of(parts, relative)})
        if wrong.terminated:
            self.refuse(response, 410, "ERR_UPLOAD_GONE")
        elif wrong.concat != "partial":
            self.refuse(response, 400, "ERR_INVALID_CONCAT")
        else:
            self.refuse(response, 409, "ERR_UPLOAD_NOT_FINISHED")

    @precondition(having("living"))
    @rule(upload=chosen("living"), ends=st.none() | st.tuples(st.integers(0, MAX_SIZE), st.integers(0, MAX_SIZE)))
    def get(self, upload: Known, ends: tuple[int, int] | None) -> None:
        """All of a finished upload, or a range of it; nothing of an unfinished one."""
        size = len(upload.data)
        if ends is None or not size:
            response = self.ask("GET", upload.url)
            right = (200, upload.data)
        else:
            start, end = sorted(number % size for number in ends)
            response = self.ask("GET", upload.url, {"Range": f"bytes={start}-{end}"})
            right = (206, upload.data[start : end + 1])
        if upload.finished:
            assert right == (response.status_code, response.content)
        else:
            self.refuse(response, 409, "ERR_UPLOAD_NOT_FINISHED")

    @invariant()
    def head_agrees(self) -> None:
        """HEAD of every living upload tells what the model knows, no more and no less."""
        for upload in self.living:
            response = self.ask("HEAD", upload.url)

            assert 200 == response.status_code
            assert "no-store" == response.headers["Cache-Control"]
            assert upload.headers() == {name: response.headers[name] for name in EXACT if name in response.headers}

    def teardown(self) -> None:
        """What was finished has the model's bytes still, over HTTP and on disk; the server has met no fault."""
        for upload in self.finished:
            assert upload.data == self.ask("GET", upload.url).content
        for upload in self.living:
            stored = self.stored(upload)

            assert upload.data == stored[: len(upload.data)]
            assert not upload.finished or len(upload.data) == len(stored)
        for upload in self.gone:
            assert not list((self.server.log.parent / "uploads").glob(tus.upload_id(upload.url) + "*"))
        with self.server.log.open("rb") as log:
            log.seek(self.logged)

            assert b"Traceback" not in log.read()

    def stored(self, upload: Known) -> bytes:
        """Return the bytes of the upload on disk; there need be no file before the first of them."""
        file = self.server.log.parent / "uploads" / tus.upload_id(upload.url)
        return file.read_bytes() if upload.finished or file.exists() else b""

    def wait_for_bytes(self, upload: Known, sent: bytes) -> None:
        """Return when these lie in the file behind the offset, recorded or not."""
        offset = len(upload.data)
        eventually(lambda: sent == self.stored(upload)[offset : offset + len(sent)], what="the bytes are on disk")

    @contextmanager
    def cut(
        self, upload: Known, sent: bytes, length: int | None, reset: bool, headers: Mapping[str, str]
    ) -> Iterator[None]:
        """A PATCH at the offset that announces length bytes (None: chunked) and brings only these; then the block.

        Behind the block the connection ends: with RST when reset, else with FIN.
        """
        parts = urlsplit(upload.url)
        lines = [
            f"PATCH {parts.path} HTTP/1.1",
            f"Host: {parts.netloc}",
            *(f"{name}: {value}" for name, value in {**tus.BYTES, **headers}.items()),
            f"Upload-Offset: {len(upload.data)}",
            "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}",
        ]
        # The chunk is announced longer than it is, too: the cut is inside of it.
        body = f"{len(sent) + 1:x}\r\n".encode() + sent if length is None else sent
        with socket.create_connection((cast(str, parts.hostname), parts.port), timeout=tus.TIMEOUT_S) as sock:
            sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            yield
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        note(f"PATCH {parts.path} cut off behind {len(sent)} of {length} bytes")


def creation(upload: Known) -> dict[str, str]:
    """Return the headers of the POST that makes the upload."""
    headers = dict(tus.TUS)
    if not upload.final:
        headers |= {"Upload-Defer-Length": "1"} if upload.length is None else {"Upload-Length": str(upload.length)}
    if upload.metadata:
        headers["Upload-Metadata"] = upload.metadata
    if upload.concat:
        headers["Upload-Concat"] = upload.concat
    return headers


def final_of(parts: Sequence[Known], relative: bool) -> str:
    """Return the Upload-Concat that makes one upload of these."""
    return "final;" + " ".join(urlsplit(part.url).path if relative else part.url for part in parts)


@pytest.mark.timeout(0 if EXAMPLES else 600)  # a failure takes minutes to shrink
@pytest.mark.parametrize("ledger", ["sqlite", "redis"])
def test_uploads_agree_with_the_model(ledger: str, tmp_path: Path, redis_url: str) -> None:
    """Whatever the requests and their order: every answer, every offset and every byte is what the model says."""
    # No host crashes here, and without fsync there is time for twice as many series.
    flags = ["--max-size", str(MAX_SIZE), "--checkpoint-interval", "600", "--durability", "none"]
    if ledger == "redis":
        flags += ["--redis-url", redis_url]
    with running_server(tmp_path, *flags) as server, httpx.Client(timeout=tus.TIMEOUT_S) as client:

        def machine() -> Uploads:
            return Uploads(server, client)

        run_state_machine_as_test(cast("type[RuleBasedStateMachine]", machine), settings=PROFILE)


def none_exists(files: Sequence[Path]) -> bool:
    return not any(file.exists() for file in files)


def test_what_is_unfinished_expires_and_what_is_finished_stays(tmp_path: Path) -> None:
    """A second after its last byte an upload is gone, and so is a finished part; what receives or is whole stays."""
    with running_server(tmp_path, "--expire-after", "1", "--sweep-interval", "0.2") as server:
        unfinished = tus.create(server.url, 10)
        finished = tus.create(server.url, 3)
        slow = tus.create(server.url, 10)
        part = httpx.post(
            server.url, headers={**tus.BYTES, "Upload-Length": "3", "Upload-Concat": "partial"}, content=b"abc"
        ).headers["Location"]

        assert "Upload-Expires" in tus.patch(unfinished, 0, b"abc").headers
        assert "Upload-Expires" not in tus.patch(finished, 0, b"abc").headers

        for offset in range(9):  # 2.7 s, and never more than 1 s without a byte
            time.sleep(0.3)

            assert 204 == tus.patch(slow, offset, b"x").status_code

        for url in (unfinished, part):
            assert 410 == tus.head(url).status_code
            assert 410 == tus.patch(url, 3, b"d").status_code

        for url in (unfinished, part):
            files = [tmp_path / "uploads" / name for name in (tus.upload_id(url), tus.upload_id(url) + ".info")]
            eventually(partial(none_exists, files), what="the sweep has come")

            assert 410 == httpx.get(url).status_code
            assert 410 == httpx.delete(url, headers=tus.TUS).status_code

        assert b"abc" == httpx.get(finished).content

        tus.patch(slow, 9, b"x")

        assert b"x" * 10 == httpx.get(slow).content
