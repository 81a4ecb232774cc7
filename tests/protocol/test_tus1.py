"""The dialect: a valid request of each kind, and tests that break one thing of it; every reply."""

import dataclasses
import json
from dataclasses import replace

import pytest

from tusd_py.protocol import refusals, tus1
from tusd_py.protocol.messages import (
    Append,
    Checksum,
    Command,
    Create,
    Describe,
    Download,
    Inspect,
    Limits,
    Request,
    Terminate,
)
from tusd_py.protocol.upload import Upload

ID = "0123456789abcdef0123456789abcdef"
UPLOAD = Upload(id=ID, length=10, offset=4, metadata="filename YQ==", created_at=0.0, expires_at=784111777.0)

OCTETS = "application/offset+octet-stream"
SHA1 = "Kq5sNclPz7QV2+lfQIuc6R7oRu0="
CHECKSUM = Checksum("sha1", bytes.fromhex("2aae6c35c94fcfb415dbe95f408b9ce91ee846ed"))

VALID: dict[str, dict[str, str]] = {
    "POST": {"tus-resumable": "1.0.0", "upload-length": "10", "upload-metadata": "filename YQ=="},
    "PATCH": {
        "tus-resumable": "1.0.0",
        "upload-offset": "4",
        "content-length": "6",
        "content-type": "application/offset+octet-stream",
    },
    "HEAD": {"tus-resumable": "1.0.0"},
    "DELETE": {"tus-resumable": "1.0.0"},
    "GET": {},
    "OPTIONS": {},
}


def request(method: str, *, upload_id: str | None = None, **changes: str | None) -> Request:
    """Return the valid request of a method with some headers changed, added or (None) removed."""
    headers = VALID.get(method, {"tus-resumable": "1.0.0"}) | {
        name.replace("_", "-"): value for name, value in changes.items() if value is not None
    }
    for name, value in changes.items():
        if value is None:
            headers.pop(name.replace("_", "-"), None)
    target = ("" if method in ("POST", "OPTIONS") else ID) if upload_id is None else upload_id
    return Request(method, target, {name: (value,) for name, value in headers.items()}, "http://host/files/")


@pytest.mark.parametrize(
    ("valid", "command"),
    [
        (request("OPTIONS"), Describe()),
        (request("OPTIONS", upload_id=ID, tus_resumable="0.1"), Describe()),
        (request("POST"), Create(10, "filename YQ==")),
        (request("POST", upload_metadata=None), Create(10)),
        (request("POST", upload_metadata=""), Create(10)),
        (request("POST", upload_length=None, upload_defer_length="1"), Create(None, "filename YQ==")),
        (
            request("POST", content_length="3", content_type="application/offset+octet-stream"),
            Create(10, "filename YQ==", body_length=3),
        ),
        (request("PATCH"), Append(ID, 4, body_length=6)),
        (request("POST", upload_concat="partial"), Create(10, "filename YQ==", "partial")),
        (
            request("POST", upload_length=None, upload_concat="final;/files/a b"),
            Create(None, "filename YQ==", "final;/files/a b", ("a", "b")),
        ),
        (request("PATCH", upload_checksum=f"sha1 {SHA1}"), Append(ID, 4, body_length=6, checksum=CHECKSUM)),
        (
            request("POST", content_length="3", content_type=OCTETS, upload_checksum=f"sha1 {SHA1}"),
            Create(10, "filename YQ==", body_length=3, checksum=CHECKSUM),
        ),
        (request("PATCH", upload_length="10"), Append(ID, 4, length=10, body_length=6)),
        (request("PATCH", content_length=None, transfer_encoding="chunked"), Append(ID, 4, body_length=None)),
        (request("PATCH", content_length=None), Append(ID, 4, body_length=0)),
        (request("PATCH", content_type="Application/Offset+Octet-Stream ; x=y"), Append(ID, 4, body_length=6)),
        (request("HEAD"), Inspect(ID)),
        (request("HEAD", tus_resumable=None), Inspect(ID)),
        (request("DELETE"), Terminate(ID)),
        (request("GET"), Download(ID)),
        (request("GET", tus_resumable="0.2.2"), Download(ID)),
        (request("POST", upload_id=ID, x_http_method_override="DELETE"), Terminate(ID)),
        (request("PATCH", x_http_method_override="HEAD"), Inspect(ID)),
    ],
)
def test_read(valid: Request, command: Command) -> None:
    assert command == tus1.read(valid)


