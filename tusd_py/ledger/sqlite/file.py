"""The ledger's file: one connection a thread, on the file that is at its path now. Every function here blocks."""

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from ...protocol.refusals import StorageFull, Unavailable
from ...threads import Threads
from ..binding import SCHEMA, check_schema

BUSY_TIMEOUT_S = 5.0  # another process's transaction takes milliseconds; past this something is wrong
NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}  # the second where the index of the log has no room

log = logging.getLogger("tusd_py")

T = TypeVar("T")


class Line:
    """A connection to the file in a thread of its own, opened when it is needed, and anew when the file is another."""

    def __init__(self, path: Path, name: str, free_room: Callable[[], bool]) -> None:
        """free_room gives back room on a full volume; it returns whether there was any to give back."""
        self._path = path
        self._thread = Threads(1, name)
        self._free_room = free_room
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # the one that is open: device and inode
        self._trouble = ""  # what was logged last

    async def run(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a step returns or raises. Raises Unavailable when the file cannot be used, or StorageFull."""

        def call() -> T:
            try:
                result = step(self._opened())
            except sqlite3.OperationalError as exc:
                if code_of(exc) not in NO_ROOM or not self._free_room():
                    raise
                log.warning("the volume is full: the reserve was given back to the ledger")
                result = step(self._opened())
            self._trouble = ""
            return result

        try:
            return await self._thread.run(call)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # a fault of ours
        except sqlite3.DatabaseError as exc:
            raise self._refusal(exc) from exc

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._thread.run(self._close)
        self._thread.close()

    def _opened(self) -> sqlite3.Connection:
        found = file_at(self._path)
        if self._connection is None or found != self._file:
            self._close()
            # Only the first look makes a file: a later one would begin anew on an unmounted volume's empty folder.
            self._connection = connect(self._path, create=self._file is None)
            self._file = file_at(self._path)
        return self._connection

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _refusal(self, exc: sqlite3.DatabaseError) -> StorageFull | Unavailable:
        """Return what the client gets, and log what the operator can do, once for each kind of trouble."""
        if code_of(exc) in NO_ROOM:
            return StorageFull("The volume is full; what was acknowledged is safe, resume when there is room again")
        if not isinstance(exc, sqlite3.OperationalError):
            what = "is damaged: stop the server, move the file away, and run `tusd-py recover`"
        elif file_at(self._path) is None:
            what = "is gone: mount its volume again; if it is lost, run `tusd-py recover` and start the server again"
        else:
            what = "cannot be used just now"
        if what != self._trouble:
            self._trouble = what
            log.error("the ledger %s %s (%s)", self._path, what, exc)
        return Unavailable("The upload ledger cannot be used just now; what was acknowledged is safe, try again")


def code_of(exc: sqlite3.DatabaseError) -> int:
    """Return SQLite's extended result code; 0 for an error that Python's module raised by itself."""
    return getattr(exc, "sqlite_errorcode", 0)


def file_at(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at a path, None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Return a connection to the file, with the tables of today. Raises sqlite3.DatabaseError, WrongLedger."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        db.row_factory = sqlite3.Row
        begin_wal(db)
        migrate(db)
        db.execute("COMMIT")
        return db
    except BaseException:
        db.close()
        raise


def begin_wal(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log and begin a transaction. Raises sqlite3.OperationalError."""
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")  # does not wait for its lock: several workers start at once
            break
        except sqlite3.OperationalError as exc:
            if code_of(exc) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_at:
                raise
            time.sleep(0.02)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("BEGIN IMMEDIATE")


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables to today's form, in the transaction that has begun. Raises WrongLedger for a newer form."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    check_schema(version)
    for step in range(version + 1, SCHEMA + 1):
        script = files(__package__).joinpath(f"schema/{step}.sql").read_text()
        for statement in script.split(";\n"):
            db.execute(statement)
