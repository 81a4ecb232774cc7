"""Signals between processes: a channel of Redis. One that is lost costs whoever waits a second, nothing else."""

import asyncio
import logging

from redis.asyncio.client import PubSub

from ...ports import Signal
from ..watchers import Watchers
from .calls import AWAY
from .servers import Client

RELISTEN_S = 0.5  # between tries to subscribe again
QUIET_S = 5.0  # without a signal; then the server is asked whether it is there at all

log = logging.getLogger("tusd_py")


async def listen(client: Client, channel: str, watchers: Watchers) -> None:
    """Pass signals on for ever; after every gap wake everybody, for signals were lost in it."""
    while True:
        try:
            await client.initialize()  # of a Cluster: who has which slot
            async with client.pubsub() as pubsub:
                await pubsub.subscribe(channel)
                await hear(pubsub, watchers)
        except (*AWAY, KeyError) as exc:  # KeyError: a slot of a Cluster that nobody has just now
            log.debug("no signals: %s", exc)
        await asyncio.sleep(RELISTEN_S)


async def hear(pubsub: PubSub, watchers: Watchers) -> None:
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
            watchers.tell(upload_id, Signal(signal))
        elif message["type"] == "subscribe":  # also when redis-py has connected anew by itself
            watchers.tell_all_settled()
        asked = message is None
