"""Every way to say no.

    Refusal
    ├── BadHeader              400  a header value that the text does not allow
    ├── BadRequest             400  not a valid HTTP/1.1 request; the connection is closed
    ├── BodyLost               400  the ASGI server stopped reading at an Upgrade header
    ├── ModifyFinal            403  a concatenated upload takes no bytes
    ├── UploadNotFound         404
    ├── MethodNotAllowed       405  with Allow
    ├── OffsetMismatch         409  with the true Upload-Offset
    ├── NotFinished            409  the bytes are asked for, or concatenated, before all are there
    ├── UploadGone             410  terminated or expired: begin again
    ├── UnsupportedVersion     412  with Tus-Version
    ├── TooLarge               413  beyond the server's maximum or the upload's length
    ├── WrongContentType       415
    ├── UploadLocked           423  somebody else holds it; try again
    ├── TrailersTooLarge       431  what follows a chunked body is read, but not kept
    ├── ChecksumMismatch       460  the chunk was discarded; send it again
    ├── Internal               500  a fault of ours; the log tells
    ├── UnknownCoding          501  a transfer coding other than chunked
    ├── Unavailable            503  the ledger is away; try again
    │   ├── LedgerUnrecovered  503  it lost its records; they are made again from the volume
    │   └── VolumeAway         503  the upload folder is away, or another one is in its place
    ├── UploadInterrupted      503  the body had to yield before its end; with Upload-Offset, to go on from
    └── StorageFull            507  no room for the bytes; try again

The rule that refuses raises one; app.py answers it, once. Codes are stable, and tusd's where tusd has one.
"""

from typing import ClassVar

Headers = tuple[tuple[str, str], ...]


class Refusal(Exception):
    """A request is answered with an error. The text is a sentence for the caller, with both values in it."""

    status: ClassVar[int]
    title: ClassVar[str]
    code: str
    action: ClassVar[str] = "fix"  # what the client should do next: fix, resume, retry, restart

    def __init__(self, detail: str, *, code: str | None = None, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers
        if code is not None:
            self.code = code


class BadHeader(Refusal):
    status = 400
    title = "Bad Request"
    code = "ERR_INVALID_HEADER"


class BadRequest(Refusal):
    status = 400
    title = "Bad Request"
    code = "ERR_INVALID_REQUEST"


class BodyLost(Refusal):
    status = 400
    title = "Body Lost"
    code = "ERR_BODY_LOST"


class ModifyFinal(Refusal):
    status = 403
    title = "Final Upload"
    code = "ERR_MODIFY_FINAL"


class UploadNotFound(Refusal):
    status = 404
    title = "Upload Not Found"
    code = "ERR_UPLOAD_NOT_FOUND"
    action = "restart"


class MethodNotAllowed(Refusal):
    status = 405
    title = "Method Not Allowed"
    code = "ERR_METHOD_NOT_ALLOWED"


class OffsetMismatch(Refusal):
    status = 409
    title = "Offset Mismatch"
    code = "ERR_MISMATCHED_OFFSET"
    action = "resume"


class NotFinished(Refusal):
    status = 409
    title = "Upload Not Finished"
    code = "ERR_UPLOAD_NOT_FINISHED"
    action = "resume"


class UploadGone(Refusal):
    status = 410
    title = "Upload Gone"
    code = "ERR_UPLOAD_GONE"
    action = "restart"


class UnsupportedVersion(Refusal):
    status = 412
    title = "Unsupported Version"
    code = "ERR_UNSUPPORTED_VERSION"


class TooLarge(Refusal):
    status = 413
    title = "Too Large"
    code = "ERR_UPLOAD_SIZE_EXCEEDED"


class WrongContentType(Refusal):
    # "otherwise the server SHOULD return a `415 Unsupported Media Type` status" (Core, PATCH); tusd's 400 is older.
    status = 415
    title = "Unsupported Media Type"
    code = "ERR_INVALID_CONTENT_TYPE"


class UploadLocked(Refusal):
    status = 423
    title = "Upload Locked"
    code = "ERR_UPLOAD_LOCKED"
    action = "retry"


class TrailersTooLarge(Refusal):
    status = 431
    title = "Request Header Fields Too Large"
    code = "ERR_TRAILERS_TOO_LARGE"


class ChecksumMismatch(Refusal):
    status = 460  # the number is the protocol's own (Checksum)
    title = "Checksum Mismatch"
    code = "ERR_CHECKSUM_MISMATCH"
    action = "resume"


class Internal(Refusal):
    status = 500
    title = "Internal Server Error"
    code = "ERR_INTERNAL_SERVER_ERROR"
    action = "retry"


class UnknownCoding(Refusal):
    status = 501
    title = "Not Implemented"
    code = "ERR_UNKNOWN_TRANSFER_CODING"


class Unavailable(Refusal):
    status = 503
    title = "Service Unavailable"
    code = "ERR_LEDGER_UNAVAILABLE"
    action = "retry"


class LedgerUnrecovered(Unavailable):
    # Not 404: the client would throw its progress away, and the bytes are on the volume.
    code = "ERR_LEDGER_UNRECOVERED"

    def __init__(self) -> None:
        super().__init__(
            "The upload ledger lost its records; what was uploaded is safe, and known again once the operator has run"
            " `tusd-py recover`; try again later"
        )


class VolumeAway(Unavailable):
    # Not 404: the client would throw its progress away, and the bytes are on the volume.
    code = "ERR_VOLUME_UNAVAILABLE"

    def __init__(
        self, detail: str = "The upload folder is not there, or it is not the one that this server started with"
    ) -> None:
        super().__init__(f"{detail}; nothing was lost, try again later")


class UploadInterrupted(Refusal):
    status = 503  # not tusd's 400: clients do not come back after that
    title = "Upload Interrupted"
    code = "ERR_UPLOAD_INTERRUPTED"
    action = "resume"


class StorageFull(Refusal):
    status = 507
    title = "Insufficient Storage"
    code = "ERR_STORAGE_FULL"
    action = "retry"
