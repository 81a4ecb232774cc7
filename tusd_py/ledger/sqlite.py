"""The embedded ledger: one SQLite file inside the upload folder, for all processes of one host.

Every method is one transaction (BEGIN IMMEDIATE, WAL, synchronous=FULL) on one connection in one thread. Processes
hear each other's signals by looking at data_version, a counter in shared memory, while anybody has reason to listen.
"""

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from ..ports import Delivery, Event, Held, Sight, Signal, Watcher, WrongLedger
from ..protocol.refusals import Unavailable
from ..protocol.upload import Upload
from ..threads import Threads
from .rows import UPLOAD_COLUMNS, born, delivery_of, find, find_held, is_held, row_of, tell, upload_of
from .watchers import Watchers

SCHEMA_VERSION = 1  # user_version in schema.sql
BUSY_TIMEOUT_S = 5.0  # another process's transaction takes milliseconds; past this something is wrong
LISTEN_S = 0.05  # between looks at data_version: 5 us each, and only while somebody watches

log = logging.getLogger("tusd_py")

T = TypeVar("T")
Step = Callable[[sqlite3.Connection], T]


class SqliteLedger:
    """ports.Ledger and ports.Outbox in one file. open() before use, close() after."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = Threads(1, "tusd_py-sqlite")
        self._reading = Threads(1, "tusd_py-sqlite-reading")
        self._watchers = Watchers()
        self._wake = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None  # sees what is committed, and waits for no commit
        self._heard = 0  # the last signal that was passed on
        self._version = -1  # data_version at the last look

    async def open(self) -> None:
        """Open or make the file. Raises Unavailable."""
        await self._call(self._connect)
        self._reader = await self._call(self._connection_to_file, self._reading)
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        if self._reader:
            await self._call(self._reader.close, self._reading)
        if self._connection:
            await self._call(self._connection.close)
        self._reading.close()
        self._thread.close()

    # Ledger

    async def create(self, upload: Upload, *, token: str = "", ttl_s: float = 0.0, event: Event | None = None) -> None:
        def step(db: sqlite3.Connection) -> None:
            now = time.monotonic()
            db.execute(
                f"INSERT OR IGNORE INTO uploads ({UPLOAD_COLUMNS}, token, lease_until, lease_ttl_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row_of(upload), token, now + ttl_s if token else 0, ttl_s),
            )
            if event:
                born(db, event)

        await self._step(step)

    async def acquire(self, upload_id: str, token: str, ttl_s: float) -> Upload | Held:
        def step(db: sqlite3.Connection) -> Upload | Held:
            row = find(db, upload_id)
            now = time.monotonic()
            if is_held(row, now) and row["token"] != token:
                if row["wish"] != Signal.YIELD:
                    db.execute("UPDATE uploads SET wish = ? WHERE id = ?", (Signal.YIELD, upload_id))
                tell(db, upload_id, Signal.YIELD)
                return Held(remaining_s=row["lease_until"] - now)
            db.execute(
                "UPDATE uploads SET token = ?, lease_until = ?, lease_ttl_s = ?, wish = NULL WHERE id = ?",
                (token, now + ttl_s, ttl_s, upload_id),
            )
            return upload_of(row)

        return await self._step(step)

    async def renew(self, upload_id: str, token: str, ttl_s: float) -> Signal | None:
        def step(db: sqlite3.Connection) -> Signal | None:
            row = find_held(db, upload_id, token)
            until = time.monotonic() + ttl_s
            db.execute("UPDATE uploads SET lease_until = ?, lease_ttl_s = ? WHERE id = ?", (until, ttl_s, upload_id))
            return Signal(row["wish"]) if row["wish"] else None

        return await self._step(step)

    async def commit(
        self,
        upload: Upload,
        token: str,
        ttl_s: float,
        *,
        event: Event | None = None,
        release: bool = False,
        take_back: bool = False,
    ) -> None:
        def step(db: sqlite3.Connection) -> None:
            row = find_held(db, upload.id, token)
            if upload.offset < row["offset"] and not take_back:
                return
            db.execute(
                'UPDATE uploads SET length = ?, "offset" = ?, expires_at = ?, commits = commits + 1,'
                " wish = CASE wish WHEN 'yield' THEN wish END, lease_until = ?, lease_ttl_s = ?, token = ?"
                " WHERE id = ?",
                (
                    upload.length,
                    upload.offset,
                    upload.expiry,
                    0 if release else time.monotonic() + ttl_s,
                    ttl_s,
                    "" if release else token,
                    upload.id,
                ),
            )
            if event:
                born(db, event)
            if row["wish"]:
                tell(db, upload.id, Signal.SETTLED)

        await self._step(step)

    async def release(self, upload_id: str, token: str) -> None:
        def step(db: sqlite3.Connection) -> None:
            released = db.execute(
                "UPDATE uploads SET lease_until = 0, token = '', wish = NULL WHERE id = ? AND token = ?",
                (upload_id, token),
            )
            if released.rowcount:
                tell(db, upload_id, Signal.SETTLED)

        await self._step(step)

    async def remove(self, upload_id: str, token: str, reason: str, forget_at: float) -> None:
        def step(db: sqlite3.Connection) -> None:
            find_held(db, upload_id, token)
            db.execute(
                "UPDATE uploads SET gone = ?, expires_at = ?, lease_until = 0, token = '' WHERE id = ?",
                (reason, forget_at, upload_id),
            )
            tell(db, upload_id, Signal.SETTLED)

        await self._step(step)

    async def inspect(self, upload_id: str, *, ask: bool) -> Sight:
        def look(db: sqlite3.Connection) -> Sight:
            row = find(db, upload_id)
            return Sight(upload_of(row), is_held(row, time.monotonic()), row["commits"])

        def step(db: sqlite3.Connection) -> Sight:
            sight = look(db)
            if sight.is_held:
                db.execute("UPDATE uploads SET wish = coalesce(wish, ?) WHERE id = ?", (Signal.CHECKPOINT, upload_id))
                tell(db, upload_id, Signal.CHECKPOINT)
            return sight

        sight = await self._look(look)
        return await self._step(step) if ask and sight.is_held else sight

    async def expired(self, now: float, limit: int) -> list[str]:
        def step(db: sqlite3.Connection) -> list[str]:
            db.execute("DELETE FROM uploads WHERE gone IS NOT NULL AND expires_at <= ?", (now,))
            rows = db.execute(
                "SELECT id FROM uploads WHERE expires_at <= ? AND gone IS NULL ORDER BY expires_at LIMIT ?",
                (now, limit),
            )
            return [row["id"] for row in rows]

        return await self._step(step)

    async def take_turn(self, name: str, ttl_s: float) -> bool:
        def step(db: sqlite3.Connection) -> bool:
            now = time.time()
            taken = db.execute(
                "INSERT INTO turns VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET until = excluded.until WHERE until <= ? OR until > ?",
                (name, now + ttl_s, now, now + ttl_s),  # beyond now + ttl_s: the wall clock was set back
            )
            return taken.rowcount == 1

        return await self._step(step)

    def watch(self, upload_id: str, watcher: Watcher) -> Callable[[], None]:
        self._wake.set()
        return self._watchers.add(upload_id, watcher)

    async def ping(self) -> None:
        await self._look(lambda db: db.execute("SELECT 1").fetchone())

    # Outbox

    async def claim(self, now: float, claim_s: float, limit: int) -> list[Delivery]:
        def step(db: sqlite3.Connection) -> list[Delivery]:
            rows = db.execute(
                "UPDATE events SET due_at = ?, attempt = attempt + 1 WHERE id IN"
                " (SELECT id FROM events WHERE due_at <= ? ORDER BY due_at LIMIT ?) RETURNING *",
                (now + claim_s, now, limit),
            ).fetchall()
            return [delivery_of(row) for row in rows]

        return await self._step(step)

    async def confirm(self, event: Event) -> None:
        await self._step(lambda db: db.execute("DELETE FROM events WHERE id = ?", (event.id,)))

    async def postpone(self, delivery: Delivery, due_at: float, reason: str) -> None:
        await self._settle(delivery, due_at, reason)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        await self._settle(delivery, None, reason)

    async def _settle(self, delivery: Delivery, due_at: float | None, reason: str) -> None:
        values = (due_at, json.dumps(sorted(delivery.told)), reason, delivery.event.id)
        await self._step(
            lambda db: db.execute("UPDATE events SET due_at = ?, told = ?, reason = ? WHERE id = ?", values)
        )

    # The connection

    def _connect(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = self._connection_to_file()
        begin_wal(db)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise WrongLedger(
                f"{self._path} is a ledger of version {version}, this server needs version {SCHEMA_VERSION}: finish its"
                " uploads with the server that made it, or give another --upload-dir"
            )
        if version == 0:
            schema = files(__package__).joinpath("schema.sql").read_text()
            for statement in schema.split(";\n"):
                db.execute(statement)
        self._heard = db.execute("SELECT coalesce(max(seq), 0) FROM signals").fetchone()[0]
        db.execute("COMMIT")
        self._connection = db

    def _connection_to_file(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        return db

    async def _call(self, call: Callable[[], T], thread: Threads | None = None) -> T:
        try:
            return await (thread or self._thread).run(call)
        except sqlite3.OperationalError as exc:  # locked for too long, disk full, I/O error
            log.warning("SQLite: %s", exc)
            raise Unavailable("The upload ledger cannot be used just now; try again") from exc

    async def _look(self, step: Step[T]) -> T:
        """Return what a step that changes nothing tells."""

        def call() -> T:
            assert self._reader
            return step(self._reader)

        return await self._call(call, self._reading)

    async def _read(self, step: Step[T]) -> T:
        def call() -> T:
            assert self._connection
            return step(self._connection)

        return await self._call(call)

    async def _step(self, step: Step[T]) -> T:
        def call(db: sqlite3.Connection) -> T:
            db.execute("BEGIN IMMEDIATE")
            try:
                result = step(db)
                db.execute("COMMIT")
                return result
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

        result = await self._read(call)
        self._version = -1  # our own signals do not change data_version for us
        self._wake.set()
        return result

    # Signals

    async def _listen(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LISTEN_S if self._watchers else None)
            self._wake.clear()
            try:
                for row in await self._read(self._news):
                    self._heard = row["seq"]
                    self._watchers.tell(row["upload_id"], Signal(row["signal"]))
            except Unavailable:
                await asyncio.sleep(LISTEN_S)

    def _news(self, db: sqlite3.Connection) -> list[sqlite3.Row]:
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return []
        self._version = version
        return db.execute(
            "SELECT seq, upload_id, signal FROM signals WHERE seq > ? ORDER BY seq", (self._heard,)
        ).fetchall()


def begin_wal(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log and begin a transaction. Raises sqlite3.OperationalError."""
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")  # does not wait for its lock: several workers start at once
            break
        except sqlite3.OperationalError:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(0.02)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("BEGIN IMMEDIATE")
