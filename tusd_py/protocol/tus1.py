"""The tus 1.0.0 dialect: read() turns a request into a command; created(), appended() and so on build the replies.

The protocol text is quoted above the line that obeys it; the section stands behind the quotation.
"""

import json

from .fields import (
    CHECKSUM_ALGORITHMS,
    MAX_METADATA,
    build_http_date,
    is_upload_id,
    parse_checksum,
    parse_concat,
    parse_integer,
    parse_metadata,
)
from .messages import (
    Append,
    Checksum,
    Command,
    Create,
    Describe,
    Download,
    Inspect,
    Limits,
    Reply,
    Request,
    Terminate,
)
from .refusals import (
    BadHeader,
    Headers,
    MethodNotAllowed,
    Refusal,
    Unavailable,
    UnknownCoding,
    UnsupportedVersion,
    UploadLocked,
    UploadNotFound,
    WrongContentType,
)
from .upload import Upload, interrupted

# "The value MUST be the version of the protocol used by the Client or the Server." (Core, Tus-Resumable). The only one
# spoken, so "The list MUST be sorted by Server's preference" (Core, Tus-Version) holds by itself.
VERSION = "1.0.0"
OFFSET_OCTET_STREAM = "application/offset+octet-stream"

# Where a body ends that is not understood, nobody can be sure; the next request would begin there.
CLOSE = (("Connection", "close"),)

CREATION_METHODS = "POST, OPTIONS"
UPLOAD_METHODS = "HEAD, PATCH, DELETE, GET, OPTIONS"

# Read by scripts of other origins only when exposed; what tus-js-client and Uppy read, and what helps a person.
EXPOSED_HEADERS = (
    "Location",
    "Retry-After",
    "Tus-Checksum-Algorithm",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Upload-Concat",
    "Upload-Defer-Length",
    "Upload-Expires",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
)


def read(request: Request) -> Command:
    """Return the command that the request is. Raises a Refusal; nothing was touched then."""
    check_transfer_coding(request)
    # "The `X-HTTP-Method-Override` request header MUST be a string which MUST be interpreted as the request's method
    # by the Server, if the header is presented. The actual method of the request MUST be ignored." (Core)
    method = value_of(request, "x-http-method-override") or request.method
    if method == "OPTIONS":
        # "The Client SHOULD NOT include the `Tus-Resumable` header in the request and the Server MUST ignore the
        # header." (Core, OPTIONS)
        return Describe()
    check_version(method, value_of(request, "tus-resumable"))
    if not request.upload_id:
        if method != "POST":
            raise MethodNotAllowed(f"{method} is not for the creation URL", headers=(("Allow", CREATION_METHODS),))
        return read_create(request)
    # "If the server receives a `PATCH` request against a non-existent resource it SHOULD return a `404 Not Found`
    # status." (Core, PATCH)
    if not is_upload_id(request.upload_id):
        raise UploadNotFound("No upload has this URL; start a new upload")
    match method:
        case "HEAD":
            return Inspect(request.upload_id)
        case "PATCH":
            return read_append(request)
        case "DELETE":
            return Terminate(request.upload_id)
        case "GET":
            return Download(request.upload_id)
    raise MethodNotAllowed(f"{method} is not for an upload", headers=(("Allow", UPLOAD_METHODS),))


def check_transfer_coding(request: Request) -> None:
    """Raise BadHeader or UnknownCoding unless the bytes of the body are those of the upload, chunked at most."""
    if "transfer-encoding" not in request.headers:
        return
    text = ", ".join(request.headers["transfer-encoding"])
    codings = [coding.strip().lower() for coding in text.split(",") if coding.strip()]
    # "A server MAY reject a request that contains both Content-Length and Transfer-Encoding" (RFC 9112, 6.1): a proxy
    # that goes by the other one sees the end of the body somewhere else.
    if "content-length" in request.headers:
        raise BadHeader(
            "Content-Length and Transfer-Encoding are both there; send one",
            code="ERR_INVALID_TRANSFER_CODING",
            headers=CLOSE,
        )
    # "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is not the final
    # encoding, the message body length cannot be determined reliably; the server MUST respond with the 400 (Bad
    # Request) status code and then close the connection." (RFC 9112, 6.3)
    # "A sender MUST NOT apply the chunked transfer coding more than once to a message body" (RFC 9112, 6.1)
    if codings[-1:] != ["chunked"] or codings.count("chunked") > 1:
        raise BadHeader(
            f"Transfer-Encoding is {text[:40]!r}, it can only be chunked",
            code="ERR_INVALID_TRANSFER_CODING",
            headers=CLOSE,
        )
    # "A server that receives a request message with a transfer coding it does not understand SHOULD respond with 501
    # (Not Implemented)." (RFC 9112, 6.1)
    if len(codings) > 1:
        raise UnknownCoding(
            f"Transfer-Encoding is {text[:40]!r}, it can only be chunked; send the bytes as they are", headers=CLOSE
        )


