"""Random malformed requests, made from a seed, and checks of the answers to them."""

import base64
import json
import random
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ANSWER_S = 12.0  # covers the read timeout, the lease wait and the time a refused connection stays open
SILENT_S = 0.5  # after a whole answer and this long without data, the server keeps the connection open
LONG = 70_000  # bytes; above every server's limit for a line

FORBIDDEN_HEADER = "x-injected"  # in an answer it means that text from a request became a header

METHODS = (b"POST", b"PATCH", b"HEAD", b"GET", b"DELETE", b"OPTIONS")
ODD_METHODS = (
    b"", b"post", b"pAtCh", b"PUT", b"TRACE", b"CONNECT", b"PROPFIND", b"M-SEARCH", b"PRI", b"QUERY", b"LINK",
    b"X" * 30, b"A" * LONG, b"GET\x00", b"\xff\xfe", b"GE T", b"\r\nGET", b"\tGET", b"G\xc3\x8bT", b"PATCHX",
    b"HEAD,GET",
)  # fmt: skip
VERSIONS = (
    b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b"", b"HTTP/1", b"ICE/1.0",
)  # fmt: skip

# {id} is the id of an upload, {host} the authority of the server.
CREATION_PATHS = (
    b"/files/", b"/files/", b"/files", b"//files/", b"/files//", b"/files/?", b"/files/?a=1&b=%00", b"/files/#x",
    b"/files/./", b"/files/../files/", b"/files/%2e%2e/files/", b"/%66iles/", b"/FILES/", b"/files/?\xff",
    b"/files;a=b/", b"http://{host}/files/", b"http://[::1/files/", b"http://:80/files/",
    b"https://other.example/files/", b"http://a@b/files/",
)  # fmt: skip
UPLOAD_PATHS = (
    b"/files/{id}", b"/files/{id}", b"/files/{id}", b"/files/{id}?", b"/files/{id}?a=b#c", b"/files/{id}#x",
    b"/files/{id}/", b"/files/{id}%2F", b"/files/{id}%00", b"/files/{id}%0d%0aX-Injected:%201", b"/files//{id}",
    b"/files/../files/{id}", b"/files/%2e%2e/files/{id}", b"/files/{id}.info", b"/files/{id}%20", b"/files/{id}\xff",
    b"/files/{id}%ff", b"/files/{id}%", b"/files/{id}%zz", b"/files/x/{id}", b"http://{host}/files/{id}",
    b"/files/{id};v=1", b"/files/{id}\\..", b"/files/+{id}",
)  # fmt: skip
OTHER_PATHS = (
    b"/", b"*", b"", b"files/", b"/healthz", b"/healthz/", b"/healthz%0d%0aX-Injected:%201/", b"/readyz", b"/readyz?x",
    b"/../../etc/passwd", b"/files/../../etc/passwd", b"/files/..%2f..%2fetc%2fpasswd", b"/files/.tusd_py.sqlite3",
    b"/files/..", b"/files/.", b"/files/%00", b"/files/" + b"a" * 128, b"/files/" + b"a" * 129,
    b"/files/" + b"a" * LONG, b"/files/" + b"%41" * 3000, b"/files/%e2%80%ae", b"/files/\xc3\xa9", b"/files/\xff\xfe",
    b"/\x00", b"/files/\x7f", b"/a b", b"http://", b"http://{host}", b"http://{host}?x", b"//", b"///", b"?", b"#",
    b"/files/\xef\xbc\x91", b"/" + b"/a" * 20_000, b"{host}", b"ftp://x/files/", b"http://[", b"http://x:99999/files/",
    b"http://x:-1/", b"javascript:alert(1)",
)  # fmt: skip

