"""The embedded ledger: one SQLite file inside the upload folder, for all processes of one host.

Every method is one transaction (BEGIN IMMEDIATE, WAL, synchronous=FULL) on one connection in one thread. Processes
hear each other's signals by looking at data_version, a counter in shared memory, while anybody has reason to listen.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ...ports import Delivery, Due, Event, Folder, Held, Sight, Signal, Tombstone, Watcher
from ...protocol.refusals import Refusal, UploadLocked
from ...protocol.upload import Upload
from ..binding import folder_for
from ..clock import Clock
from ..watchers import Watchers
from .file import Line
from .rows import CONSTANT, born, delivery_of, find, find_held, insert, is_held, row_of, signal, update, upload_of

LISTEN_S = 0.05  # between looks at data_version: 5 us each, and only while somebody watches

T = TypeVar("T")
Step = Callable[[sqlite3.Connection], T]


class SqliteLedger:
    """ports.Ledger and ports.Outbox in one file. open() before use, close() after."""

    def __init__(
        self, path: Path, *, free_room: Callable[[], bool] = lambda: False, wall: Callable[[], float] = time.time
    ) -> None:
        """free_room gives back room on a full volume, so that a removal can be recorded; it is called in a thread."""
        self._path = path
        self._writing = Line(path, "tusd_py-sqlite", free_room)
        self._reading = Line(path, "tusd_py-sqlite-reading", free_room)  # sees what is committed, waits for no commit
        self._wall = wall
        self._clock = Clock()
        self._watchers = Watchers()
        self._wake = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self._folder: Folder | None = None
        self._bound_to = ""  # the identity of the folder
        self._heard = 0  # the last signal that was passed on
        self._version = -1  # data_version at the last look

    async def open(self, folder: Folder) -> None:
        """Open or make the file. Raises Unavailable, StorageFull, WrongLedger."""
        self._folder = folder
        self._heard = await self._step(lambda db: db.execute("SELECT coalesce(max(seq), 0) FROM signals").fetchone()[0])
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        self._reading.close()
        self._writing.close()

    def now(self) -> float:
        self._clock.set(self._wall())
        return self._clock.now()

    @property
    def is_steady(self) -> bool:
        self.now()
        return self._clock.is_steady

    # Ledger

    async def create(self, upload: Upload, *, token: str = "", ttl_s: float = 0.0, event: Event | None = None) -> None:
        def step(db: sqlite3.Connection) -> None:
            until = time.monotonic() + ttl_s if token else 0
            lease = {"token": token, "lease_until": until, "lease_ttl_s": ttl_s}
            if not insert(db, "uploads", row_of(upload) | lease) and token:
                row = db.execute("SELECT token FROM uploads WHERE id = ?", (upload.id,)).fetchone()
                if row["token"] != token:
                    raise UploadLocked(
                        f"The upload {upload.id} is being made by another request; try again in a moment"
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
                    update(db, upload_id, {"wish": Signal.YIELD})
                signal(db, upload_id, Signal.YIELD)
                return Held(remaining_s=row["lease_until"] - now)
            lease = {"token": token, "lease_until": now + ttl_s, "lease_ttl_s": ttl_s, "wish": None}
            update(db, upload_id, lease)
            return upload_of(row)

        return await self._step(step)

    async def renew(self, upload_id: str, token: str, ttl_s: float) -> Signal | None:
        def step(db: sqlite3.Connection) -> Signal | None:
            row = find_held(db, upload_id, token)
            update(db, upload_id, {"lease_until": time.monotonic() + ttl_s, "lease_ttl_s": ttl_s})
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
            changed = {name: value for name, value in row_of(upload).items() if name not in CONSTANT}
            lease = {
                "commits": row["commits"] + 1,
                "wish": Signal.YIELD if row["wish"] == Signal.YIELD else None,
                "lease_until": 0 if release else time.monotonic() + ttl_s,
                "lease_ttl_s": ttl_s,
                "token": "" if release else token,
            }
            update(db, upload.id, changed | lease)
            if event:
                born(db, event)
            if row["wish"]:
                signal(db, upload.id, Signal.SETTLED)

        await self._step(step)

    async def release(self, upload_id: str, token: str) -> None:
        def step(db: sqlite3.Connection) -> None:
            released = db.execute(
                "UPDATE uploads SET lease_until = 0, token = '', wish = NULL WHERE id = ? AND token = ?",
                (upload_id, token),
            )
            if released.rowcount:
                signal(db, upload_id, Signal.SETTLED)

        await self._step(step)

    async def remove(self, upload_id: str, token: str, tombstone: Tombstone) -> None:
        def step(db: sqlite3.Connection) -> None:
            find_held(db, upload_id, token)
            kept = {
                "gone": tombstone.reason,
                "state": tombstone.state,
                "removed_at": tombstone.removed_at,
                "expires_at": tombstone.forget_at,
            }
            update(db, upload_id, kept | {"metadata": "", "concat": "", "extra": "", "lease_until": 0, "token": ""})
            signal(db, upload_id, Signal.SETTLED)

        await self._step(step)

    async def forget(self, upload_id: str) -> None:
        await self._step(lambda db: db.execute("DELETE FROM uploads WHERE id = ? AND gone IS NOT NULL", (upload_id,)))

    async def inspect(self, upload_id: str, *, ask: bool) -> Sight:
        def look(db: sqlite3.Connection) -> Sight:
            row = find(db, upload_id)
            return Sight(upload_of(row), is_held(row, time.monotonic()), row["commits"])

        def step(db: sqlite3.Connection) -> Sight:
            sight = look(db)
            if sight.is_held:
                db.execute("UPDATE uploads SET wish = coalesce(wish, ?) WHERE id = ?", (Signal.CHECKPOINT, upload_id))
                signal(db, upload_id, Signal.CHECKPOINT)
            return sight

        sight = await self._reading.run(look)
        return await self._step(step) if ask and sight.is_held else sight

    async def due(self, now: float, limit: int) -> Due:
        def look(db: sqlite3.Connection) -> Due:
            rows = db.execute(
                "SELECT id, gone FROM uploads WHERE expires_at <= ? ORDER BY expires_at LIMIT ?", (now, limit)
            ).fetchall()
            return Due(
                expired=tuple(row["id"] for row in rows if row["gone"] is None),
                forgettable=tuple(row["id"] for row in rows if row["gone"] is not None),
            )

        return await self._reading.run(look)

    async def take_turn(self, name: str, ttl_s: float) -> bool:
        def step(db: sqlite3.Connection) -> bool:
            now = self._wall()
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
        await self._reading.run(lambda db: db.execute("SELECT 1").fetchone())

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
        values = (due_at, json.dumps(sorted(delivery.confirmed_by)), reason, delivery.event.id)
        await self._step(
            lambda db: db.execute("UPDATE events SET due_at = ?, told = ?, reason = ? WHERE id = ?", values)
        )

    # The folder that the records are of

    async def bind(self) -> None:
        assert self._folder
        row = await self._reading.run(lambda db: db.execute("SELECT folder FROM identity").fetchone())
        folder = await folder_for(row["folder"] if row else None, self._folder)
        if row is None:
            await self._tie(folder, self._folder)
        self._bound_to = folder

    async def _tie(self, identity: str, folder: Folder) -> None:
        """Note which folder the ledger belongs to."""
        has_uploads = await folder.has_uploads()

        def step(db: sqlite3.Connection) -> None:
            # Records without an identity are those of a server of version 1.
            lost = has_uploads and db.execute("SELECT 1 FROM uploads LIMIT 1").fetchone() is None
            db.execute(
                "INSERT INTO identity SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM identity)", (identity, int(lost))
            )

        await self._step(step)

    async def recovered(self) -> None:
        await self._step(lambda db: db.execute("UPDATE identity SET lost = 0"))

    # The connection

    async def _step(self, step: Step[T]) -> T:
        """Return what a step returns, once it is committed."""

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

        result = await self._writing.run(call)
        self._version = -1  # our own signals do not change data_version for us
        self._wake.set()
        return result

    # Signals

    async def _listen(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LISTEN_S if self._watchers else None):
                    await self._wake.wait()
            self._wake.clear()
            try:
                for row in await self._writing.run(self._news):
                    self._heard = row["seq"]
                    self._watchers.tell(row["upload_id"], Signal(row["signal"]))
            except Refusal:
                await asyncio.sleep(LISTEN_S)

    def _news(self, db: sqlite3.Connection) -> list[sqlite3.Row]:
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return []
        self._version = version
        return db.execute(
            "SELECT seq, upload_id, signal FROM signals WHERE seq > ? ORDER BY seq", (self._heard,)
        ).fetchall()
