"""From settings to a running service: the only module that names a ledger and a storage."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from .callbacks import Receivers, deliver
from .engine import Engine
from .lease import Leases
from .ledger.redis import RedisLedger
from .ledger.servers import connect
from .ledger.sqlite import SqliteLedger
from .protocol.messages import Limits
from .protocol.refusals import Refusal
from .settings import Settings, WrongSetting
from .storage.file import FileStorage
from .storage.posix import check_locks
from .transfer import Pace

EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "termination",
    "checksum",
    "concatenation",
)
LEDGER_FILE = ".tusd_py.sqlite3"  # inside the upload folder; no upload id begins with a dot
STRAY_S = 3600.0  # a file this old whose upload has no record is in nobody's hands
RESTART_S = 1.0  # before a chore that failed is begun again

log = logging.getLogger("tusd_py")

AnyLedger = RedisLedger | SqliteLedger  # both are ports.Ledger and ports.Outbox


class Service:
    """An engine with everything under it, opened once in each event loop and closed with it.

    Opened by lifespan() where the server runs it, and by the first request where it does not: a mounted application
    gets no lifespan events from its parent.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
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
        """End the chores and close everything."""
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
            async with open_engine(self.settings) as (engine, ledger):
                opened.set_result(engine)
                chores = [
                    chore("sweep", lambda: sweep(engine, ledger, self.settings.sweep_interval)),
                    chore("tidy", lambda: tidy(engine, ledger, self.settings.tidy_interval)),
                ]
                if self.settings.webhook_url:
                    chores.append(chore("deliver", lambda: deliver(ledger, ledger, receivers_of(self.settings))))
                await asyncio.gather(*chores)
        except Exception as exc:
            if opened.done():
                raise
            opened.set_exception(exc)


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[tuple[Engine, AnyLedger]]:
    """Open ledger and storage, give the engine on top of them, and close them. Raises OSError, Unavailable."""
    settings.upload_dir.mkdir(parents=True, exist_ok=True)
    ledger = open_ledger(settings)
    storage = FileStorage(
        settings.upload_dir,
        durable=settings.durability == "fsync",
        locking=settings.file_locks == "required",
        min_free=settings.min_free,
    )
    await ledger.open()
    try:
        yield (
            Engine(
                ledger,
                storage,
                Leases(ledger, settings.lease_ttl, settings.lease_wait),
                Limits(settings.max_size, EXTENSIONS + (("expiration",) if settings.expire_after else ())),
                Pace(settings.checkpoint_bytes, settings.checkpoint_interval),
                settings.expire_after,
            ),
            ledger,
        )
    finally:
        await ledger.close()
        storage.close()


def check_storage(settings: Settings) -> None:
    """Raise WrongSetting when the upload folder has no locks that keep a frozen writer's bytes out."""
    try:
        check_locks(settings.upload_dir)
    except (OSError, ValueError) as exc:
        raise WrongSetting(
            f"--upload-dir is {settings.upload_dir}, its file system has no locks on open files ({exc}); use one that"
            " has, or --file-locks none if no replica will ever be frozen for longer than its lease"
        ) from exc


def open_ledger(settings: Settings) -> AnyLedger:
    """Return the ledger that the settings ask for, not yet open."""
    if settings.redis_url:
        return RedisLedger(
            connect(settings.redis_url), shards=settings.redis_shards, wait_replicas=settings.redis_wait_replicas
        )
    return SqliteLedger(settings.upload_dir / LEDGER_FILE)


def receivers_of(settings: Settings) -> Receivers:
    """Return who hears of finished uploads."""
    return Receivers(
        settings.webhook_url, settings.webhook_secret, settings.webhook_timeout, settings.webhook_give_up_after
    )


async def sweep(engine: Engine, ledger: AnyLedger, interval_s: float) -> None:
    """Remove expired uploads every interval_s, for ever; one replica does it for all."""
    while True:
        if await ledger.take_turn("sweep", interval_s * 0.9) and (swept := await engine.sweep()):
            log.info("swept %d expired uploads", swept)
        await asyncio.sleep(interval_s)


async def tidy(engine: Engine, ledger: AnyLedger, interval_s: float) -> None:
    """Remove what crashes left in the folder every interval_s, for ever; one replica does it for all."""
    while True:
        if await ledger.take_turn("tidy", interval_s * 0.9) and (removed := await engine.tidy(STRAY_S)):
            log.info("removed the files of %d uploads that never were or are gone", removed)
        await asyncio.sleep(interval_s)


async def chore(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a chore for ever; what goes wrong in it is logged and does not end the service."""
    while True:
        try:
            await run()
        except (Refusal, OSError, sqlite3.Error) as exc:
            log.warning("%s: %s; again in %.0f s", name, exc, RESTART_S)
        except Exception:
            log.exception("%s failed; again in %.0f s", name, RESTART_S)
        await asyncio.sleep(RESTART_S)