FULL_WIDTH = "\uff11\uff12".encode()
ODD_NUMBERS = (
    b"", b" ", b"-1", b"+1", b"-0", b"1_000", b"0x10", b"1.0", b"1e3", b"007", b"0", b"1", b"3", b"100", b"1048577",
    b"NaN", b"9" * 19, b"9" * 20, b"9" * 5000, b"%d" % (2**63 - 1), b"%d" % 2**63, b"%d" % 2**64, FULL_WIDTH, b"1 1",
    b"1,1", b"1;1",
)  # fmt: skip
ODD_VALUES = (
    b"", b" ", b"\t1\t", b"\x00", b"1\x00", b"\x01", b"a\rb", b"a\nb", b"a\r\n b", b"a\r\n\tb", b"\n", b"\r",
    b"\xff\xfe", b"\x7f", b"\xa0", b"\x85", b"\xc3\xa9", b"a\r\nX-Injected: 1", b"a\nX-Injected: 1", b"A" * LONG, b",",
    b";", b'"', b"%00", b"{}", b"*",
)  # fmt: skip
ODD_NAMES = (
    b"", b" ", b"Upload Offset", b"Upload-Offset ", b" Upload-Offset", b"\tX", b"X\x00", b"X\xff", b"X(",
    b"Upload_Offset", b"upload-OFFSET", b"X" * LONG, b":", b"X\r", b"X\n",
)  # fmt: skip


def pair(value: bytes) -> bytes:
    """Return a pair of Upload-Metadata with a filename."""
    return b"filename " + base64.b64encode(value)


