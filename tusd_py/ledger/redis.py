"""The ledger in Redis, for any number of replicas: one Lua script a step, on keys that share one slot.

    tusd:{0}:upload:<id>  hash    the record, the lease, or the tombstone
    tusd:{0}:expires      zset    upload ids by when they expire or are forgotten
    tusd:{0}:events       stream  the outbox
    tusd:{0}:due          zset    event ids by when they are tried (again)
    tusd:{0}:deliveries   hash    <event id>:entry, :attempt, :told, :reason
    tusd:{0}:buried       zset    event ids by when they were given up
    tusd:{0}:turn:<name>  string  who does a chore
    tusd:{0}:signals      channel "<signal> <upload id>"

No key of a record has a TTL: Redis would drop the record and orphan the bytes.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ClusterError, RedisError

from ..ports import Delivery, Event, Held, LeaseLost, Sight, Signal, Watcher
from ..protocol.refusals import Unavailable, UploadGone, UploadNotFound
from ..protocol.upload import Upload
from .watchers import Watchers

TIMEOUT_S = 5.0  # for one answer; a script takes well under a millisecond
CONNECTIONS = 64  # callers beyond that wait for a free one
RETRIES = 3  # with RETRY_CAP_S that is under a second: a request does not hang on a server that is away
RETRY_BASE_S, RETRY_CAP_S = 0.05, 0.5
RELISTEN_S = 0.5  # between tries to subscribe again

log = logging.getLogger("tusd_py")

T = TypeVar("T")


class RedisLedger:
    """ports.Ledger and ports.Outbox in one Redis. open() before use, close() after."""

    def __init__(self, client: "redis.asyncio.Redis", shard: str = "0") -> None:
        self._client = client
        prefix = f"tusd:{{{shard}}}:"
        self._records = prefix + "upload:"
        self._expires = prefix + "expires"
        self._outbox = [prefix + "events", prefix + "due", prefix + "deliveries"]
        self._buried = prefix + "buried"
        self._turns = prefix + "turn:"
        self._channel = prefix + "signals"
        self._watchers = Watchers()
        self._listening: asyncio.Task[None] | None = None
        scripts = files(__package__).joinpath("lua")
        prelude = scripts.joinpath("prelude.lua").read_text()
        self._scripts = {
            script.name.removesuffix(".lua"): client.register_script(prelude + script.read_text())
            for script in scripts.iterdir()
            if script.name != "prelude.lua"
        }

    async def open(self) -> None:
        """Start to listen. Redis may be away: requests are refused until it is back."""
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self._client.aclose()

    # Ledger

    async def create(self, upload: Upload, *, token: str = "", ttl_s: float = 0.0, event: Event | None = None) -> None:
        await self._run(
            "create",
            [self._records + upload.id, self._expires, *self._outbox],
            [
                *(self._channel, upload.id, text_of(upload.length), upload.offset, upload.metadata),
                *(repr(upload.created_at), expiry_of(upload), token, milliseconds(ttl_s)),
                *texts_of(event),
                upload.concat,
            ],
        )

    async def acquire(self, upload_id: str, token: str, ttl_s: float) -> Upload | Held:
        answer = await self._run(
            "acquire", [self._records + upload_id], [self._channel, upload_id, token, milliseconds(ttl_s)]
        )
        if answer[0] == "held":
            return Held(remaining_s=int(answer[1]) / 1000)
        return upload_of(upload_id, found(answer, upload_id))

    async def renew(self, upload_id: str, token: str, ttl_s: float) -> Signal | None:
        wish = kept(await self._run("renew", [self._records + upload_id], [token, milliseconds(ttl_s)]), upload_id)
        return Signal(wish) if wish else None

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
        answer = await self._run(
            "commit",
            [self._records + upload.id, self._expires, *self._outbox],
            [
                *(self._channel, upload.id, token, milliseconds(ttl_s)),
                *(text_of(upload.length), upload.offset, expiry_of(upload), int(release)),
                *(*texts_of(event), int(take_back)),
            ],
        )
        kept(answer, upload.id)

    async def release(self, upload_id: str, token: str) -> None:
        await self._run("release", [self._records + upload_id], [self._channel, upload_id, token])

    async def remove(self, upload_id: str, token: str, reason: str, forget_at: float) -> None:
        keys = [self._records + upload_id, self._expires]
        kept(await self._run("remove", keys, [self._channel, upload_id, token, reason, repr(forget_at)]), upload_id)

    async def inspect(self, upload_id: str, *, ask: bool) -> Sight:
        answer = await self._run("inspect", [self._records + upload_id], [self._channel, upload_id, int(ask)])
        fields = found(answer, upload_id)
        return Sight(upload_of(upload_id, fields), is_held=answer[2] == 1, commits=int(fields[6]))

    async def expired(self, now: float, limit: int) -> list[str]:
        ids: list[str] = await self._run("expired", [self._expires, self._records], [repr(now), limit])
        return ids

    async def take_turn(self, name: str, ttl_s: float) -> bool:
        taken = self._client.set(self._turns + name, "1", nx=True, px=milliseconds(ttl_s))
        return bool(await self._asked(taken))

    def watch(self, upload_id: str, watcher: Watcher) -> Callable[[], None]:
        return self._watchers.add(upload_id, watcher)

    async def ping(self) -> None:
        await self._asked(self._client.ping())

    # Outbox

    async def claim(self, now: float, claim_s: float, limit: int) -> list[Delivery]:
        claimed = await self._run("claim", self._outbox, [repr(now), repr(claim_s), limit])
        return [delivery_of(*one) for one in claimed]

    async def confirm(self, event_id: str) -> None:
        await self._run("confirm", self._outbox, [event_id])

    async def postpone(self, delivery: Delivery, due_at: float, reason: str) -> None:
        await self._settle(delivery, repr(due_at), reason)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        await self._settle(delivery, "", reason)

    async def _settle(self, delivery: Delivery, due_at: str, reason: str) -> None:
        arguments = [delivery.event.id, due_at, json.dumps(sorted(delivery.told)), reason, repr(time.time())]
        await self._run("postpone", [*self._outbox[1:], self._buried], arguments)

    # The connection

    async def _run(self, name: str, keys: list[str], arguments: list[Any]) -> Any:
        return await self._asked(self._scripts[name](keys=keys, args=arguments))

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (RedisError, ClusterError, OSError, TimeoutError) as exc:
            log.warning("Redis does not answer: %s: %s", type(exc).__name__, exc)
            raise Unavailable(
                "The upload ledger is away for a moment; what was acknowledged is safe, try again"
            ) from exc

    async def _listen(self) -> None:
        """Pass signals on for ever; after every gap wake everybody, for signals were lost in it."""
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(self._channel)
                    self._watchers.tell_all_settled()
                    while True:
                        # A timeout of its own: a channel may be silent for longer than any answer may take.
                        message = await pubsub.get_message(timeout=60.0)
                        if message:
                            signal, _, upload_id = message["data"].partition(" ")
                            self._watchers.tell(upload_id, Signal(signal))
            except (RedisError, OSError, TimeoutError) as exc:
                log.debug("no signals: %s", exc)
            await asyncio.sleep(RELISTEN_S)


def connect(url: str) -> "redis.asyncio.Redis":
    """Return a client for redis://, rediss:// or unix:// that retries over a short failover.

    Resending is safe: every script gives the same result when it runs twice. Raises ValueError for another URL.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        protocol=2,  # the shapes of answers depend on it
        decode_responses=True,
        retry=Retry(ExponentialBackoff(cap=RETRY_CAP_S, base=RETRY_BASE_S), RETRIES),
    )
    return redis.asyncio.Redis.from_pool(pool)


