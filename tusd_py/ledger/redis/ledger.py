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
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

from ...ports import Delivery, Due, Event, Folder, Held, Sight, Signal, Tombstone, Watcher, WrongLedger
from ...protocol.refusals import Unavailable, UploadLocked
from ...protocol.upload import Upload
from ..binding import SCHEMA, check_schema, folder_for
from ..clock import Clock
from ..watchers import Watchers
from .calls import Calls, milliseconds
from .keys import Shard
from .rows import CHANGING, MOMENT, delivery_of, event_words, found, kept, tombstone_words, upload_of, words_of
from .servers import Client
from .signals import listen

SCAN = 1000  # keys looked at in one step of SCAN; a millisecond of the server's time

log = logging.getLogger("tusd_py")


class RedisLedger:
    """ports.Ledger and ports.Outbox in one Redis. open() before use, close() after."""

    def __init__(self, client: Client, *, shards: int = 1, wait_replicas: int = 0, prefix: str = "tusd") -> None:
        """wait_replicas must have a completing commit before it counts; prefix keeps ledgers on one server apart."""
        self._client = client
        self._calls = Calls(client, wait_replicas)
        self._shards = [Shard.named(prefix, number) for number in range(shards)]
        self._prefix = prefix
        self._channel = f"{prefix}:signals"
        self._watchers = Watchers()
        self._listening: asyncio.Task[None] | None = None
        self._clock = Clock()
        self._folder: Folder | None = None
        self._bound_to = ""  # the identity of the folder, once ledger and folder were seen to belong together
        self._trouble = ""  # what was logged last of a ledger that belongs to another folder
        self._binding: asyncio.Task[None] | None = None

    async def open(self, folder: Folder) -> None:
        """Start to listen. Redis may be away: requests are refused until it is back."""
        self._folder = folder
        self._listening = asyncio.create_task(listen(self._client, self._channel, self._watchers))

    async def close(self) -> None:
        if self._binding:
            self._binding.cancel()
            await asyncio.gather(self._binding, return_exceptions=True)
        while self._listening and not self._listening.done():
            self._listening.cancel()  # more than once: redis-py swallows one that meets it while it connects
            await asyncio.wait([self._listening], timeout=0.1)
        await self._calls.close()

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
        return bool(await self._calls.answer(taken))

    def watch(self, upload_id: str, watcher: Watcher) -> Callable[[], None]:
        return self._watchers.add(upload_id, watcher)

    async def ping(self) -> None:
        await self._calls.answer(self._client.ping())

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
        answer = await self._calls.script(
            "due", [shard.identity, shard.expires, shard.records], [folder, "0", 0], wait=False
        )
        self._clock.set(int(answer[1]) / 1000)  # every answer has the time; nothing is due at 0

    async def recovered(self) -> None:
        for shard in self._shards:
            await self._calls.answer(self._client.hset(shard.identity, "lost", "0"))

    async def _identity(self, shard: Shard) -> Mapping[str, str]:
        found = await self._calls.answer(self._client.hgetall(shard.identity))
        return {str(name): str(value) for name, value in found.items()}

    async def _tie(self, shard: Shard, identity: str, folder: Folder) -> None:
        """Give a shard that belongs to no folder to this one. Raises WrongLedger when another was faster."""
        # Records without an identity are those of a server of version 1.
        lost = await self._some_record(shard.records) is None and await folder.has_uploads()
        script, _ = self._calls.scripts["bind"]
        arguments = (identity, len(self._shards), SCHEMA, int(lost))
        owner = await self._calls.answer(self._client.eval(script, 1, shard.identity, *arguments))
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

        return await self._calls.answer(first())

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
        answer = await self._calls.script(name, keys, [self._bound_to, *arguments], wait=wait)
        if answer[0] == "unbound":  # Redis lost everything, or it is another one
            await self._bind_again()
            answer = await self._calls.script(name, keys, [self._bound_to, *arguments], wait=wait)
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


def wrong_shards(recorded: int | None, given: int) -> WrongLedger:
    """Return the refusal of a number of shards that is not the one that the uploads are spread over."""
    right = "another number" if recorded is None else str(recorded)
    return WrongLedger(f"--redis-shards is {given}, the uploads of this ledger are spread over {right}: set it back")
