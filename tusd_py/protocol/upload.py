"""One upload, and all that may happen to it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from .messages import Append, Limits
from .refusals import BadHeader, ModifyFinal, NotFinished, OffsetMismatch, TooLarge, UploadGone, UploadInterrupted


class State(StrEnum):
    """Where an upload is in its life. The last two are those of a tombstone."""

    ACTIVE = "active"
    COMPLETED = "completed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Verdict(StrEnum):
    """What became of the question whether an upload may finish."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    PENDING = "pending"  # not answered yet; the upload is not finished, though every byte may be there


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the finish of an upload ended."""

    verdict: Verdict
    status: int = 0  # of a refusal, as the client gets it
    reason: str = ""  # of a refusal, a sentence for the client


ACCEPTED = Outcome(verdict=Verdict.ACCEPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What the ledger keeps of an upload. Every change is a new value."""

    id: str
    length: int | None  # bytes; None while it is deferred
    offset: int  # bytes; below it every byte is safe
    metadata: str  # Upload-Metadata exactly as received
    created_at: float  # Unix seconds
    expires_at: float | None = None  # Unix seconds; None: never
    concat: str = ""  # Upload-Concat exactly as received
    owner: str = ""  # who may use it; "" is nobody in particular
    completed_at: float | None = None  # Unix seconds; when the finish was accepted
    outcome: Outcome | None = None  # of the finish; None before the last byte
    extra: Mapping[str, Any] = field(
        default_factory=dict
    )  # a JSON object for what a storage, dialect or hook remembers

    @property
    def is_complete(self) -> bool:
        """Whether every byte is there. That does not make it finished: see state."""
        return self.offset == self.length

    @property
    def state(self) -> State:
        """Where the upload is in its life, as far as a record that was not removed can be."""
        if self.outcome is None or self.outcome.verdict is Verdict.PENDING:
            return State.ACTIVE
        return State.COMPLETED if self.outcome.verdict is Verdict.ACCEPTED else State.REFUSED

    @property
    def is_finished(self) -> bool:
        """Whether the upload has all its bytes and its finish was accepted."""
        return self.state is State.COMPLETED

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
        """When it goes, in Unix seconds; None: never. What is finished stays; a part of something does not."""
        return None if self.is_finished and not self.is_partial else self.expires_at

    def has_expired(self, now: float) -> bool:
        """Return whether the upload may no longer be resumed at now, in Unix seconds."""
        return self.expiry is not None and self.expiry <= now

    def at(self, offset: int, *, expires_at: float | None) -> "Upload":
        """Return the upload with its bytes safe up to offset."""
        return replace(self, offset=offset, expires_at=expires_at)

    def finished(self, now: float) -> "Upload":
        """Return the upload as accepted at now (Unix seconds) if every byte is there; as it is before that, and after.

        "Finished" is recorded, not concluded from the offset: an application may have refused it.
        """
        if not self.is_complete or self.outcome is not None:
            return self
        return replace(self, outcome=ACCEPTED, completed_at=now)

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


def offset_mismatch(claimed: int, offset: int) -> OffsetMismatch:
    """Return the refusal of a PATCH at another offset than the upload's; it carries the true one."""
    return OffsetMismatch(
        f"Upload-Offset is {claimed}, the upload is at {offset}", headers=(("Upload-Offset", str(offset)),)
    )


def interrupted(upload: Upload) -> UploadInterrupted:
    """Return the refusal of a body that had to yield before its end; it carries the offset to go on from."""
    return UploadInterrupted(
        f"The body had to yield to another request or to a restart; the upload is at {upload.offset}, go on from there",
        headers=(("Upload-Offset", str(upload.offset)),),
    )


def too_long(upload: Upload, room: int, body_length: int | None) -> TooLarge:
    """Return the refusal of a body that is longer than the room that is left, both in bytes."""
    body = "more" if body_length is None else str(body_length)
    return TooLarge(f"The body brings {body} bytes, the upload at {upload.offset} has room for {room}")


def final_id(parts: Sequence[str], metadata: str, attempt: int) -> str:
    """Return the id of the final upload that these parts (ids, in order) make: 128 bits that follow from them.

    A client whose answer was lost asks again, and a try that a crash ended is taken up: both find what is there, and
    no second copy is made. Only those who know the parts' ids can guess it. attempt counts the finals of the same parts
    that were removed since.
    """
    seed = "\n".join(("final", str(attempt), metadata, *parts))
    return hashlib.sha256(seed.encode()).hexdigest()[:32]


def length_of_parts(parts: Sequence[Upload], limits: Limits) -> int:
    """Return the length of the final upload that these make, in bytes. Raises BadHeader, NotFinished, TooLarge.

    "The length of the final upload MUST be the sum of the length of all partial uploads." (Concatenation)
    """
    for part in parts:
        if not part.is_partial:
            raise BadHeader(f"Upload-Concat names {part.id}, which is no partial upload", code="ERR_INVALID_CONCAT")
        # 409, not 400 as in tusd: tus-js-client tries the first again, and a part may be about to finish.
        if not part.is_finished:
            raise NotFinished(f"The part {part.id} is at {part.offset} of {part.length} bytes; finish it first")
    length = sum(part.offset for part in parts)
    check_size(length, limits)
    return length
