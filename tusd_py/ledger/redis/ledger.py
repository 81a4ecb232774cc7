"""The ledger in Redis, for any number of replicas: one Lua script a step, on keys that share one slot.

Every key begins with the prefix of --redis-prefix. Shards are for Redis Cluster: {0} is the number of the upload's, and
what is of one shard lies on one master.

    tusd:{0}:identity     hash    the folder that the records are of, the number of shards, the version of the records
    tusd:{0}:upload:<id>  hash    the record and the lease, or the tombstone
    tusd:{0}:expires      zset    upload ids by when they expire or are forgotten
    tusd:{0}:events       stream  the outbox
    tusd:{0}:due          zset    event ids by when they are tried (again)
    tusd:{0}:deliveries   hash    <event id>:entry, :attempt, :told (who confirmed it), :reason
    tusd:{0}:buried       zset    event ids by when they were given up
    tusd:{0}:turn:<name>  string  who does a chore
    tusd:signals          channel "<signal> <upload id>"

No key of a record has a TTL: Redis would drop the record and orphan the bytes.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from zlib import crc32

from redis.asyncio import RedisCluster
from redis.asyncio.client import PubSub
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from ...ports import Delivery, Due, Event, Folder, Held, Sight, Signal, Tombstone, Watcher, WrongLedger
from ...protocol.refusals import Unavailable, UploadLocked
from ...protocol.upload import Upload
from ..binding import SCHEMA, check_schema, folder_for
from ..clock import Clock
from ..watchers import Watchers
from .connections import TIMEOUT_S, Connections
from .rows import CHANGING, MOMENT, delivery_of, event_words, found, kept, tombstone_words, upload_of, words_of
from .scripts import scripts
from .servers import Client, retry

CONNECTIONS = 64  # commands at a time; callers beyond that wait for their turn
RELISTEN_S = 0.5  # between tries to subscribe again
WAIT_S = 1.0  # for the replicas that must have a completing commit
QUIET_S = 5.0  # without a signal; then the server is asked whether it is there at all
SCAN = 1000  # keys looked at in one step of SCAN; a millisecond of the server's time

# RuntimeError is uvloop's, of a connection that was closed between two steps.
AWAY = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)

log = logging.getLogger("tusd_py")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The keys of one shard."""

    identity: str
    records: str  # and the upload id behind it
    expires: str
    outbox: tuple[str, str, str]  # events, due, deliveries
    buried: str
    turns: str  # and the name of a chore behind it

    @classmethod
    def named(cls, prefix: str, number: int) -> "Shard":
        start = f"{prefix}:{{{number}}}:"
        return cls(
            identity=start + "identity",
            records=start + "upload:",
            expires=start + "expires",
            outbox=(start + "events", start + "due", start + "deliveries"),
            buried=start + "buried",
            turns=start + "turn:",
        )