# Odd values for a particular header. The lists above are used for every header.
ODD: Mapping[bytes, Sequence[bytes]] = {
    b"Tus-Resumable": (b"1.0.0", b"0.2.2", b"1.0", b"1.0.0 ", b"1.0.0,1.0.0", b"v1.0.0", b"2.0.0"),
    b"Upload-Offset": ODD_NUMBERS,
    b"Upload-Length": ODD_NUMBERS,
    b"Upload-Defer-Length": (b"1", *ODD_NUMBERS),
    b"Upload-Metadata": (
        b"a", b"a ", b"a =", b"a ,", b"a YQ==,a YQ==", b",", b",,", b"a b c", b"a YQ", b"a Y-_Q", b"a YQ==,",
        b" a  YQ==", b"\xc3\xa9 YQ==", pair(b"a\r\nX-Injected: 1"), pair(b'"; filename*=x'), pair(b"../../etc/passwd"),
        pair(b"\xff\xfe\x00"), pair("\uff12é\u202e".encode()), pair(b"\\"), pair(b"a" * 11_000), pair(b"%0d%0a"),
        b"filetype " + base64.b64encode(b"text/html\r\nX-Injected: 1"), b"k" * 17_000,
        b",".join(b"k%d" % number for number in range(3000)), b"filetype dmlkZW8vbXA0",
    ),
    b"Upload-Concat": (
        b"partial", b"PARTIAL", b"final", b"final;", b"final; ", b"final;/", b"final;/files/{id}", b"final;{id} {id}",
        b"partial;{id}", b"final;http://[", b"final;http://[::1]:x/{id}", b"final;\xff", b"final;/files/{id}?x#y",
        b"final;" + b"{id} " * 1001, b"final;a\tb", b"final;" + b"/" * 9000, b"final;/files/" + b"0" * 32,
        b"final;\x85{id}",
    ),
    b"Upload-Checksum": (
        b"sha1", b"sha1 ", b"sha1 x", b"sha1 " + base64.b64encode(b"x" * 20), b"SHA1 x", b"crc32 AAAAAA==", b" sha1",
        b"md5 " + b"A" * 23, b"sha1  Kq5sNclPz7QV2+lfQIuc6R7oRu0=", b"sha512 " + b"\xff", b"shake_128 AA==",
        b"sha1\t" + base64.b64encode(b"x" * 20),
    ),
    b"Content-Type": (
        b"application/octet-stream", b"application/offset+octet-stream;a=b", b"APPLICATION/OFFSET+OCTET-STREAM", b";",
    ),
    b"Content-Length": (*ODD_NUMBERS, b"5, 5", b"5, 6", b"10000000"),
    b"Transfer-Encoding": (
        b"chunked", b"Chunked", b"gzip", b"gzip, chunked", b"chunked, gzip", b"identity", b"xchunked", b"chunked\x0b",
        b" chunked",
    ),
    b"Expect": (b"100-continue", b"100-Continue", b"200-ok", b"100-continue, x"),
    b"X-HTTP-Method-Override": (*METHODS, b"get", b"PUT", b"A" * 300, b"GET\xff", b"HEAD, GET"),
    b"Origin": (b"null", b"https://a.example", b"https://a.example, https://b.example", b"\xff", b"x" * 9000),
    b"Access-Control-Request-Method": (b"PATCH", b"patch", b"PUT", b"*"),
    b"Access-Control-Request-Headers": (b"upload-offset,tus-resumable", b"*", b"x-\xff", b"x, " * 3000),
    b"Access-Control-Request-Private-Network": (b"true", b"1"),
    b"Forwarded": (
        b"proto=https;host=a.example", b"for=;proto=;host=", b'host="[::1]:x"', b"proto=javascript;host=x", b"=;=;=",
        b'host="a\\"b"', b";" * 5000,
    ),
    b"X-Forwarded-Proto": (b"https", b"javascript", b"https, http", b"\xff"),
    b"X-Forwarded-Host": (
        b"a.example", b"a.example/x", b"a b", b"[", b"[::1]:99999", b"a.example\xff", b"<script>", b"a" * 5000,
    ),
    b"X-Forwarded-For": (b"1.2.3.4", b"unknown", b"::1, 1.2.3.4", b"x" * 3000),
    b"Host": (
        b"", b"[", b"a b", b"a/b", b"a:b", b"a:99999", b"\xff", b"a.example", b"[::1]", b"a@b", b"a" * 9000,
    ),
    b"Range": (
        b"bytes=", b"bytes=-", b"bytes=0-", b"bytes=-0", b"bytes=-5", b"bytes=5-1", b"bytes=0-0,0-0", b"bytes=0-1,-1",
        b"bytes=a-b", b"items=0-1", b"bytes", b"bytes 0-1", b"bytes=0-" + b"9" * 30, b"bytes=" + b"9" * 30 + b"-",
        b"bytes=-" + b"9" * 30, b"bytes=1_0-2_0", b"bytes=--1", b"bytes=" + b"0-0," * 99 + b"0-0",
        b"bytes=" + b"0-0," * 20_000, b"bytes=" + FULL_WIDTH + b"-", b"bytes=0-0-0", b"bytes=+0-1", b"bytes= 0 - 1 ",
        b"bytes=-" + b"9" * 5000, b"bytes=9" + b"-9" * 5000, b"bytes=0-1, 3-4", b"bytes=0-1,3-4,99-", b"=",
        b"bytes=\xff-",
    ),
    b"If-Range": (b'"x"', b"W/x", b"Wed, 21 Oct 2015 07:28:00 GMT", b"yesterday"),
    b"If-None-Match": (b"*", b'"x"', b'W/"x", "y"'),
    b"If-Modified-Since": (b"Wed, 21 Oct 2015 07:28:00 GMT", b"yesterday"),
    b"Connection": (b"keep-alive", b"Upgrade", b"close, upgrade", b"Upload-Offset"),
    b"Upgrade": (b"h2c", b"websocket", b"TLS/1.0", b"HTTP/2.0"),
    b"HTTP2-Settings": (b"AAMAAABkAAQAAP__",),
    b"Sec-WebSocket-Key": (b"dGhlIHNhbXBsZSBub25jZQ==",),
    b"Trailer": (b"Upload-Checksum", b"Content-Length"),
    b"TE": (b"trailers",),
    b"Content-Encoding": (b"gzip", b"aws-chunked"),
    b"Cookie": (b"a=b", b"=" * 4000),
    b"Authorization": (b"Basic eA==", b"\xff"),
}  # fmt: skip

