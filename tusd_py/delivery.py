"""Completion callbacks: every event in the outbox is posted to every receiver until it says 2xx.

Signed as Standard Webhooks (standardwebhooks.com): webhook-id is the event's stable id, by which a receiver drops
repeats; webhook-signature is v1, HMAC-SHA256 over "id.timestamp.body".
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import httpx

from .ports import OUTBOX, Delivery, Event, Ledger, Outbox, Signal
from .protocol.refusals import Unavailable

AT_ONCE = 16  # callbacks under way in one process
LOOK_AGAIN_S = 2.0  # between looks for events whose retry is due, or whose signal was lost
FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 3600.0
CLAIM_MARGIN_S = 5.0  # beyond the time-outs of all receivers; a worker that died gives its events back after this

log = logging.getLogger("tusd_py")


@dataclass(frozen=True, slots=True)
class Receivers:
    """Who hears of events, and how."""

    urls: tuple[str, ...]
    secret: str  # whsec_ and Base64
    timeout_s: float
    give_up_after_s: float

    @property
    def claim_s(self) -> float:
        return self.timeout_s * len(self.urls) + CLAIM_MARGIN_S


def sign(secret: str, event_id: str, timestamp: int, body: str) -> str:
    """Return the webhook-signature of a body, told at timestamp (Unix seconds)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{event_id}.{timestamp}.{body}".encode(), hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def retry_after(attempt: int, chance: float) -> float:
    """Return the seconds to wait after this attempt (1 is the first): doubling, with half of it by chance (0 to 1).

    2 s, 4 s, ... up to an hour; without the chance all events of an outage would come back in the same second.
    """
    longest = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempt - 1, 30))
    return longest * (0.5 + chance / 2)


async def deliver(ledger: Ledger, outbox: Outbox, receivers: Receivers) -> None:
    """Empty the outbox for ever. Several processes may: an event is claimed by one at a time."""
    wake = asyncio.Event()

    def hear(signal: Signal) -> None:
        if signal is Signal.EVENT:
            wake.set()

    unwatch = ledger.watch(OUTBOX, hear)
    running: set[asyncio.Task[None]] = set()
    try:
        async with httpx.AsyncClient(timeout=receivers.timeout_s) as client:
            while True:
                wake.clear()
                for delivery in await claimed(outbox, receivers, ledger.now, AT_ONCE - len(running)):
                    task = asyncio.create_task(send(outbox, receivers, client, delivery, ledger.now))
                    running.add(task)
                    task.add_done_callback(forget(running, wake))
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await wake.wait()
    finally:
        unwatch()
        for task in running:  # what was not confirmed is told again, by whoever claims it next
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def forget(running: set[asyncio.Task[None]], wake: asyncio.Event) -> "Callable[[asyncio.Task[None]], None]":
    """Return what is done when a delivery has ended: make room, look for the next, and say what went wrong."""

    def done(task: asyncio.Task[None]) -> None:
        running.discard(task)
        wake.set()
        if not task.cancelled() and (failure := task.exception()):
            log.error("a callback could not be settled; it will be told again: %r", failure)

    return done


async def claimed(outbox: Outbox, receivers: Receivers, clock: Callable[[], float], limit: int) -> list[Delivery]:
    """Return up to limit events that are due by the clock (Unix seconds); none while the outbox is away."""
    if limit <= 0:
        return []
    try:
        return await outbox.claim(clock(), receivers.claim_s, limit)
    except Unavailable:
        return []


async def send(
    outbox: Outbox,
    receivers: Receivers,
    client: httpx.AsyncClient,
    delivery: Delivery,
    clock: Callable[[], float],
) -> None:
    """Post one event to the receivers that have not confirmed it, and settle it: confirmed, postponed or buried.

    clock gives Unix seconds; the ledger's, since this machine's may be wrong by days, and events would be given up.
    """
    event = delivery.event
    failures: list[str] = []
    for url in receivers.urls:
        if url not in delivery.confirmed_by:
            failure = await post(client, url, receivers, event, int(clock()))
            if failure is None:
                delivery = replace(delivery, confirmed_by=delivery.confirmed_by | {url})
            else:
                failures.append(f"{url}: {failure}")
    if not failures:
        await outbox.confirm(event)
        return
    reason = "; ".join(failures)
    now = clock()
    if now - event.created_at >= receivers.give_up_after_s:
        log.error("callback %s buried after %d attempts: %s", event.id, delivery.attempt, reason)
        await outbox.bury(delivery, reason)
    else:
        pause_s = retry_after(delivery.attempt, random.random())
        log.warning("callback %s, attempt %d: %s; again in %.0f s", event.id, delivery.attempt, reason, pause_s)
        await outbox.postpone(delivery, now + pause_s, reason)


async def post(client: httpx.AsyncClient, url: str, receivers: Receivers, event: Event, timestamp: int) -> str | None:
    """Post the event to one receiver at timestamp; return None when it said 2xx, otherwise what it said instead."""
    headers = {
        "content-type": "application/json",
        "webhook-id": event.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(receivers.secret, event.id, timestamp, event.body),
    }
    try:
        # Only the status matters: an answer without end is not read.
        async with asyncio.timeout(receivers.timeout_s):  # httpx's own counts each read anew
            async with client.stream("POST", url, content=event.body.encode(), headers=headers) as response:
                return None if response.is_success else f"status {response.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:  # OSError: TimeoutError as well
        return f"{type(exc).__name__}: {exc}"[:200]