class RedisLedger:
    """ports.Ledger and ports.Outbox in one Redis. open() before use, close() after."""

    def __init__(self, client: Client, *, shards: int = 1, wait_replicas: int = 0, prefix: str = "tusd") -> None:
        """wait_replicas must have a completing commit before it counts; prefix keeps ledgers on one server apart."""
        self._client = client
        # A Cluster's client has to find the right node for every command; the others need a connection.
        self._lines = None if isinstance(client, RedisCluster) else Connections(client.connection_pool, retry())
        self._shards = [Shard.named(prefix, number) for number in range(shards)]
        self._prefix = prefix
        self._channel = f"{prefix}:signals"
        self._wait_replicas = wait_replicas
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._watchers = Watchers()
        self._listening: asyncio.Task[None] | None = None
        self._scripts = scripts()
        self._clock = Clock()
        self._folder: Folder | None = None
        self._bound_to = ""  # the identity of the folder, once ledger and folder were seen to belong together
        self._trouble = ""  # what was logged last of a ledger that belongs to another folder
        self._binding: asyncio.Task[None] | None = None

    async def open(self, folder: Folder) -> None:
        """Start to listen. Redis may be away: requests are refused until it is back."""
        self._folder = folder
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._binding:
            self._binding.cancel()
            await asyncio.gather(self._binding, return_exceptions=True)
        while self._listening and not self._listening.done():
            self._listening.cancel()  # more than once: redis-py swallows one that meets it while it connects
            await asyncio.wait([self._listening], timeout=0.1)
        if self._lines:
            await self._lines.close()
        await self._client.aclose()

    def now(self) -> float:
        return self._clock.now()

    @property
    def is_steady(self) -> bool:
        return self._clock.is_steady

    # Ledger

    async def create(self, upload: Upload, *, token: str = "", ttl_s: float = 0.0, event: Event | None = None) -> None:
        shard = self._shard_of(upload.id)
        answer = await self._run(
            "create",
            [shard.identity, shard.records + upload.id, shard.expires, *shard.outbox],
            [
                *(self._channel, upload.id, token, milliseconds(ttl_s), MOMENT.build(upload.expiry)),
                *(*event_words(event), *words_of(upload)),
            ],
            wait=event is not None,
        )
        if answer[0] == "taken":
            raise UploadLocked(f"The upload {upload.id} is being made by another request; try again in a moment")

    async def acquire(self, upload_id: str, token: str, ttl_s: float) -> Upload | Held:
        arguments = [self._channel, upload_id, token, milliseconds(ttl_s)]
        answer = await self._run("acquire", self._record(upload_id), arguments)
        if answer[0] == "held":
            return Held(remaining_s=int(answer[2]) / 1000)
        return upload_of(upload_id, found(answer, upload_id)[0])

    async def renew(self, upload_id: str, token: str, ttl_s: float) -> Signal | None:
        answer = await self._run("renew", self._record(upload_id), [token, milliseconds(ttl_s)])
        kept(answer, upload_id)
        return Signal(answer[2]) if answer[2] else None

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
            [shard.identity, shard.records + upload.id, shard.expires, *shard.outbox],
            [
                *(self._channel, upload.id, token, milliseconds(ttl_s), int(release), int(take_back)),
                *(upload.offset, MOMENT.build(upload.expiry), *event_words(event), *words_of(upload, CHANGING)),
            ],
            wait=event is not None,
        )
        kept(answer, upload.id)

    async def release(self, upload_id: str, token: str) -> None:
        await self._run("release", self._record(upload_id), [self._channel, upload_id, token])

    async def remove(self, upload_id: str, token: str, tombstone: Tombstone) -> None:
        keys = [*self._record(upload_id), self._shard_of(upload_id).expires]
        arguments = [self._channel, upload_id, token, repr(tombstone.forget_at), *tombstone_words(tombstone)]
        kept(await self._run("remove", keys, arguments), upload_id)

    async def forget(self, upload_id: str) -> None:
        await self._run("forget", [*self._record(upload_id), self._shard_of(upload_id).expires], [upload_id])

    async def inspect(self, upload_id: str, *, ask: bool) -> Sight:
        answer = await self._run("inspect", self._record(upload_id), [self._channel, upload_id, int(ask)])
        words, held = found(answer, upload_id)
        commits = int(words[words.index("commits") + 1])
        return Sight(upload_of(upload_id, words), is_held=held == 1, commits=commits)

    async def due(self, now: float, limit: int) -> Due:
        expired: list[str] = []
        forgettable: list[str] = []
        for shard in self._shards:
            left = limit - len(expired) - len(forgettable)
            answer = await self._run("due", [shard.identity, shard.expires, shard.records], [repr(now), left])
            expired += answer[2]
            forgettable += answer[3]
        return Due(expired=tuple(expired), forgettable=tuple(forgettable))

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
                arguments = [repr(now), repr(claim_s), limit - len(claimed)]
                claimed += (await self._run("claim", [shard.identity, *shard.outbox], arguments))[2]
        return [delivery_of(*one) for one in claimed]

    async def confirm(self, event: Event) -> None:
        shard = self._shard_of(event.upload_id)
        await self._run("confirm", [shard.identity, *shard.outbox], [event.id])

    async def postpone(self, delivery: Delivery, due_at: float, reason: str) -> None:
        await self._settle(delivery, repr(due_at), reason)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        await self._settle(delivery, "", reason)

    async def _settle(self, delivery: Delivery, due_at: str, reason: str) -> None:
        shard = self._shard_of(delivery.event.upload_id)
        confirmed_by = json.dumps(sorted(delivery.confirmed_by))
        arguments = [delivery.event.id, due_at, confirmed_by, reason, repr(self.now())]
        await self._run("postpone", [shard.identity, *shard.outbox[1:], shard.buried], arguments)

    # The folder that the records are of

    async def bind(self) -> None:
        # One look for all who wait for it: while Redis is away each takes seconds.
        if self._binding is None or self._binding.done():
            self._binding = asyncio.create_task(self._bind())
            self._binding.add_done_callback(lambda task: task.cancelled() or task.exception())  # perhaps nobody waits
        await asyncio.shield(self._binding)

    async def _bind(self) -> None:
        identities = [await self._identity(shard) for shard in self._shards]
        known = [one for one in identities if one]
        for one in known:
            check_schema(int(one["schema"]))
            if int(one["shards"]) != len(self._shards):
                raise wrong_shards(int(one["shards"]), len(self._shards))
        assert self._folder
        folder = await folder_for(known[0]["folder"] if known else None, self._folder)
        if not known:
            await self._check_spread()
        for shard, identity in zip(self._shards, identities, strict=True):
            if not identity:
                await self._tie(shard, folder, self._folder)
            elif identity["folder"] != folder:
                raise WrongLedger(f"the ledger belongs to the folders {folder} and {identity['folder']} at once")
        self._bound_to, self._trouble = folder, ""
        shard = self._shards[0]
        answer = await self._evaluated(
            "due", [shard.identity, shard.expires, shard.records], [folder, "0", 0], wait=False
        )
        self._clock.set(int(answer[1]) / 1000)  # every answer has the time; nothing is due at 0

    async def recovered(self) -> None:
        for shard in self._shards:
            await self._asked(self._client.hset(shard.identity, "lost", "0"))

    async def _identity(self, shard: Shard) -> Mapping[str, str]:
        found = await self._asked(self._client.hgetall(shard.identity))
        return {str(name): str(value) for name, value in found.items()}

    async def _tie(self, shard: Shard, identity: str, folder: Folder) -> None:
        """Give a shard that belongs to no folder to this one. Raises WrongLedger when another was faster."""
        # Records without an identity are those of a server of version 1.
        lost = await self._some_record(shard.records) is None and await folder.has_uploads()
        script, _ = self._scripts["bind"]
        arguments = (identity, len(self._shards), SCHEMA, int(lost))
        owner = await self._asked(self._client.eval(script, 1, shard.identity, *arguments))
        if owner != identity:
            raise WrongLedger(f"the ledger belongs to the folder {owner} since a moment ago, this one is {identity}")

    async def _check_spread(self) -> None:
        """Raise WrongLedger when records of version 1 are spread over another number of shards."""
        key = await self._some_record(f"{self._prefix}:{{*}}:upload:")
        if key is not None and not key.startswith(self._shard_of(key.rpartition(":upload:")[2]).records):
            raise wrong_shards(None, len(self._shards))

    async def _some_record(self, start: str) -> str | None:
        """Return the key of any record that begins like this, None if there is none."""

        async def first() -> str | None:
            async for key in self._client.scan_iter(match=start + "*", count=SCAN):
                return str(key)
            return None

        return await self._asked(first())

    # The keys

    def _shard_of(self, upload_id: str) -> Shard:
        return self._shards[crc32(upload_id.encode()) % len(self._shards)]

    def _record(self, upload_id: str) -> list[str]:
        """Return the keys of a step that looks at nothing but one record."""
        shard = self._shard_of(upload_id)
        return [shard.identity, shard.records + upload_id]

    # The connection

    async def _run(self, name: str, keys: Sequence[str], arguments: Sequence[Any], *, wait: bool = False) -> list[Any]:
        """Return what a script answers. Raises Unavailable, also while the ledger is not known to be the folder's."""
        if not self._bound_to:
            await self._bind_again()
        answer = await self._evaluated(name, keys, [self._bound_to, *arguments], wait=wait)
        if answer[0] == "unbound":  # Redis lost everything, or it is another one
            await self._bind_again()
            answer = await self._evaluated(name, keys, [self._bound_to, *arguments], wait=wait)
            if answer[0] == "unbound":
                raise Unavailable("The upload ledger is changing; what was acknowledged is safe, try again")
        self._clock.set(int(answer[1]) / 1000)
        return answer

    async def _bind_again(self) -> None:
        try:
            await self.bind()
        except WrongLedger as exc:
            if str(exc) != self._trouble:  # once, not for every request
                self._trouble = str(exc)
                log.error("%s", exc)
            raise Unavailable("The upload ledger is not the one of the upload folder; try again later") from exc

    async def _evaluated(self, name: str, keys: Sequence[str], arguments: Sequence[Any], *, wait: bool) -> list[Any]:
        script, sha1 = self._scripts[name]
        ask = self._ask_and_wait if wait and self._wait_replicas else (self._lines or self._client).execute_command
        try:
            answer: list[Any] = await self._asked(ask("EVALSHA", sha1, len(keys), *keys, *arguments))
        except NoScriptError:  # a new server, a failover, SCRIPT FLUSH; EVAL leaves the script there
            answer = await self._asked(ask("EVAL", script, len(keys), *keys, *arguments))
        return answer

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


def wrong_shards(recorded: int | None, given: int) -> WrongLedger:
    """Return the refusal of a number of shards that is not the one that the uploads are spread over."""
    right = "another number" if recorded is None else str(recorded)
    return WrongLedger(f"--redis-shards is {given}, the uploads of this ledger are spread over {right}: set it back")


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