# The headers that matter for a method. The others are used less often.
READ: Mapping[bytes, Sequence[bytes]] = {
    b"POST": (b"Upload-Length", b"Upload-Defer-Length", b"Upload-Metadata", b"Upload-Concat", b"Upload-Checksum"),
    b"PATCH": (b"Upload-Offset", b"Upload-Length", b"Upload-Checksum", b"Content-Type", b"Content-Length", b"Expect"),
    b"GET": (b"Range", b"If-Range", b"If-None-Match", b"If-Modified-Since"),
    b"OPTIONS": (b"Origin", b"Access-Control-Request-Method", b"Access-Control-Request-Headers"),
}

BAD_CHUNKS = (
    b"5\r\nhello\r\n0\r\n\r\n", b"5;ext=1\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"05\r\nhello\r\n0\r\n\r\n",
    b"0\r\n\r\n", b"5\r\nhello", b"5\r\nhel", b"", b"\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"5\r\nhello world\r\n0\r\n\r\n", b"F" * 16 + b"\r\nhello",
    b"F" * 17 + b"\r\nhello", b"g\r\n", b"+5\r\nhello\r\n", b"5;" + b"x" * LONG + b"\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 3000 + b"\r\n", b"5_0\r\nhello",
    b"5\r\nhello\r\n0\r\nUpload-Checksum: sha1 x\r\n\r\n", b"\x00", b"5\r\nhello0\r\n\r\n",
    b"1\r\na\r\n" * 3000 + b"0\r\n\r\n",
)  # fmt: skip


@dataclass
class FuzzRequest:
    """What to send on one connection."""

    data: bytes
    whole: bool = True  # the head is complete, so an answer is required
    reset: bool = False  # the client resets the connection after sending, without reading

    @property
    def is_head(self) -> bool:
        return self.data.lstrip(b"\r\n").startswith(b"HEAD ")


