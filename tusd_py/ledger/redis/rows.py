"""What goes into the Lua scripts and comes out of them, as values of ours. Everything goes by name."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ...ports import Delivery, Event, LeaseLost, Tombstone
from ...protocol.refusals import LedgerUnrecovered, UploadGone, UploadNotFound
from ...protocol.upload import Upload
from ..values import build_object, build_outcome, parse_object, parse_outcome, settled_before


class Codec(NamedTuple):
    """How the values of a field become text, and text values."""

    build: Callable[[Any], str]
    parse: Callable[[str], Any]


TEXT = Codec(str, str)
NUMBER = Codec(lambda number: "" if number is None else str(number), lambda text: int(text) if text else None)
MOMENT = Codec(lambda at: "" if at is None else repr(at), lambda text: float(text) if text else None)

# Every field of an Upload but its id, which is in the key. A record lacks those that are younger than it.
FIELDS = {
    "length": NUMBER,
    "offset": NUMBER,
    "metadata": TEXT,
    "concat": TEXT,
    "owner": TEXT,
    "created_at": MOMENT,
    "expires_at": MOMENT,
    "completed_at": MOMENT,
    "outcome": Codec(build_outcome, parse_outcome),
    "extra": Codec(build_object, parse_object),
}
CONSTANT = frozenset({"metadata", "concat", "owner", "created_at"})  # from the creation on
CHANGING = [name for name in FIELDS if name not in CONSTANT]


def words_of(upload: Upload, names: Iterable[str] = FIELDS) -> list[str]:
    """Return names and values of an upload's fields, as HSET takes them."""
    words = []
    for name in names:
        value = upload.expiry if name == "expires_at" else getattr(upload, name)
        words += [name, FIELDS[name].build(value)]
    return words


def upload_of(upload_id: str, words: list[str]) -> Upload:
    """Return the upload that HGETALL of its record gave."""
    found = pairs(words)
    values = {name: codec.parse(found[name]) for name, codec in FIELDS.items() if name in found}
    return Upload(id=upload_id, **settled_before(values))


def event_words(event: Event | None) -> list[str | int]:
    """Return an event as create.lua and commit.lua take it: its id, how many values follow, and these."""
    if event is None:
        return ["", 0]
    words = [
        *("id", event.id, "kind", event.kind, "upload_id", event.upload_id),
        *("body", event.body, "created_at", repr(event.created_at)),
    ]
    return [event.id, len(words), *words]


def delivery_of(attempt: int, confirmed_by: str, words: list[str]) -> Delivery:
    """Return the event that claim.lua claimed."""
    found = pairs(words)
    event = Event(
        id=found["id"],
        kind=found["kind"],
        upload_id=found["upload_id"],
        body=found["body"],
        created_at=float(found["created_at"]),
    )
    return Delivery(event=event, attempt=attempt, confirmed_by=frozenset(json.loads(confirmed_by)))


def tombstone_words(tombstone: Tombstone) -> list[str]:
    """Return names and values of a tombstone; 'gone' is what servers of version 1 look at."""
    return [
        *("gone", tombstone.reason, "state", tombstone.state.value),
        *("removed_at", repr(tombstone.removed_at), "expires_at", ""),
    ]


def pairs(words: list[str]) -> Mapping[str, str]:
    """Return a flat list of names and values as a mapping."""
    return dict(zip(words[::2], words[1::2], strict=True))


def found(answer: list[Any], upload_id: str) -> list[Any]:
    """Return what an answer says of a living upload. Raises UploadNotFound, UploadGone or LedgerUnrecovered."""
    status = answer[0]
    if status == "none":
        raise UploadNotFound(f"There is no upload {upload_id}; start a new upload")
    if status == "unrecovered":
        raise LedgerUnrecovered
    if status == "gone":
        raise UploadGone(f"The upload {upload_id} was {answer[2]}; start a new upload")
    return answer[2:]


def kept(answer: list[Any], upload_id: str) -> None:
    """Return if the lease is ours. Raises LeaseLost."""
    if answer[0] == "lost":
        raise LeaseLost(f"the lease on {upload_id} went to somebody else")
