"""Chores over all uploads: sweep what has expired, tidy what crashes left, recover what a ledger lost.

One entry that makes trouble is skipped and logged; the volume or the ledger being away ends a turn.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from .engine import Engine, Recovered
from .ports import LeaseLost, Ledger, Storage
from .protocol.refusals import LedgerUnrecovered, Refusal, Unavailable, UploadGone, UploadNotFound

SWEEP_BATCH = 1000  # uploads removed in one turn; a turn ends well within its lease
STRAY_S = 3600.0  # a file this old whose upload has no record is not being written
REPORT_S = 24 * 3600.0  # between two lines that say how many uploads have no record
RESTART_S = 1.0  # before a chore that failed is begun again

log = logging.getLogger("tusd_py")


class Standing(Enum):
    """What the ledger knows of an upload."""

    RECORDED = auto()
    GONE = auto()
    UNKNOWN = auto()
    LOST = auto()  # perhaps: the ledger lost its records


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidied:
    """What a turn of tidy() found."""

    removed: tuple[str, ...]  # ids of uploads whose files were removed, or would be in a dry run
    unrecorded: int  # uploads that have files and no record


async def sweep(engine: Engine, ledger: Ledger) -> int:
    """Remove the unfinished uploads that have expired, and tombstones that were kept long enough; return how many.

    Nothing is removed while the ledger's clock is not to be believed. Raises Unavailable.
    """
    now = ledger.now()
    if not ledger.is_steady:
        return 0
    due = await ledger.due(now, SWEEP_BATCH)
    swept = 0
    for upload_id in due.expired:
        try:
            swept += await engine.expire(upload_id)
        except Unavailable:
            raise
        except (Refusal, LeaseLost, OSError) as exc:  # in use after all, or swept by another; the next turn sees
            log.info("not swept: %s: %s", upload_id, exc)
    for upload_id in due.forgettable:
        try:
            await engine.forget(upload_id)
        except OSError as exc:
            log.warning("the files of the removed upload %s cannot be removed: %s", upload_id, exc)
    return swept


async def tidy(ledger: Ledger, storage: Storage, *, dry_run: bool = False) -> Tidied:
    """Remove what a crash left of uploads that never were or are gone, if it is provably ours.

    Nothing is removed that has bytes and no record: recover() makes the record from them. Raises Unavailable.
    """
    removed = []
    unrecorded = 0
    for upload_id in (await storage.listing()).ids:
        try:
            standing = await standing_of(ledger, upload_id)
            if standing is Standing.GONE or (
                standing is Standing.UNKNOWN and await storage.is_stray(upload_id, STRAY_S)
            ):
                if not dry_run:
                    await storage.remove(upload_id)
                removed.append(upload_id)
            elif standing is not Standing.RECORDED:
                await storage.read(upload_id)
                unrecorded += 1
        except ValueError:
            pass  # no upload
        except OSError as exc:
            log.warning("not tidied: %s: %s", upload_id, exc)
    return Tidied(removed=tuple(removed), unrecorded=unrecorded)


async def standing_of(ledger: Ledger, upload_id: str) -> Standing:
    """Return what the ledger knows of an upload. Raises Unavailable."""
    try:
        await ledger.inspect(upload_id, ask=False)
        return Standing.RECORDED
    except UploadGone:
        return Standing.GONE
    except UploadNotFound:
        return Standing.UNKNOWN
    except LedgerUnrecovered:
        return Standing.LOST


async def recover(
    engine: Engine,
    ids: Sequence[str],
    *,
    callback: Callable[[float], bool],
    dry_run: bool,
    step: Callable[[], object],
    say: Callable[[str], object],
) -> Counter[Recovered | None]:
    """Compare the records of uploads with their files; return how many became what, None for what is no upload.

    It is idempotent and can run beside live replicas. callback says of the time when an upload was finished (Unix
    seconds) whether its event is sent again. step is called after each, say with a line for each that a person should
    know of. Raises Unavailable.
    """
    found: Counter[Recovered | None] = Counter()
    for upload_id in ids:
        try:
            found[await engine.restore(upload_id, callback=callback, dry_run=dry_run, say=say)] += 1
        except Unavailable:
            raise
        except (ValueError, OSError, Refusal, LeaseLost) as exc:
            say(f"{upload_id}: {exc}")
            found[None] += 1
        step()
    return found


async def keep_swept(engine: Engine, ledger: Ledger, interval_s: float) -> None:
    """Sweep every interval_s, for ever; one replica does it for all."""
    while True:
        if await ledger.take_turn("sweep", interval_s * 0.9) and (swept := await sweep(engine, ledger)):
            log.info("swept %d expired uploads", swept)
        await asyncio.sleep(interval_s)


async def keep_tidy(ledger: Ledger, storage: Storage, interval_s: float) -> None:
    """Tidy every interval_s, for ever; one replica does it for all."""
    while True:
        if await ledger.take_turn("tidy", interval_s * 0.9):
            tidied = await tidy(ledger, storage)
            if tidied.unrecorded and await ledger.take_turn("unrecorded", REPORT_S):
                log.warning(
                    "%d uploads in the folder have no record: `tusd-py recover --dry-run` says what they are, without"
                    " --dry-run it makes their records", tidied.unrecorded,
                )  # fmt: skip
        await asyncio.sleep(interval_s)


async def keep_reserve(storage: Storage, interval_s: float) -> None:
    """Make the reserve again whenever there is room for it, for ever."""
    while True:
        is_kept = await storage.keep_reserve()
        await asyncio.sleep(interval_s if is_kept else RESTART_S)


async def chore(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a chore for ever; what goes wrong in it is logged and does not end the service."""
    while True:
        try:
            await run()
        except (Refusal, OSError) as exc:
            log.warning("%s: %s; again in %.0f s", name, exc, RESTART_S)
        except Exception:
            log.exception("%s failed; again in %.0f s", name, RESTART_S)
        await asyncio.sleep(RESTART_S)