@dataclass
class Answer:
    """One final response."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass
class Outcome:
    """What was received on one connection."""

    answers: list[Answer] = field(default_factory=list)
    closed: bool = False  # the connection was closed in time
    took_s: float = 0.0


def head_of(method: bytes, path: bytes, headers: Sequence[tuple[bytes, bytes]], version: bytes = b"HTTP/1.1") -> bytes:
    """Return the head of a request, including the empty line at its end."""
    lines = [b" ".join([method, path, version]), *(name + b": " + value for name, value in headers), b"", b""]
    return b"\r\n".join(lines)


class Fuzzer:
    """Makes random requests, most of them valid but for one to three changes."""

    def __init__(self, rng: random.Random, host: bytes, targets: Sequence[bytes], protected: Sequence[bytes]) -> None:
        """targets: ids of uploads that a request may change; protected: ids of uploads that must not change.

        Requests about protected uploads have a wrong Tus-Resumable, so the server must refuse them.
        """
        self._rng = rng
        self._host = host
        self._targets = targets
        self._protected = protected

    def request(self) -> FuzzRequest:
        """Return the next random request."""
        rng = self._rng
        is_protected = rng.random() < 0.25
        upload_id = rng.choice(self._protected if is_protected else self._targets)
        method = rng.choice(ODD_METHODS) if rng.random() < 0.1 else rng.choice(METHODS)
        path = self._path(method)
        body = rng.choice([b"", b"x", b"hello", rng.randbytes(300), rng.randbytes(rng.randrange(100_000))])
        if method not in (b"POST", b"PATCH") and rng.random() < 0.9:
            body = b""
        headers = self._baseline(method, body)
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            self._break(headers, READ.get(method, ()))
        if rng.random() < 0.15:
            body, chunked = self._odd_body(body)
            if chunked:
                headers = [one for one in headers if one[0] != b"Content-Length" or rng.random() < 0.1]
                headers.append((b"Transfer-Encoding", b"chunked"))
        if is_protected:
            headers = [(name, value) for name, value in headers if b"1.0.0" not in value]
            headers.append((b"Tus-Resumable", rng.choice([b"1.0", b"0.2.2", b"", b"1.0.1", b"1.0.0.0", FULL_WIDTH])))
        version = rng.choice(VERSIONS) if rng.random() < 0.03 else b"HTTP/1.1"
        head = head_of(method, path, headers, version)
        if rng.random() < 0.02:
            head = head.replace(b"\r\n", rng.choice([b"\n", b"\r"]), rng.choice([1, 2, -1]))
        if is_protected and b"1.0.0" in head.replace(b"1.0.0.0", b""):
            head = head.replace(b"1.0.0", b"1.0.9")
        data = (head + body).replace(b"{id}", upload_id).replace(b"{host}", self._host)
        whole = b"\r\n\r\n" in data
        if rng.random() < 0.03:
            return FuzzRequest(data[: rng.randrange(len(data))], whole=False)
        if rng.random() < 0.03 and not is_protected:
            data += rng.choice(
                [
                    data,
                    b"garbage",
                    b"\r\n\r\n",
                    rng.randbytes(2000),
                    b"\x16\x03\x01\x02\x00\x01",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                ]
            )
        return FuzzRequest(data, whole, reset=rng.random() < 0.03)

    def _path(self, method: bytes) -> bytes:
        if self._rng.random() < 0.12:
            return self._rng.choice(OTHER_PATHS)
        paths = CREATION_PATHS if method == b"POST" and self._rng.random() < 0.9 else UPLOAD_PATHS
        return paths[0] if self._rng.random() < 0.5 else self._rng.choice(paths)

    def _baseline(self, method: bytes, body: bytes) -> list[tuple[bytes, bytes]]:
        """Return the headers of a valid request with this method."""
        headers = [(b"Host", self._host), (b"Connection", b"close"), (b"Tus-Resumable", b"1.0.0")]
        if method == b"POST":
            headers.append((b"Upload-Length", b"%d" % (len(body) + self._rng.choice([0, 0, 7]))))
            headers.append((b"Upload-Metadata", pair(b"a.mp4")))
        if method == b"PATCH":
            headers.append((b"Upload-Offset", b"3"))
        if method in (b"POST", b"PATCH"):
            headers.append((b"Content-Type", b"application/offset+octet-stream"))
        if method in (b"POST", b"PATCH") or body:
            headers.append((b"Content-Length", b"%d" % len(body)))
        return headers

    def _break(self, headers: list[tuple[bytes, bytes]], read: Sequence[bytes]) -> None:
        rng = self._rng
        at = rng.randrange(len(headers))
        name, value = headers[at]
        match rng.choice([*["odd value"] * 4, *["new"] * 7, "twice", "twice", "gone", "odd name", "raw", "case"]):
            case "odd value":
                headers[at] = (name, self._odd(name))
            case "new":
                name = rng.choice(read if read and rng.random() < 0.6 else list(ODD))
                headers.insert(at, (name, self._odd(name)))
            case "twice":
                headers.insert(at, (name, rng.choice([value, self._odd(name)])))
            case "gone":
                del headers[at]
                headers.append((b"Connection", b"close"))
            case "odd name":
                headers.insert(at, (rng.choice(ODD_NAMES), value))
            case "raw":
                headers.insert(at, (rng.randbytes(rng.randrange(1, 9)), rng.randbytes(rng.randrange(30))))
            case _:
                headers[at] = (name.swapcase(), value)

    def _odd(self, name: bytes) -> bytes:
        own = ODD.get(name, ())
        return self._rng.choice(own if own and self._rng.random() < 0.85 else ODD_VALUES)

    def _odd_body(self, body: bytes) -> tuple[bytes, bool]:
        """Return a body, usually one that does not match the head, and whether it is chunked."""
        rng = self._rng
        match rng.choice(["short", "long", "chunked", "chunked", "good chunks"]):
            case "short":
                return body[: len(body) // 2], False
            case "long":
                return body + rng.randbytes(rng.randrange(1, 100)), False
            case "chunked":
                return rng.choice(BAD_CHUNKS), True
            case _:
                return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n", True


def send(address: tuple[str, int], request: FuzzRequest) -> Outcome:
    """Send a request on a connection of its own and return what is received until the server closes it.

    If the server neither answers nor closes in ANSWER_S, the outcome has no answer and is not closed.
    """
    outcome = Outcome()
    began = time.monotonic()
    received = b""
    with socket.create_connection(address, timeout=ANSWER_S) as sock:
        try:
            sock.sendall(request.data)
            if request.reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                outcome.closed = True
                return outcome
        except OSError:
            pass  # the server has refused it before all was sent; its answer is read below
        sock.settimeout(SILENT_S)
        while not outcome.closed and time.monotonic() - began < ANSWER_S:
            try:
                piece = sock.recv(1 << 20)
                received += piece
                outcome.closed = not piece
            except TimeoutError:
                if not request.whole or read_answers(received, request.is_head):
                    break
            except OSError:
                outcome.closed = True
    outcome.answers = read_answers(received, request.is_head)
    outcome.took_s = time.monotonic() - began
    return outcome


def read_answers(received: bytes, to_head: bool) -> list[Answer]:
    """Return the final responses in the received bytes; to_head: the first one answers HEAD and has no body."""
    answers: list[Answer] = []
    while received.startswith(b"HTTP/1.1 "):
        head, end, received = received.partition(b"\r\n\r\n")
        if not end:
            break
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        answer = Answer(int(lines[0].split()[1]), headers)
        if answer.status < 200:
            continue
        # A refusal by the HTTP parser has a body even in answer to HEAD.
        if to_head and not answers and (not received or received.startswith(b"HTTP/1.1 ")):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            answer.body, received = read_chunks(received)
        else:
            length = int(headers.get("content-length", "0"))
            answer.body, received = received[:length], received[length:]
        answers.append(answer)
    assert b"HTTP/1.1 5" not in received, received
    return answers


def read_chunks(received: bytes) -> tuple[bytes, bytes]:
    """Return a chunked body and the bytes after it."""
    body = b""
    while match := re.match(rb"([0-9a-f]+)\r\n", received):
        start, size = match.end(), int(match[1], 16)
        body, received = body + received[start : start + size], received[start + size + 2 :]
        if not size:
            break
    return body, received


def check(request: FuzzRequest, outcome: Outcome) -> None:
    """Raise AssertionError unless the outcome is one that every request may have."""
    assert outcome.closed or outcome.answers or not request.whole, f"neither answered nor closed in {ANSWER_S} s"
    assert outcome.took_s < ANSWER_S + 1

    for answer in outcome.answers:
        # RFC 9112 asks for 501 if the body has an unknown transfer coding.
        is_unknown_coding = answer.status == 501 and b"transfer-encoding" in request.data.lower()
        assert 200 <= answer.status < 500 or is_unknown_coding, answer
        assert FORBIDDEN_HEADER not in answer.headers, answer

        if answer.headers.get("content-type", "").startswith("application/problem+json") and answer.body:
            problem = json.loads(answer.body)

            assert answer.status == problem["status"], answer
            assert re.fullmatch("ERR_[A-Z_]+", problem["code"]), answer
            assert problem["action"] in ("fix", "resume", "retry", "restart"), answer
            assert problem["detail"], answer
        if b"Invalid HTTP request received." != answer.body:  # from the HTTP parser, which sends no tus headers
            assert "1.0.0" == answer.headers.get("tus-resumable"), answer
