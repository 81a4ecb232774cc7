"""The rows of the SQLite ledger as values of ours, and the small steps that its transactions are made of."""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...ports import OUTBOX, Delivery, Event, LeaseLost, Signal
from ...protocol.refusals import LedgerUnrecovered, UploadGone, UploadNotFound
from ...protocol.upload import Upload
from ..values import build_object, build_outcome, parse_object, parse_outcome, settled_before

KEEP_SIGNALS_S = 60.0  # every process has heard them by then


class Codec(NamedTuple):
    """How the values of a field go into a column, and come out of it."""

    build: Callable[[Any], Any]
    parse: Callable[[Any], Any]


def same(value: Any) -> Any:
    return value


# Every field of an Upload, by the name of its column.
FIELDS = {
    "id": Codec(same, same),
    "length": Codec(same, same),
    "offset": Codec(same, same),
    "metadata": Codec(same, same),
    "concat": Codec(same, same),
    "owner": Codec(same, same),
    "created_at": Codec(same, same),
    "expires_at": Codec(same, same),
    "completed_at": Codec(same, same),
    "outcome": Codec(build_outcome, parse_outcome),
    "extra": Codec(build_object, parse_object),
}
CONSTANT = frozenset({"id", "metadata", "concat", "owner", "created_at"})  # from the creation on


def row_of(upload: Upload) -> dict[str, Any]:
    """Return the columns of an upload by name."""
    values = {name: codec.build(getattr(upload, name)) for name, codec in FIELDS.items()}
    return values | {"expires_at": upload.expiry}


def upload_of(row: sqlite3.Row) -> Upload:
    """Return the upload in a row."""
    return Upload(**settled_before({name: codec.parse(row[name]) for name, codec in FIELDS.items()}))


def delivery_of(row: sqlite3.Row) -> Delivery:
    """Return the claimed event in a row."""
    event = Event(
        id=row["id"], kind=row["kind"], upload_id=row["upload_id"], body=row["body"], created_at=row["created_at"]
    )
    return Delivery(event=event, attempt=row["attempt"], confirmed_by=frozenset(json.loads(row["told"])))


def find(db: sqlite3.Connection, upload_id: str) -> sqlite3.Row:
    """Return the row of a living upload. Raises UploadNotFound, UploadGone or LedgerUnrecovered."""
    row: sqlite3.Row | None = db.execute("SELECT * FROM uploads WHERE id = ?", (upload_id,)).fetchone()
    if row is None:
        if db.execute("SELECT 1 FROM identity WHERE lost = 1").fetchone():
            raise LedgerUnrecovered
        raise UploadNotFound(f"There is no upload {upload_id}; start a new upload")
    if row["gone"]:
        raise UploadGone(f"The upload {upload_id} was {row['gone']}; start a new upload")
    return row


def find_held(db: sqlite3.Connection, upload_id: str, token: str) -> sqlite3.Row:
    """Return the row of an upload that is held under this token. Raises LeaseLost.

    A lease that ran out but that nobody took is still ours: no one else has changed anything.
    """
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM uploads WHERE id = ? AND token = ? AND gone IS NULL", (upload_id, token)
    ).fetchone()
    if row is None:
        raise LeaseLost(f"the lease on {upload_id} went to somebody else")
    return row


def is_held(row: sqlite3.Row, now: float) -> bool:
    """Return whether somebody has a lease at now, in monotonic seconds."""
    return bool(row["token"]) and 0 < row["lease_until"] - now <= row["lease_ttl_s"]


def insert(db: sqlite3.Connection, table: str, values: Mapping[str, Any]) -> bool:
    """Add a row unless its key is there already; return whether it was added."""
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join(f":{name}" for name in values)
    return db.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", values).rowcount == 1


def update(db: sqlite3.Connection, upload_id: str, values: Mapping[str, Any]) -> None:
    """Set columns of an upload."""
    columns = ", ".join(f'"{name}" = :{name}' for name in values)
    db.execute(f"UPDATE uploads SET {columns} WHERE id = :upload_id", {**values, "upload_id": upload_id})


def born(db: sqlite3.Connection, event: Event) -> None:
    """Put an event into the outbox, once however often it is asked for."""
    row = {name: getattr(event, name) for name in ("id", "kind", "upload_id", "body", "created_at")}
    insert(db, "events", row | {"due_at": 0})
    signal(db, OUTBOX, Signal.EVENT)


def signal(db: sqlite3.Connection, upload_id: str, what: Signal) -> None:
    """Leave a signal for all processes, this one included."""
    now = time.monotonic()
    db.execute("DELETE FROM signals WHERE told_at < ? OR told_at > ?", (now - KEEP_SIGNALS_S, now))
    db.execute("INSERT INTO signals (upload_id, signal, told_at) VALUES (?, ?, ?)", (upload_id, what, now))
