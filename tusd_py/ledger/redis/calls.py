"""Calls of one Redis: bounded in number, each answered or refused as Unavailable."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from redis.asyncio import RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from ...protocol.refusals import Unavailable
from .connections import TIMEOUT_S, Connections, fits
from .scripts import scripts
from .servers import Client, retry

CONNECTIONS = 64  # commands at a time; callers beyond that wait for their turn
WAIT_S = 1.0  # for the replicas that must have a completing commit

# RuntimeError is uvloop's, of a connection that was closed between two steps.
AWAY = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)

log = logging.getLogger("tusd_py")

T = TypeVar("T")


class Calls:
    """The scripts and the connections that they run on."""

    def __init__(self, client: Client, wait_replicas: int) -> None:
        """wait_replicas must have what a script wrote before its answer counts, where it asks for that."""
        self.scripts = scripts()
        self._client = client
        self._lines: Connections | None = None
        # A Cluster's client has to find the right node for every command; the others need a connection.
        if not isinstance(client, RedisCluster) and fits():
            self._lines = Connections(client.connection_pool, retry())
        self._wait_replicas = wait_replicas
        self._free = asyncio.Semaphore(CONNECTIONS)

    async def close(self) -> None:
        if self._lines:
            await self._lines.close()
        await self._client.aclose()

    async def script(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any], *, wait: bool = False
    ) -> list[Any]:
        """Return the answer of a script; with wait, once the replicas have what it wrote. Raises Unavailable."""
        script, sha1 = self.scripts[name]
        ask = self._ask_and_wait if wait and self._wait_replicas else (self._lines or self._client).execute_command
        try:
            answer: list[Any] = await self.answer(ask("EVALSHA", sha1, len(keys), *keys, *arguments))
        except NoScriptError:  # a new server, a failover, SCRIPT FLUSH; EVAL leaves the script there
            answer = await self.answer(ask("EVAL", script, len(keys), *keys, *arguments))
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

    async def answer(self, answer: Awaitable[T]) -> T:
        """Return the answer of any other command. Raises Unavailable."""
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


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
