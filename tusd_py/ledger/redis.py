"""The ledger in Redis, for any number of replicas: one Lua script a step, on keys that share one slot.

Shards are for Redis Cluster: {0} is the number of the upload's, and what is of one shard lies on one master.

    tusd:{0}:upload:<id>  hash    the record, the lease, or the tombstone
    tusd:{0}:expires      zset    upload ids by when they expire or are forgotten
    tusd:{0}:events       stream  the outbox
    tusd:{0}:due          zset    event ids by when they are tried (again)
    tusd:{0}:deliveries   hash    <event id>:entry, :attempt, :told, :reason
    tusd:{0}:buried       zset    event ids by when they were given up
    tusd:{0}:turn:<name>  string  who does a chore
    tusd:signals          channel "<signal> <upload id>"

No key of a record has a TTL: Redis would drop the record and orphan the bytes.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from zlib import crc32

from redis.asyncio import RedisCluster
from redis.asyncio.client import PubSub
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from ..ports import Delivery, Event, Held, Sight, Signal, Watcher
from ..protocol.refusals import Unavailable
from ..protocol.upload import Upload
from .connections import TIMEOUT_S, Connections
from .scripts import (
    delivery_of,
    expiry_of,
    found,
    kept,
    milliseconds,
    scripts,
    text_of,
    texts_of,
    upload_of,
)
from .servers import Client, retry
from .watchers import Watchers

CONNECTIONS = 64  # commands at a time; callers beyond that wait for their turn
RELISTEN_S = 0.5  # between tries to subscribe again
WAIT_S = 1.0  # for the replicas that must have a completing commit
QUIET_S = 5.0  # without a signal; then the server is asked whether it is there at all

# RuntimeError is uvloop's, of a connection that was closed between two steps.
AWAY = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)

log = logging.getLogger("tusd_py")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shard:
    """The keys of one shard."""

    records: str  # and the upload id behind it
    expires: str
    outbox: tuple[str, str, str]  # events, due, deliveries
    buried: str
    turns: str  # and the name of a chore behind it

    @classmethod
    def named(cls, name: str) -> "Shard":
        prefix = f"tusd:{{{name}}}:"
        return cls(
            prefix + "upload:",
            prefix + "expires",
            (prefix + "events", prefix + "due", prefix + "deliveries"),
            prefix + "buried",
            prefix + "turn:",
        )


class RedisLedger:
    """ports.Ledger and ports.Outbox in one Redis. open() before use, close() after."""

    def __init__(self, client: Client, *, shards: int = 1, wait_replicas: int = 0, name: str = "") -> None:
        """wait_replicas must have a completing commit before it counts; name keeps ledgers on one server apart."""
        self._client = client
        # A Cluster's client has to find the right node for every command; the others need a connection.
        self._lines = None if isinstance(client, RedisCluster) else Connections(client.connection_pool, retry())
        self._shards = [Shard.named(f"{name}{number}") for number in range(shards)]
        self._channel = f"tusd:{name}signals"
        self._wait_replicas = wait_replicas
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._watchers = Watchers()
        self._listening: asyncio.Task[None] | None = None
        self._scripts = scripts()

    async def open(self) -> None:
        """Start to listen. Redis may be away: requests are refused until it is back."""
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        while self._listening and not self._listening.done():
            self._listening.cancel()  # more than once: redis-py swallows one that meets it while it connects
            await asyncio.wait([self._listening], timeout=0.1)
        if self._lines:
            await self._lines.close()
        await self._client.aclose()

    # Ledger

    async def create(self, upload: Upload, *, token: str = "", ttl_s: float = 0.0, event: Event | None = None) -> None:
        shard = self._shard_of(upload.id)
        await self._run(
            "create",
            [shard.records + upload.id, shard.expires, *shard.outbox],
            [
                *(self._channel, upload.id, text_of(upload.length), upload.offset, upload.metadata),
                *(repr(upload.created_at), expiry_of(upload), token, milliseconds(ttl_s)),
                *texts_of(event),
                upload.concat,
            ],
            wait=event is not None,
        )

    async def acquire(self, upload_id: str, token: str, ttl_s: float) -> Upload | Held:
        answer = await self._run(
            "acquire", [self._record(upload_id)], [self._channel, upload_id, token, milliseconds(ttl_s)]
        )
        if answer[0] == "held":
            return Held(remaining_s=int(answer[1]) / 1000)
        return upload_of(upload_id, found(answer, upload_id))

    async def renew(self, upload_id: str, token: str, ttl_s: float) -> Signal | None:
        answer = await self._run("renew", [self._record(upload_id)], [token, milliseconds(ttl_s)])
        wish = kept(answer, upload_id)
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
        shard = self._shard_of(upload.id)
        answer = await self._run(
            "commit",
            [shard.records + upload.id, shard.expires, *shard.outbox],
            [
                *(self._channel, upload.id, token, milliseconds(ttl_s)),
                *(text_of(upload.length), upload.offset, expiry_of(upload), int(release)),
                *(*texts_of(event), int(take_back)),
            ],
            wait=event is not None,
        )
        kept(answer, upload.id)

    async def release(self, upload_id: str, token: str) -> None:
        await self._run("release", [self._record(upload_id)], [self._channel, upload_id, token])

    async def remove(self, upload_id: str, token: str, reason: str, forget_at: float) -> None:
        keys = [self._record(upload_id), self._shard_of(upload_id).expires]
        kept(await self._run("remove", keys, [self._channel, upload_id, token, reason, repr(forget_at)]), upload_id)

    async def inspect(self, upload_id: str, *, ask: bool) -> Sight:
        answer = await self._run("inspect", [self._record(upload_id)], [self._channel, upload_id, int(ask)])
        fields = found(answer, upload_id)
        return Sight(upload_of(upload_id, fields), is_held=answer[2] == 1, commits=int(fields[6]))

    async def expired(self, now: float, limit: int) -> list[str]:
        ids: list[str] = []
        for shard in self._shards:
            ids += await self._run("expired", [shard.expires, shard.records], [repr(now), limit - len(ids)])
        return ids

    async def take_turn(self, name: str, ttl_s: float) -> bool:
        taken = self._client.set(self._shards[0].turns + name, "1", nx=True, px=milliseconds(ttl_s))
        return bool(await self._asked(taken))

    def watch(self, upload_id: str, watcher: Watcher) -> Callable[[], None]:
        return self._watchers.add(upload_id, watcher)

    async def ping(self) -> None:
        await self._asked(self._client.ping())

    # Outbox

    async def claim(self, now: float, claim_s: float, limit: int) -> list[Delivery]:
        claimed: list[Any] = []
        for shard in self._shards:
            if len(claimed) < limit:
                claimed += await self._run("claim", shard.outbox, [repr(now), repr(claim_s), limit - len(claimed)])
        return [delivery_of(*one) for one in claimed]

    async def confirm(self, event: Event) -> None:
        await self._run("confirm", self._shard_of(event.upload_id).outbox, [event.id])

    async def postpone(self, delivery: Delivery, due_at: float, reason: str) -> None:
        await self._settle(delivery, repr(due_at), reason)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        await self._settle(delivery, "", reason)

    async def _settle(self, delivery: Delivery, due_at: str, reason: str) -> None:
        shard = self._shard_of(delivery.event.upload_id)
        arguments = [delivery.event.id, due_at, json.dumps(sorted(delivery.told)), reason, repr(time.time())]
        await self._run("postpone", [*shard.outbox[1:], shard.buried], arguments)

    # The keys

    def _shard_of(self, upload_id: str) -> Shard:
        return self._shards[crc32(upload_id.encode()) % len(self._shards)]

    def _record(self, upload_id: str) -> str:
        return self._shard_of(upload_id).records + upload_id

    # The connection

    async def _run(self, name: str, keys: Sequence[str], arguments: Sequence[Any], *, wait: bool = False) -> Any:
        script, sha1 = self._scripts[name]
        ask = self._ask_and_wait if wait and self._wait_replicas else (self._lines or self._client).execute_command
        try:
            return await self._asked(ask("EVALSHA", sha1, len(keys), *keys, *arguments))
        except NoScriptError:  # a new server, a failover, SCRIPT FLUSH; EVAL leaves the script there
            return await self._asked(ask("EVAL", script, len(keys), *keys, *arguments))

    async def _ask_and_wait(self, command: str, script: str, count: int, key: str, *rest: Any) -> Any:
        """Run a script and return its answer once wait_replicas have what it wrote. Raises TimeoutError."""
        at = {}
        if isinstance(self._client, RedisCluster):
            at["target_nodes"] = self._client.get_node_from_key(key)
        async with self._client.pipeline(transaction=False) as pipe:  # WAIT looks at its own connection's writes
            pipe.execute_command(command, script, count, key, *rest)
            # Flushed by master and replicas. An error where there is no append-only file, and before Redis 7.2.
            pipe.execute_command("WAITAOF", 1, self._wait_replicas, milliseconds(WAIT_S), **at)
            pipe.execute_command("WAIT", self._wait_replicas, milliseconds(WAIT_S), **at)
            answer, flushed, received = await pipe.execute(raise_on_error=False)
        if isinstance(answer, Exception):
            raise answer
        replicas = received if isinstance(flushed, Exception) else flushed[1]
        if isinstance(replicas, Exception):
            raise replicas
        if replicas < self._wait_replicas:
            raise TimeoutError(f"{replicas} of {self._wait_replicas} replicas have it after {WAIT_S} s")
        return answer

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            if self._free.locked():
                async with asyncio.timeout(TIMEOUT_S):
                    await self._free.acquire()
            else:
                await self._free.acquire()
            try:
                return await answer
            finally:
                self._free.release()
        except NoScriptError:
            raise
        except AWAY as exc:
            log.warning("Redis does not answer: %s: %s", type(exc).__name__, exc)
            raise Unavailable(
                "The upload ledger is away for a moment; what was acknowledged is safe, try again"
            ) from exc

    async def _listen(self) -> None:
        """Pass signals on for ever; after every gap wake everybody, for signals were lost in it."""
        while True:
            try:
                await self._client.initialize()  # of a Cluster: who has which slot
                async with self._client.pubsub() as pubsub:
                    await pubsub.subscribe(self._channel)
                    await self._hear(pubsub)
            except (*AWAY, KeyError) as exc:  # KeyError: a slot of a Cluster that nobody has just now
                log.debug("no signals: %s", exc)
            await asyncio.sleep(RELISTEN_S)

    async def _hear(self, pubsub: PubSub) -> None:
        """Pass signals on until the connection breaks. Raises TimeoutError when a frozen server holds it open."""
        asked = False
        while True:
            message = await pubsub.get_message(timeout=QUIET_S)
            if message is None:
                if asked:
                    raise TimeoutError("the server is silent")
                await pubsub.ping()
            elif message["type"] == "message":
                signal, _, upload_id = message["data"].partition(" ")
                self._watchers.tell(upload_id, Signal(signal))
            elif message["type"] == "subscribe":  # also when redis-py has connected anew by itself
                self._watchers.tell_all_settled()
            asked = message is None