@pytest.mark.parametrize(
    ("broken", "status", "code", "text"),
    [
        (request("POST", tus_resumable=None), 412, "ERR_UNSUPPORTED_VERSION", "missing"),
        (request("PATCH", tus_resumable="0.2.2"), 412, "ERR_UNSUPPORTED_VERSION", "'0.2.2'"),
        (request("HEAD", tus_resumable="2.0.0"), 412, "ERR_UNSUPPORTED_VERSION", "'2.0.0'"),
        (request("DELETE", tus_resumable=None), 412, "ERR_UNSUPPORTED_VERSION", "missing"),
        (request("POST", upload_length=None), 400, "ERR_INVALID_UPLOAD_LENGTH", "missing"),
        (request("POST", upload_length="-1"), 400, "ERR_INVALID_UPLOAD_LENGTH", "'-1'"),
        (request("POST", upload_length="\N{ARABIC-INDIC DIGIT ONE}"), 400, "ERR_INVALID_UPLOAD_LENGTH", "digits"),
        (request("POST", upload_defer_length="1"), 400, "ERR_AMBIGUOUS_UPLOAD_LENGTH", "one of them"),
        (
            request("POST", upload_length=None, upload_defer_length="2"),
            400,
            "ERR_INVALID_UPLOAD_LENGTH_DEFER",
            "only be 1",
        ),
        (request("POST", upload_metadata="a b c"), 400, "ERR_INVALID_METADATA", "Base64"),
        (request("POST", upload_metadata="a " + "A" * 16384), 400, "ERR_INVALID_METADATA", "at most"),
        (request("POST", upload_concat="parts"), 400, "ERR_INVALID_CONCAT", "'parts'"),
        (request("POST", upload_concat="final;a"), 400, "ERR_INVALID_CONCAT", "upload-length is not for"),
        (
            request("POST", upload_length=None, upload_concat="final;a", content_length="1"),
            400,
            "ERR_INVALID_CONCAT",
            "takes no body",
        ),
        (request("PATCH", upload_checksum="crc32 x"), 400, "ERR_INVALID_CHECKSUM", "crc32"),
        (request("POST", content_length="3"), 415, "ERR_INVALID_CONTENT_TYPE", "missing"),
        (request("POST", transfer_encoding="chunked"), 415, "ERR_INVALID_CONTENT_TYPE", "missing"),
        (request("PATCH", content_type="text/plain"), 415, "ERR_INVALID_CONTENT_TYPE", "'text/plain'"),
        (request("PATCH", content_type=None), 415, "ERR_INVALID_CONTENT_TYPE", "missing"),
        (request("PATCH", upload_offset=None), 400, "ERR_INVALID_OFFSET", "HEAD"),
        (request("PATCH", upload_offset="4.0"), 400, "ERR_INVALID_OFFSET", "'4.0'"),
        (request("PATCH", upload_length="x"), 400, "ERR_INVALID_UPLOAD_LENGTH", "'x'"),
        (request("PATCH", content_length="x"), 400, "ERR_INVALID_CONTENT_LENGTH", "'x'"),
        (request("HEAD", upload_id="../secret"), 404, "ERR_UPLOAD_NOT_FOUND", "start a new"),
        (request("GET", upload_id=""), 405, "ERR_METHOD_NOT_ALLOWED", "GET"),
        (request("PUT"), 405, "ERR_METHOD_NOT_ALLOWED", "PUT"),
        (request("POST", upload_id=ID), 405, "ERR_METHOD_NOT_ALLOWED", "POST"),
    ],
)
def test_read_refuses(broken: Request, status: int, code: str, text: str) -> None:
    """Each row breaks one thing; the sentence tells what."""
    with pytest.raises(refusals.Refusal, match=text) as refusal:
        tus1.read(broken)

    assert (status, code) == (refusal.value.status, refusal.value.code)