def check_version(method: str, version: str | None) -> None:
    """Raise UnsupportedVersion unless the client speaks this dialect.

    "If the version specified by the Client is not supported by the Server, it MUST respond with the `412 Precondition
    Failed` status and MUST include the `Tus-Version` header into the response. In addition, the Server MUST NOT
    process the request." (Core, Tus-Resumable)
    """
    # GET and HEAD without the header pass, as in tusd: video players and download tools send them, they change nothing.
    if version == VERSION or method == "GET" or (method == "HEAD" and version is None):
        return
    said = "missing" if version is None else repr(version[:40])
    raise UnsupportedVersion(
        f"Tus-Resumable is {said}, this server speaks {VERSION}", headers=(("Tus-Version", VERSION),)
    )


def read_create(request: Request) -> Create:
    """Return the Create that a POST to the creation URL is. Raises BadHeader or WrongContentType."""
    concat, parts = concat_of(request)
    if parts:
        return read_concatenation(request, concat, parts)
    length = integer_of(request, "upload-length", "ERR_INVALID_UPLOAD_LENGTH")
    deferred = value_of(request, "upload-defer-length")
    # "If the `Upload-Defer-Length` header contains any other value than `1` the server should return a `400 Bad
    # Request` status." (Creation, POST)
    if deferred is not None and deferred != "1":
        raise BadHeader(
            f"Upload-Defer-Length is {deferred[:40]!r}, it can only be 1", code="ERR_INVALID_UPLOAD_LENGTH_DEFER"
        )
    # "The request MUST include one of the following headers: a) `Upload-Length` [...] b) `Upload-Defer-Length: 1`"
    # (Creation, POST)
    if length is None and deferred is None:
        raise BadHeader(
            "Upload-Length is missing; send it, or Upload-Defer-Length: 1 while the length is not known",
            code="ERR_INVALID_UPLOAD_LENGTH",
        )
    if length is not None and deferred is not None:
        raise BadHeader(
            f"Upload-Length is {length} and Upload-Defer-Length is 1; send one of them",
            code="ERR_AMBIGUOUS_UPLOAD_LENGTH",
        )
    body_length = body_length_of(request)
    # "The Client MUST include the `Content-Type: application/offset+octet-stream` header." (Creation With Upload)
    if body_length != 0:
        check_content_type(request)
    return Create(length, metadata_of(request), concat, body_length=body_length, checksum=checksum_of(request))


def read_concatenation(request: Request, concat: str, parts: tuple[str, ...]) -> Create:
    """Return the Create that a POST for a final upload is. Raises BadHeader."""
    # "The Client MUST NOT include the `Upload-Length` header in the final upload creation." (Concatenation)
    for name in ("upload-length", "upload-defer-length"):
        if name in request.headers:
            raise BadHeader(f"{name} is not for a final upload; its parts tell", code="ERR_INVALID_CONCAT")
    if body_length_of(request) != 0:
        raise BadHeader("A final upload takes no body; its parts are its bytes", code="ERR_INVALID_CONCAT")
    # "the partial uploads' metadata SHALL NOT be transferred to the new final upload. All metadata SHOULD be included
    # in the concatenation request using the `Upload-Metadata` header." (Concatenation)
    return Create(None, metadata_of(request), concat, parts)


def read_append(request: Request) -> Append:
    """Return the Append that a PATCH is. Raises BadHeader or WrongContentType.

    "The Server SHOULD accept `PATCH` requests against any upload URL and apply the bytes contained in the message at
    the given offset specified by the `Upload-Offset` header." (Core, PATCH)
    """
    # "All `PATCH` requests MUST use `Content-Type: application/offset+octet-stream`" (Core, PATCH)
    check_content_type(request)
    offset = integer_of(request, "upload-offset", "ERR_INVALID_OFFSET")
    if offset is None:
        raise BadHeader("Upload-Offset is missing; ask for it with HEAD", code="ERR_INVALID_OFFSET")
    return Append(
        upload_id=request.upload_id,
        offset=offset,
        # "the Client MUST set the `Upload-Length` header in the next `PATCH` request, once the length is known."
        # (Creation, POST)
        length=integer_of(request, "upload-length", "ERR_INVALID_UPLOAD_LENGTH"),
        body_length=body_length_of(request),
        checksum=checksum_of(request),
    )


