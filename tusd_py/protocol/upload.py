"""One upload, and all that may happen to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .messages import Append, Limits
from .refusals import BadHeader, ModifyFinal, NotFinished, OffsetMismatch, TooLarge, UploadGone


@dataclass(frozen=True, slots=True)
class Upload:
    """What the ledger keeps of an upload. Every change is a new value."""

    id: str
    length: int | None  # bytes; None while it is deferred
    offset: int  # bytes; below it every byte is safe
    metadata: str  # Upload-Metadata exactly as received
    created_at: float  # Unix seconds
    expires_at: float | None = None  # Unix seconds; None: never
    concat: str = ""  # Upload-Concat exactly as received

    @property
    def is_complete(self) -> bool:
        """Whether every byte is there."""
        return self.offset == self.length

    @property
    def is_partial(self) -> bool:
        """Whether it will be a part of a final upload, and is of no interest alone."""
        return self.concat == "partial"

    @property
    def is_final(self) -> bool:
        """Whether it was made by concatenation."""
        return self.concat.startswith("final")

    @property
    def expiry(self) -> float | None:
        """When it goes, in Unix seconds; None: never. What is complete stays; a part of something is not complete."""
        return None if self.is_complete and not self.is_partial else self.expires_at

    def has_expired(self, now: float) -> bool:
        """Return whether the upload may no longer be resumed at now, in Unix seconds."""
        return self.expiry is not None and self.expiry <= now

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
        # "The Server MUST respond with the `403 Forbidden` status to `PATCH` requests against a final upload URL and
        # MUST NOT modify the final or its partial uploads." (Concatenation)
        if self.is_final:
            raise ModifyFinal(f"The upload {self.id} is a concatenation; nothing can be added to it")
        # "The `Upload-Offset` header's value MUST be equal to the current offset of the resource." (Core, PATCH)
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
            f"The upload would have {length} bytes, this server takes at most {limits.max_size}",
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


def length_of_parts(parts: Sequence[Upload], limits: Limits) -> int:
    """Return the length of the final upload that these make, in bytes. Raises BadHeader, NotFinished, TooLarge.

    "The length of the final upload MUST be the sum of the length of all partial uploads." (Concatenation)
    """
    for part in parts:
        if not part.is_partial:
            raise BadHeader(f"Upload-Concat names {part.id}, which is no partial upload", code="ERR_INVALID_CONCAT")
        # 409, not 400 as in tusd: tus-js-client tries the first again, and a part may be about to finish.
        if not part.is_complete:
            raise NotFinished(f"The part {part.id} is at {part.offset} of {part.length} bytes; finish it first")
    length = sum(part.offset for part in parts)
    check_size(length, limits)
    return length