@pytest.mark.parametrize("method", ["POST", "PATCH", "HEAD", "DELETE", "GET", "OPTIONS"])
@pytest.mark.parametrize(
    ("values", "status", "code"),
    [
        (("gzip, chunked",), 501, "ERR_UNKNOWN_TRANSFER_CODING"),
        (("gzip", "chunked"), 501, "ERR_UNKNOWN_TRANSFER_CODING"),
        (("identity, Chunked",), 501, "ERR_UNKNOWN_TRANSFER_CODING"),
        (("gzip",), 400, "ERR_INVALID_TRANSFER_CODING"),
        (("chunked, gzip",), 400, "ERR_INVALID_TRANSFER_CODING"),
        (("chunked", "chunked"), 400, "ERR_INVALID_TRANSFER_CODING"),
        (("chunked;q=1",), 400, "ERR_INVALID_TRANSFER_CODING"),
        (("xchunked",), 400, "ERR_INVALID_TRANSFER_CODING"),
        (("",), 400, "ERR_INVALID_TRANSFER_CODING"),
    ],
)
def test_no_transfer_coding_but_chunked(method: str, values: tuple[str, ...], status: int, code: str) -> None:
    """Bytes in another coding are not those of the upload, and a body without a known end is no body."""
    valid = request(method, content_length=None)
    with pytest.raises(refusals.Refusal, match="it can only be chunked") as refusal:
        tus1.read(replace(valid, headers={**valid.headers, "transfer-encoding": values}))

    assert (status, code) == (refusal.value.status, refusal.value.code)
    assert status == tus1.refused(refusal.value, method).status


def test_chunked_in_any_spelling_is_chunked() -> None:
    for text in ("chunked", "CHUNKED", " chunked ,", ", chunked"):
        command = tus1.read(request("PATCH", content_length=None, transfer_encoding=text))

        assert Append(ID, 4, body_length=None) == command


def test_a_content_length_beside_a_transfer_coding_is_400() -> None:
    with pytest.raises(refusals.BadHeader, match="send one") as refusal:
        tus1.read(request("PATCH", transfer_encoding="chunked"))

    assert "ERR_INVALID_TRANSFER_CODING" == refusal.value.code


def test_doubled_headers_that_disagree_are_400() -> None:
    headers = {"tus-resumable": ("1.0.0",), "upload-length": ("1", "2")}
    with pytest.raises(refusals.BadHeader, match="upload-length is there 2 times"):
        tus1.read(Request("POST", "", headers, "/files/"))


def test_doubled_headers_that_agree_are_one() -> None:
    headers = {"tus-resumable": ("1.0.0", "1.0.0"), "upload-length": ("1", "1")}

    assert Create(1) == tus1.read(Request("POST", "", headers, "/files/"))


def test_a_refused_method_says_which_are_allowed() -> None:
    with pytest.raises(refusals.MethodNotAllowed) as refusal:
        tus1.read(request("PUT"))

    assert ("Allow", "HEAD, PATCH, DELETE, GET, OPTIONS") in tus1.refused(refusal.value, "PUT").headers


def test_described() -> None:
    reply = tus1.described(Limits(max_size=100, extensions=("creation", "termination")))

    assert 204 == reply.status
    assert {
        "Tus-Resumable": "1.0.0",
        "Tus-Version": "1.0.0",
        "Tus-Extension": "creation,termination",
        "Tus-Max-Size": "100",
    } == dict(reply.headers)


def test_described_tells_the_checksums() -> None:
    reply = tus1.described(Limits(extensions=("checksum",)))

    assert "sha1,md5,sha256,sha512" == dict(reply.headers)["Tus-Checksum-Algorithm"]


def test_inspected_echoes_concat_as_received() -> None:
    reply = tus1.inspected(
        Upload(id=ID, length=4, offset=4, metadata="", created_at=0.0, concat="final;/files/a  /files/b")
    )

    assert "final;/files/a  /files/b" == dict(reply.headers)["Upload-Concat"]


def test_described_leaves_out_what_there_is_not() -> None:
    assert {"Tus-Resumable", "Tus-Version"} == dict(tus1.described(Limits()).headers).keys()


def test_created() -> None:
    reply = tus1.created(UPLOAD, request("POST"))

    assert 201 == reply.status
    assert {
        "Tus-Resumable": "1.0.0",
        "Location": f"http://host/files/{ID}",
        "Upload-Offset": "4",
        "Upload-Expires": "Sun, 06 Nov 1994 08:49:37 GMT",
    } == dict(reply.headers)