def value_of(request: Request, name: str) -> str | None:
    """Return the one value of a header, None without it. Raises BadHeader when it is there twice and disagrees."""
    values = set(request.headers.get(name, ()))
    if len(values) > 1:
        raise BadHeader(f"{name} is there {len(request.headers[name])} times with different values; send it once")
    return values.pop() if values else None


def integer_of(request: Request, name: str, code: str) -> int | None:
    """Return a header's non-negative integer, None without it. Raises BadHeader with this code."""
    text = value_of(request, name)
    try:
        return None if text is None else parse_integer(text)
    except ValueError as exc:
        raise BadHeader(f"{name} {exc}", code=code) from None


def metadata_of(request: Request) -> str:
    """Return Upload-Metadata as received, once it is known to be right. Raises BadHeader."""
    metadata = value_of(request, "upload-metadata") or ""
    try:
        if len(metadata) > MAX_METADATA:
            raise ValueError(f"is {len(metadata)} bytes long, at most {MAX_METADATA} are taken")
        parse_metadata(metadata)
    except ValueError as exc:
        raise BadHeader(f"Upload-Metadata {exc}", code="ERR_INVALID_METADATA") from None
    return metadata


def concat_of(request: Request) -> tuple[str, tuple[str, ...]]:
    """Return Upload-Concat as received and the ids that it names. Raises BadHeader."""
    concat = value_of(request, "upload-concat")
    try:
        return ("", ()) if concat is None else (concat, parse_concat(concat))
    except ValueError as exc:
        raise BadHeader(f"Upload-Concat {exc}", code="ERR_INVALID_CONCAT") from None


def checksum_of(request: Request) -> Checksum | None:
    """Return what the digest of the body must be, None when the client does not say. Raises BadHeader.

    "`400 Bad Request` if the checksum algorithm is not supported by the server" (Checksum)
    """
    text = value_of(request, "upload-checksum")
    try:
        return None if text is None else Checksum(*parse_checksum(text))
    except ValueError as exc:
        raise BadHeader(f"Upload-Checksum {exc}", code="ERR_INVALID_CHECKSUM") from None


def body_length_of(request: Request) -> int | None:
    """Return how many bytes the body has; None when that is known at its end (chunked, or HTTP/2 without a length)."""
    if "transfer-encoding" in request.headers or request.is_streamed:
        return None
    return integer_of(request, "content-length", "ERR_INVALID_CONTENT_LENGTH") or 0


def check_content_type(request: Request) -> None:
    """Raise WrongContentType unless the body is announced as bytes of an upload."""
    content_type = value_of(request, "content-type")
    if content_type is None or content_type.partition(";")[0].strip().lower() != OFFSET_OCTET_STREAM:
        said = "missing" if content_type is None else repr(content_type[:80])
        raise WrongContentType(f"Content-Type is {said}, it must be {OFFSET_OCTET_STREAM}")


def described(limits: Limits) -> Reply:
    """Return the reply to OPTIONS.

    "A successful response [...] MUST contain the `Tus-Version` header. It MAY include the `Tus-Extension` and
    `Tus-Max-Size` headers." (Core, OPTIONS)
    """
    headers: Headers = (("Tus-Resumable", VERSION), ("Tus-Version", VERSION))
    # "If no extensions are supported, the `Tus-Extension` header MUST be omitted." (Core, Tus-Extension)
    if limits.extensions:
        headers += (("Tus-Extension", ",".join(limits.extensions)),)
    if "checksum" in limits.extensions:
        # "The `Tus-Checksum-Algorithm` header MUST be included in the response to an `OPTIONS` request." (Checksum)
        headers += (("Tus-Checksum-Algorithm", ",".join(CHECKSUM_ALGORITHMS)),)
    # "The Server SHOULD set this header if there is a known hard limit." (Core, Tus-Max-Size)
    if limits.max_size:
        headers += (("Tus-Max-Size", str(limits.max_size)),)
    return Reply(204, headers)


def created(upload: Upload, request: Request) -> Reply:
    """Return the reply to a POST that made this upload."""
    # "The Server MUST acknowledge a successful upload creation with the `201 Created` status." (Creation, POST)
    # "The Server MUST set the `Location` header to the URL of the created resource." (Creation, POST)
    headers: Headers = (("Tus-Resumable", VERSION), ("Location", request.creation_url + upload.id))
    # "The Server SHOULD accept as many bytes as possible and MUST include the `Upload-Offset` header in the response"
    # (Creation With Upload); harmless without a body.
    headers += (("Upload-Offset", str(upload.offset)),)
    return Reply(201, headers + expires(upload))


