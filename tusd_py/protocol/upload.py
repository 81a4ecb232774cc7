"""One upload, and all that may happen to it."""

from dataclasses import dataclass, replace

from .messages import Append, Limits
from .refusals import BadHeader, OffsetMismatch, TooLarge, UploadGone


@dataclass(frozen=True, slots=True)
class Upload:
    """What the ledger keeps of an upload. Every change is a new value."""

    id: str
    length: int | None  # bytes; None while it is deferred
    offset: int  # bytes; below it every byte is safe
    metadata: str  # Upload-Metadata exactly as received
    created_at: float  # Unix seconds
    expires_at: float | None = None  # Unix seconds; None: never

    @property
    def is_complete(self) -> bool:
        """Whether every byte is there."""
        return self.offset == self.length

    def has_expired(self, now: float) -> bool:
        """Return whether the upload may no longer be resumed at now, in Unix seconds. A complete one never expires."""
        return self.expires_at is not None and self.expires_at <= now and not self.is_complete

    def at(self, offset: int, *, expires_at: float | None) -> "Upload":
        """Return the upload with its bytes safe up to offset."""
        return replace(self, offset=offset, expires_at=expires_at)

    def with_length(self, length: int | None, limits: Limits) -> "Upload":
        """Return the upload with its deferred length declared; None declares nothing.

        Raises BadHeader when it is set already or below the offset, TooLarge when it is over the server's maximum.
        """
        if length is None or length == self.length:
            return self
        # "Once set the length MUST NOT be changed." (Creation, POST)
        if self.length is not None:
            raise BadHeader(
                f"Upload-Length is {length}, the length of the upload was set to {self.length}",
                code="ERR_INVALID_UPLOAD_LENGTH",
            )
        if length < self.offset:
            raise BadHeader(
                f"Upload-Length is {length}, the upload is already at {self.offset}", code="ERR_INVALID_UPLOAD_LENGTH"
            )
        check_size(length, limits)
        return replace(self, length=length)

    def admit(self, append: Append, now: float, limits: Limits) -> "tuple[Upload, int | None]":
        """Return the upload with the length it has now, and how many bytes the body may bring (None: no limit).

        now is in Unix seconds. Raises UploadGone, OffsetMismatch, BadHeader or TooLarge, and nothing was changed.
        """
        if self.has_expired(now):
            # "If a Client does attempt to resume an upload which has since been removed by the Server, the Server
            # SHOULD respond with the `404 Not Found` or `410 Gone` status." (Expiration, Upload-Expires)
            raise UploadGone(f"The upload {self.id} has expired; start a new upload")
        # "If the offsets do not match, the Server MUST respond with the `409 Conflict` status without modifying the
        # upload resource." (Core, PATCH)
        if append.offset != self.offset:
            raise offset_mismatch(append.offset, self.offset)
        upload = self.with_length(append.length, limits)
        end = upload.length if upload.length is not None else limits.max_size or None
        room = None if end is None else end - upload.offset
        if room is not None and append.body_length is not None and append.body_length > room:
            raise too_long(upload, room, append.body_length)
        return upload, room


def check_size(length: int | None, limits: Limits) -> None:
    """Raise TooLarge when an upload of length bytes is more than the server takes.

    "If the length of the upload exceeds the maximum, which MAY be specified using the `Tus-Max-Size` header, the
    Server MUST respond with the `413 Request Entity Too Large` status." (Creation, POST)
    """
    if limits.max_size and length is not None and length > limits.max_size:
        raise TooLarge(
            f"Upload-Length is {length}, this server takes at most {limits.max_size} bytes",
            code="ERR_MAX_SIZE_EXCEEDED",
        )


def offset_mismatch(told: int, offset: int) -> OffsetMismatch:
    """Return the refusal of a PATCH at another offset than the upload's; it carries the true one."""
    return OffsetMismatch(
        f"Upload-Offset is {told}, the upload is at {offset}", headers=(("Upload-Offset", str(offset)),)
    )


def too_long(upload: Upload, room: int, body_length: int | None) -> TooLarge:
    """Return the refusal of a body that is longer than the room that is left, both in bytes."""
    body = "more" if body_length is None else str(body_length)
    return TooLarge(f"The body brings {body} bytes, the upload at {upload.offset} has room for {room}")
