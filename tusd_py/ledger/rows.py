"""The rows of the SQLite ledger as values of ours, and the small steps that its transactions are made of."""

import json
import sqlite3
import time
from typing import Any

from ..ports import OUTBOX, Delivery, Event, LeaseLost, Signal
from ..protocol.refusals import UploadGone, UploadNotFound
from ..protocol.upload import Upload

UPLOAD_COLUMNS = 'id, length, "offset", metadata, created_at, expires_at, concat'
EVENT_COLUMNS = "id, kind, upload_id, body, created_at"
KEEP_SIGNALS_S = 60.0  # every process has heard them by then


def row_of(upload: Upload) -> tuple[Any, ...]:
    """Return the values of UPLOAD_COLUMNS."""
    times = (upload.created_at, upload.expiry)
    return (upload.id, upload.length, upload.offset, upload.metadata, *times, upload.concat)


def upload_of(row: sqlite3.Row) -> Upload:
    """Return the upload that UPLOAD_COLUMNS hold."""
    times = (row["created_at"], row["expires_at"])
    return Upload(row["id"], row["length"], row["offset"], row["metadata"], *times, row["concat"])


def delivery_of(row: sqlite3.Row) -> Delivery:
    """Return the claimed event."""
    event = Event(row["id"], row["kind"], row["upload_id"], row["body"], row["created_at"])
    return Delivery(event, row["attempt"], frozenset(json.loads(row["told"])))


def find(db: sqlite3.Connection, upload_id: str) -> sqlite3.Row:
    """Return the row of a living upload. Raises UploadNotFound or UploadGone."""
    row: sqlite3.Row | None = db.execute("SELECT * FROM uploads WHERE id = ?", (upload_id,)).fetchone()
    if row is None:
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


def born(db: sqlite3.Connection, event: Event) -> None:
    """Put an event into the outbox, once however often it is told."""
    db.execute(
        f"INSERT OR IGNORE INTO events ({EVENT_COLUMNS}, due_at) VALUES (?, ?, ?, ?, ?, 0)",
        (event.id, event.kind, event.upload_id, event.body, event.created_at),
    )
    tell(db, OUTBOX, Signal.EVENT)


def tell(db: sqlite3.Connection, upload_id: str, signal: Signal) -> None:
    """Leave a signal for all processes, this one included."""
    now = time.monotonic()
    db.execute("DELETE FROM signals WHERE told_at < ? OR told_at > ?", (now - KEEP_SIGNALS_S, now))
    db.execute("INSERT INTO signals (upload_id, signal, told_at) VALUES (?, ?, ?)", (upload_id, signal, now))
