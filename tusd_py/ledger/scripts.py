"""The Lua scripts of the Redis ledger, and what goes into them and comes out of them as values of ours."""

import hashlib
import json
from importlib.resources import files
from typing import Any

from ..ports import Delivery, Event, LeaseLost
from ..protocol.refusals import UploadGone, UploadNotFound
from ..protocol.upload import Upload


def scripts() -> dict[str, tuple[str, str]]:
    """Return the scripts by name: text and SHA-1."""
    folder = files(__package__).joinpath("lua")
    prelude = folder.joinpath("prelude.lua").read_text()
    found = {}
    for file in folder.iterdir():
        text = prelude + file.read_text()
        found[file.name.removesuffix(".lua")] = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return found


def text_of(number: int | None) -> str:
    return "" if number is None else str(number)


def number_of(text: str) -> int | None:
    return int(text) if text else None


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def expiry_of(upload: Upload) -> str:
    """Return when the upload expires, in Unix seconds; '' for never."""
    return "" if upload.expiry is None else repr(upload.expiry)


def texts_of(event: Event | None) -> list[str]:
    """Return an event as create.lua and commit.lua take it."""
    return ["", "", "", ""] if event is None else [event.id, event.kind, event.body, repr(event.created_at)]


def upload_of(upload_id: str, fields: list[str]) -> Upload:
    """Return the upload that fields() of prelude.lua tells."""
    length, offset, metadata, created_at, expires_at, concat = fields[:6]
    expires = float(expires_at) if expires_at else None
    return Upload(upload_id, number_of(length), int(offset), metadata, float(created_at), expires, concat)


def delivery_of(attempt: int, told: str, entry: list[str]) -> Delivery:
    """Return the claimed event that claim.lua tells."""
    fields = dict(zip(entry[::2], entry[1::2], strict=True))
    created_at = float(fields["created_at"])
    event = Event(fields["id"], fields["kind"], fields["upload_id"], fields["body"], created_at)
    return Delivery(event, attempt, frozenset(json.loads(told)))


def found(answer: list[Any], upload_id: str) -> list[str]:
    """Return the fields of a living upload. Raises UploadNotFound or UploadGone."""
    if answer[0] == "none":
        raise UploadNotFound(f"There is no upload {upload_id}; start a new upload")
    if answer[0] == "gone":
        raise UploadGone(f"The upload {upload_id} was {answer[1]}; start a new upload")
    fields: list[str] = answer[1]
    return fields


def kept(answer: list[Any], upload_id: str) -> str:
    """Return what a step under the lease tells. Raises LeaseLost."""
    if answer[0] == "lost":
        raise LeaseLost(f"the lease on {upload_id} went to somebody else")
    return answer[1] if len(answer) > 1 else ""
