"""From settings to a running service: the only module that names a ledger and a storage."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from .delivery import Receivers, deliver
from .engine import Engine
from .lease import Leases
from .leaving import Leaving
from .ledger.redis import RedisLedger
from .ledger.redis.servers import connect
from .ledger.sqlite import SqliteLedger
from .ports import WrongLedger
from .protocol.messages import Limits
from .protocol.refusals import Unavailable
from .settings import Settings, WrongSetting
from .storage.file import FileStorage
from .storage.posix import check_locks
from .transfer import Pace
from .upkeep import chore, keep_reserve, keep_swept, keep_tidy

EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "termination",
    "checksum",
    "concatenation",
)
BIND_S = 1.0  # between tries to find out whether the ledger is the folder's
LEDGER_FILE = ".tusd_py.sqlite3"  # inside the upload folder; no upload id begins with a dot
YIELDED_S = 5.0  # what a body that yields has left to do, a flush and a commit, takes less

log = logging.getLogger("tusd_py")

AnyLedger = RedisLedger | SqliteLedger  # both are ports.Ledger and ports.Outbox


@dataclass(frozen=True, kw_only=True)
class Parts:
    """An engine and what it stands on, all of them open."""

    engine: Engine
    ledger: AnyLedger
    storage: FileStorage


class Service:
    """An engine with everything under it, opened once in each event loop and closed with it.

    Opened by lifespan() where the server runs it, and by the first request where it does not: a mounted application
    gets no lifespan events from its parent.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.leaving = Leaving(settings.grace)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: asyncio.Future[Engine] | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def engine(self) -> Engine:
        """Return the engine, opening everything first if that was not done yet."""
        loop = asyncio.get_running_loop()
        if self._opened is None or self._loop is not loop or (self._keeping and self._keeping.done()):
            self._loop = loop
            self._opened = loop.create_future()
            # A task, so that the end of the event loop closes everything even where nobody calls close().
            self._keeping = asyncio.create_task(self._keep(self._opened))
        return await asyncio.shield(self._opened)

    async def close(self) -> None:
        """Make the running bodies yield, end the chores and close everything."""
        await self.leaving.finish(YIELDED_S)
        if self._keeping:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        self._opened = self._keeping = None

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Keep the service open for the length of the block; the form that Starlette takes."""
        await self.engine()
        try:
            yield
        finally:
            await self.close()

    async def _keep(self, opened: asyncio.Future[Engine]) -> None:
        try:
            with self.leaving.listening():
                async with open_parts(self.settings) as parts:
                    opened.set_result(parts.engine)
                    await asyncio.gather(*self._chores(parts))
        except Exception as exc:
            if opened.done():
                raise
            opened.set_exception(exc)

    def _chores(self, parts: Parts) -> list[Coroutine[Any, Any, None]]:
        """Return what goes on beside the requests."""
        ledger, storage, settings = parts.ledger, parts.storage, self.settings
        chores = [
            keep_bound(ledger),
            chore("sweep", lambda: keep_swept(parts.engine, ledger, settings.sweep_interval)),
            chore("tidy", lambda: keep_tidy(ledger, storage, settings.tidy_interval)),
        ]
        if not settings.redis_url:  # the ledger is on the volume: it must be able to record a removal
            chores.append(chore("reserve", lambda: keep_reserve(storage, settings.sweep_interval)))
        if settings.webhook_url:
            chores.append(chore("deliver", lambda: deliver(ledger, ledger, receivers_of(settings))))
        return chores


@asynccontextmanager
async def open_parts(settings: Settings) -> AsyncIterator[Parts]:
    """Open ledger and storage, put the engine on top of them, and close them.

    Raises OSError, Unavailable, and WrongLedger when ledger and folder do not belong together; not for a ledger that is
    away: it may come back, and is checked then.
    """
    settings.upload_dir.mkdir(parents=True, exist_ok=True)
    storage = FileStorage(
        settings.upload_dir,
        durable=settings.durability == "fsync",
        locking=settings.file_locks == "required",
        min_free=settings.min_free,
    )
    ledger = open_ledger(settings, storage)
    try:
        await ledger.open(storage)
        with suppress(Unavailable):
            await ledger.bind()
        leases = Leases(ledger, settings.lease_ttl, settings.lease_wait)
        limits = Limits(settings.max_size, EXTENSIONS + (("expiration",) if settings.expire_after else ()))
        pace = Pace(settings.checkpoint_bytes, settings.checkpoint_interval)
        engine = Engine(ledger, storage, leases, limits, pace, settings.expire_after)
        yield Parts(engine=engine, ledger=ledger, storage=storage)
    finally:
        await ledger.close()
        storage.close()


async def keep_bound(ledger: AnyLedger) -> None:
    """Return when ledger and folder are known to belong together: a ledger that was away at the start may come back."""
    while True:
        try:
            return await ledger.bind()
        except (Unavailable, WrongLedger) as exc:
            log.warning("%s; again in %.0f s", exc, BIND_S)
        await asyncio.sleep(BIND_S)


def check_storage(settings: Settings) -> None:
    """Raise WrongSetting when the upload folder has no locks that keep a frozen writer's bytes out."""
    try:
        check_locks(settings.upload_dir)
    except (OSError, ValueError) as exc:
        raise WrongSetting(
            f"--upload-dir is {settings.upload_dir}, its file system has no locks on open files ({exc}); use one that"
            " has, or --file-locks none if no replica will ever be frozen for longer than its lease"
        ) from exc


def open_ledger(settings: Settings, storage: FileStorage) -> AnyLedger:
    """Return the ledger that the settings ask for, not yet open."""
    if settings.redis_url:
        return RedisLedger(
            connect(settings.redis_url),
            shards=settings.redis_shards,
            wait_replicas=settings.redis_wait_replicas,
            prefix=settings.redis_prefix,
        )
    return SqliteLedger(settings.upload_dir / LEDGER_FILE, free_room=storage.give_back_reserve)


def receivers_of(settings: Settings) -> Receivers:
    """Return who hears of finished uploads."""
    return Receivers(
        settings.webhook_url, settings.webhook_secret, settings.webhook_timeout, settings.webhook_give_up_after
    )