def text_of(number: int | None) -> str:
    return "" if number is None else str(number)


def number_of(text: str) -> int | None:
    return int(text) if text else None


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def expiry_of(upload: Upload) -> str:
    """Return when the upload expires, in Unix seconds; '' for never."""
    return "" if upload.expiry is None else repr(upload.expiry)


def texts_of(event: Event | None) -> list[str]:
    """Return an event as create.lua and commit.lua take it."""
    return ["", "", "", ""] if event is None else [event.id, event.kind, event.body, repr(event.created_at)]


def upload_of(upload_id: str, fields: list[str]) -> Upload:
    """Return the upload that fields() of prelude.lua tells."""
    length, offset, metadata, created_at, expires_at, concat = fields[:6]
    expires = float(expires_at) if expires_at else None
    return Upload(upload_id, number_of(length), int(offset), metadata, float(created_at), expires, concat)


def delivery_of(attempt: int, told: str, entry: list[str]) -> Delivery:
    """Return the claimed event that claim.lua tells."""
    fields = dict(zip(entry[::2], entry[1::2], strict=True))
    created_at = float(fields["created_at"])
    event = Event(fields["id"], fields["kind"], fields["upload_id"], fields["body"], created_at)
    return Delivery(event, attempt, frozenset(json.loads(told)))


def found(answer: list[Any], upload_id: str) -> list[str]:
    """Return the fields of a living upload. Raises UploadNotFound or UploadGone."""
    if answer[0] == "none":
        raise UploadNotFound(f"There is no upload {upload_id}; start a new upload")
    if answer[0] == "gone":
        raise UploadGone(f"The upload {upload_id} was {answer[1]}; start a new upload")
    fields: list[str] = answer[1]
    return fields


def kept(answer: list[Any], upload_id: str) -> str:
    """Return what a step under the lease tells. Raises LeaseLost."""
    if answer[0] == "lost":
        raise LeaseLost(f"the lease on {upload_id} went to somebody else")
    return answer[1] if len(answer) > 1 else ""