def test_appended() -> None:
    upload = UPLOAD.at(10, expires_at=UPLOAD.expires_at).finished(1.0)
    reply = tus1.appended(upload, Append(ID, 4, body_length=6), is_whole=True)

    assert (204, {"Tus-Resumable": "1.0.0", "Upload-Offset": "10"}) == (reply.status, dict(reply.headers))


@pytest.mark.parametrize("body_length", [6, None])
@pytest.mark.parametrize("checksum", [CHECKSUM, None])
@pytest.mark.parametrize("offset", [4, 7, 10])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_patch_that_had_to_yield(
    body_length: int | None, checksum: Checksum | None, offset: int, is_whole: bool
) -> None:
    """204 with the offset where the client goes on from that; 503 where it would give up, or nothing was stored."""
    append = Append(ID, 4, body_length=body_length, checksum=checksum)
    upload = UPLOAD.at(offset, expires_at=None)
    if is_whole or offset == UPLOAD.length or (body_length == 6 and not checksum):
        reply = tus1.appended(upload, append, is_whole=is_whole)

        assert (204, str(offset)) == (reply.status, dict(reply.headers)["Upload-Offset"])
    else:
        with pytest.raises(refusals.UploadInterrupted) as caught:
            tus1.appended(upload, append, is_whole=is_whole)
        reply = tus1.refused(caught.value, "PATCH")
        headers = dict(reply.headers)

        assert (503, str(offset), "1") == (reply.status, headers["Upload-Offset"], headers["Retry-After"])
        assert ("ERR_UPLOAD_INTERRUPTED", "resume") == (
            (problem := json.loads(reply.body))["code"],
            problem["action"],
        )


def test_a_body_that_only_the_stream_announces_has_no_length() -> None:
    """HTTP/2 without Content-Length; with one, that counts."""
    streamed = dataclasses.replace(request("PATCH", content_length=None), is_streamed=True)

    assert Append(ID, 4, body_length=None) == tus1.read(streamed)


def test_inspected() -> None:
    reply = tus1.inspected(UPLOAD)

    assert 200 == reply.status
    assert {
        "Tus-Resumable": "1.0.0",
        "Cache-Control": "no-store",
        "Upload-Offset": "4",
        "Upload-Length": "10",
        "Upload-Metadata": "filename YQ==",
        "Upload-Expires": "Sun, 06 Nov 1994 08:49:37 GMT",
    } == dict(reply.headers)


def test_inspected_without_length_metadata_and_expiry() -> None:
    reply = tus1.inspected(Upload(id=ID, length=None, offset=0, metadata="", created_at=0.0))

    assert {
        "Tus-Resumable": "1.0.0",
        "Cache-Control": "no-store",
        "Upload-Offset": "0",
        "Upload-Defer-Length": "1",
    } == dict(reply.headers)


def test_terminated() -> None:
    assert 204 == tus1.terminated().status


def test_a_refusal_is_problem_details_with_a_stable_code() -> None:
    reply = tus1.refused(refusals.UploadGone("It has expired; start a new upload"), "PATCH")

    assert 410 == reply.status
    assert "application/problem+json" == dict(reply.headers)["Content-Type"]
    assert {
        "type": "about:blank",
        "title": "Upload Gone",
        "status": 410,
        "code": "ERR_UPLOAD_GONE",
        "detail": "It has expired; start a new upload",
        "action": "restart",
    } == json.loads(reply.body)


def test_a_refusal_that_passes_says_when_to_try_again() -> None:
    assert ("Retry-After", "1") in tus1.refused(refusals.Unavailable("away"), "PATCH").headers


@pytest.mark.parametrize(
    "refusal",
    [refusals.Unavailable("away"), refusals.VolumeAway(), refusals.Internal("oops"), refusals.UploadLocked("x")],
)
def test_transient_trouble_on_head_is_423(refusal: refusals.Refusal) -> None:
    """tus-js-client starts over on any other answer to HEAD."""
    reply = tus1.refused(refusal, "HEAD")

    assert (423, b"") == (reply.status, reply.body)


def test_every_refusal_has_status_title_code_and_action() -> None:
    for kind in refusals.Refusal.__subclasses__():
        assert 400 <= kind.status < 600
        assert kind.title
        assert kind.code.startswith("ERR_")
        assert kind.action in ("fix", "resume", "retry", "restart")
