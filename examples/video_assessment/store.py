"""Jobs and results, in SQLite. Every method is one transaction."""

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .assess import Assessment
from .hooks import Hook

SCHEMA = """
CREATE TABLE IF NOT EXISTS assessments (
    id         TEXT PRIMARY KEY,
    event_id   TEXT NOT NULL UNIQUE,  -- the webhook-id, so that a repeat is not added
    upload_id  TEXT NOT NULL,
    path       TEXT NOT NULL,
    filename   TEXT NOT NULL,
    size       INTEGER NOT NULL,      -- bytes
    state      TEXT NOT NULL,         -- waiting, done, failed
    reason     TEXT NOT NULL DEFAULT '',
    heard_at   REAL NOT NULL,         -- Unix seconds
    assessment TEXT                   -- JSON
);
"""


class Store:
    """The assessments, in one database file. Each step opens its own connection, so any thread can call it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._transaction() as db:
            db.executescript("PRAGMA journal_mode = WAL;" + SCHEMA)

    def add(self, hook: Hook) -> str | None:
        """Store a job for this event and return the assessment's id; None if the event was received before."""
        assessment_id = secrets.token_hex(8)
        with self._transaction() as db:
            inserted = db.execute(
                "INSERT OR IGNORE INTO assessments (id, event_id, upload_id, path, filename, size, state, heard_at)"
                " VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?)",
                (assessment_id, hook.event_id, hook.upload_id, hook.path, hook.filename, hook.size, time.time()),
            )
        return assessment_id if inserted.rowcount else None

    def waiting(self) -> list[dict[str, Any]]:
        """Return the waiting jobs, the oldest first."""
        return self._rows("WHERE state = 'waiting' ORDER BY heard_at")

    def done(self, assessment_id: str, assessment: Assessment) -> None:
        """Store the result of a job."""
        text = json.dumps(asdict(assessment))
        with self._transaction() as db:
            db.execute("UPDATE assessments SET state = 'done', assessment = ? WHERE id = ?", (text, assessment_id))

    def failed(self, assessment_id: str, reason: str) -> None:
        """Store why a job failed."""
        with self._transaction() as db:
            db.execute("UPDATE assessments SET state = 'failed', reason = ? WHERE id = ?", (reason, assessment_id))

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """Return up to limit assessments, the newest first."""
        return self._rows("ORDER BY heard_at DESC LIMIT ?", limit)

    def one(self, assessment_id: str) -> dict[str, Any] | None:
        """Return the assessment with this id, None if there is none."""
        return next(iter(self._rows("WHERE id = ?", assessment_id)), None)

    def _rows(self, clause: str, *values: object) -> list[dict[str, Any]]:
        with self._transaction() as db:
            rows = db.execute(f"SELECT * FROM assessments {clause}", values).fetchall()
        return [{**row, "assessment": json.loads(row["assessment"]) if row["assessment"] else None} for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=10)
        db.row_factory = lambda cursor, row: {
            column[0]: value for column, value in zip(cursor.description, row, strict=True)
        }
        try:
            with db:
                db.execute("PRAGMA synchronous = FULL")  # a job that was answered with 202 survives a crash
                yield db
        finally:
            db.close()
