"""Connections to one Redis, for short commands in great number.

redis-py's execute_command() checks the pool, counts, times, packs in Python and starts a task to write, around every
command; that is more than half of the processor's time that a script costs us. Its connections alone know all that
matters: how to find and greet a server, how to break and come back. They are redis-py's internals: with a version for
which nobody has looked whether they still fit, the client's own execute_command() does the work.
"""

import asyncio
import functools
import logging
import re
from typing import TYPE_CHECKING, Any

import redis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

REDIS_PY = ((8, 1), (8, 2))  # from, and below: the versions whose internals are known to fit; tests/test_redis_py.py
TIMEOUT_S = 3.0  # for one answer; a script takes well under a millisecond

log = logging.getLogger("tusd_py")


@functools.cache
def fits() -> bool:
    """Return whether this redis-py is one whose internals are known to fit; log once that it is not."""
    version = tuple(map(int, re.findall(r"\d+", redis.__version__)[:2]))
    if REDIS_PY[0] <= version < REDIS_PY[1]:
        return True
    known = " and below ".join(f"{major}.{minor}" for major, minor in REDIS_PY)
    log.warning("redis-py is %s: commands take its own, slower way; the fast one needs %s", redis.__version__, known)
    return False


class Connections:
    """Connections of a pool, each for one command at a time; as many as there are commands at once."""

    def __init__(self, pool: ConnectionPool, retry: Retry) -> None:
        """retry says when a command is sent again; connecting counts as a part of sending."""
        self._pool = packing(pool)
        self._retry = retry
        self._idle: list[AbstractConnection] = []  # the last one used is the first one used again

    async def execute_command(self, *command: Any) -> Any:
        """Return the answer to a command. Raises what redis-py raises, and TimeoutError."""
        connection = self._idle.pop() if self._idle else self._made()
        try:
            return await self._retry.call_with_retry(
                lambda: ask(connection, command), lambda error: connection.disconnect(nowait=True)
            )
        finally:
            self._idle.append(connection)

    async def close(self) -> None:
        """Close those that no command uses."""
        while self._idle:
            await self._idle.pop().disconnect()

    def _made(self) -> "AbstractConnection":
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        connection.socket_timeout = None  # ask() has one for all
        connection.retry = Retry(NoBackoff(), 0)
        return connection


async def ask(connection: "AbstractConnection", command: tuple[Any, ...]) -> Any:
    """Send a command, over a new connection if this one is broken, and return the answer.

    Cancelled, or out of time, it breaks the connection: an answer that comes later would be taken for the next one's.
    """
    async with asyncio.timeout(TIMEOUT_S):
        if not connection.is_connected:
            # It asks Sentinels for the master; send_command() would not.
            await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command(*command)
        return await connection.read_response()


def packing(pool: ConnectionPool) -> ConnectionPool:
    """Return the pool, with connections that let hiredis pack commands, as redis-py's blocking client does."""
    from redis.connection import HiredisRespSerializer  # where it is in the versions that fit

    pack = HiredisRespSerializer().pack
    own = {"pack_command": lambda self, *command: pack(*command)}
    pool.connection_class = type("PackingConnection", (pool.connection_class,), own)
    return pool