def appended(upload: Upload, append: Append, *, is_whole: bool) -> Reply:
    """Return the reply to a PATCH that left the upload like this.

    The body of a PATCH that had to yield is not whole. tus-js-client and tuspy go on from the offset of a 204.
    tus-java-client, which always sends chunked, gives up at a 204 with less than it sent, and comes back after a 503.
    A body with Upload-Checksum counts whole or not at all: its 503 does not say that something was stored.
    Raises UploadInterrupted.
    """
    if not is_whole and not upload.is_complete and (append.body_length is None or append.checksum):
        raise interrupted(upload)
    # "The Server MUST acknowledge successful `PATCH` requests with the `204 No Content` status. It MUST include the
    # `Upload-Offset` header containing the new offset." (Core, PATCH)
    return Reply(204, (("Tus-Resumable", VERSION), ("Upload-Offset", str(upload.offset)), *expires(upload)))


def inspected(upload: Upload) -> Reply:
    """Return the reply to a HEAD."""
    headers: Headers = (
        ("Tus-Resumable", VERSION),
        # "The Server MUST prevent the client and/or proxies from caching the response by adding the `Cache-Control:
        # no-store` header to the response." (Core, HEAD)
        ("Cache-Control", "no-store"),
        # "The Server MUST always include the `Upload-Offset` header in the response for a `HEAD` request" (Core, HEAD)
        # "After successful concatenation, the `Upload-Offset` and `Upload-Length` MUST be set and their values MUST be
        # equal." (Concatenation): a final upload is there when it is whole, not before.
        ("Upload-Offset", str(upload.offset)),
    )
    if upload.length is not None:
        # "If the size of the upload is known, the Server MUST include the `Upload-Length` header" (Core, HEAD)
        headers += (("Upload-Length", str(upload.length)),)
    else:
        # "As long as the length of the upload is not known, the Server MUST set `Upload-Defer-Length: 1` in all
        # responses to `HEAD` requests." (Creation, POST)
        headers += (("Upload-Defer-Length", "1"),)
    if upload.concat:
        # "Response to `HEAD` request against partial or final upload MUST include the `Upload-Concat` header and its
        # value as received in the upload creation request." (Concatenation)
        headers += (("Upload-Concat", upload.concat),)
    if upload.metadata:
        # "responses to `HEAD` requests MUST include the `Upload-Metadata` header and its value as specified by the
        # Client during the creation." (Creation, POST)
        headers += (("Upload-Metadata", upload.metadata),)
    # "The Server SHOULD acknowledge successful `HEAD` requests with a `200 OK` or `204 No Content` status." (Core)
    return Reply(200, headers + expires(upload))


def terminated() -> Reply:
    """Return the reply to a DELETE: "MUST respond with the `204 No Content` status" (Termination, DELETE)."""
    return Reply(204, (("Tus-Resumable", VERSION),))


def refused(refusal: Refusal, method: str) -> Reply:
    """Return the reply that tells a refusal: problem details (RFC 9457) with a stable code.

    "If the resource is not found, the Server SHOULD return either the `404 Not Found`, `410 Gone` or `403 Forbidden`
    status without the `Upload-Offset` header." (Core, HEAD)
    """
    problem = {
        "type": "about:blank",
        "title": refusal.title,
        "status": refusal.status,
        "code": refusal.code,
        "detail": refusal.detail,
        "action": refusal.action,
    }
    status = refusal.status
    if method == "HEAD" and status >= 500 and refusal.action == "retry":
        # 423, not 503: tus-js-client forgets the upload and starts over on any other answer to HEAD.
        status = UploadLocked.status
    headers: Headers = (
        ("Tus-Resumable", VERSION),
        ("Content-Type", "application/problem+json"),
        ("Cache-Control", "no-store"),
        *refusal.headers,
    )
    if refusal.action == "retry" or refusal.status == Unavailable.status:
        headers += (("Retry-After", "1"),)  # seconds; a lease or a Redis failover is settled in a few
    return Reply(status, headers, b"" if method == "HEAD" else json.dumps(problem).encode())


def expires(upload: Upload) -> Headers:
    """Return Upload-Expires for an unfinished upload that will expire.

    "The value of the `Upload-Expires` header MUST be in RFC 9110 datetime format." (Expiration, Upload-Expires)

    "This header MUST be included in every `PATCH` response if the upload is going to expire. If the expiration is
    known at the creation, the `Upload-Expires` header MUST be included in the response to the initial `POST` request."
    (Expiration, Upload-Expires)
    """
    return () if upload.expiry is None else (("Upload-Expires", build_http_date(upload.expiry)),)
