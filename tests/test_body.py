"""The portable body: batches of 1 MiB, two at most, the next one read while the last one is written."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from tusd_py.border.body import BATCH, AsgiBody
from tusd_py.ports import BodyCutShort

pytestmark = pytest.mark.anyio

KIB = 1024
PIECE = 64 * KIB
DISCONNECT = {"type": "http.disconnect"}


class Client:
    """What an ASGI server has of a request."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self.messages: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.received = 0  # bytes
        for n, piece in enumerate(pieces):
            self.send(piece, more=not ends or n < len(pieces) - 1)

    def send(self, piece: bytes, *, more: bool = True) -> None:
        self.messages.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self.messages.get()
        self.received += len(message.get("body", b""))
        return message


class Slow:
    """A sink that takes its time."""

    def __init__(self) -> None:
        self.written: list[int] = []  # bytes of each write
        self.content = b""
        self.lasts: list[bool] = []
        self.go = asyncio.Event()

    async def write(self, pieces: list[bytes], *, last: bool = False) -> None:
        await self.go.wait()
        self.content += b"".join(pieces)
        self.written.append(sum(map(len, pieces)))
        self.lasts.append(last)


@pytest.fixture
def sink() -> Slow:
    return Slow()


async def test_two_batches_are_in_memory_and_no_more(sink: Slow) -> None:
    """While one is written the next one is read; the client has to wait with what comes behind."""
    pieces = [bytes([n]) * PIECE for n in range(80)]
    client = Client(*pieces)
    body = AsgiBody(client.receive, None, 5.0)
    moving = asyncio.create_task(body.move(sink, None))
    await asyncio.sleep(0.2)

    assert 2 * BATCH == client.received

    sink.go.set()

    assert 80 * PIECE == await moving
    assert [BATCH] * 5 == sink.written
    assert [False] * 4 + [True] == sink.lasts
    assert b"".join(pieces) == sink.content
    assert body.ended
    assert not await body.has_more()

    body.close()


async def test_who_asks_does_not_wait_for_a_full_batch(sink: Slow) -> None:
    sink.go.set()
    client = Client(b"abc", ends=False)
    body = AsgiBody(client.receive, None, 5.0)
    moving = asyncio.create_task(body.move(sink, None))
    await asyncio.sleep(0.05)

    assert b"" == sink.content

    await body.hurry()

    assert b"abc" == sink.content

    client.send(b"def", more=False)

    assert 6 == await moving

    await body.hurry()  # nobody moves: nothing to wait for
    body.close()


@pytest.mark.parametrize("is_whole", [True, False])
async def test_who_asks_does_not_wait_for_a_body_whose_write_failed(is_whole: bool) -> None:
    """A full disk, a lost lease: nothing is written any more, and there is nothing to wait for."""

    class Full(Slow):
        async def write(self, pieces: list[bytes], *, last: bool = False) -> None:
            await self.go.wait()
            raise OSError("no room")

    sink = Full()
    client = Client(b"abc", b"def", ends=is_whole)
    body = AsgiBody(client.receive, None, 5.0)
    moving = asyncio.create_task(body.move(sink, None))
    asking = [asyncio.create_task(body.hurry())]
    await asyncio.sleep(0.05)  # the write is under way
    asking.append(asyncio.create_task(body.hurry()))
    await asyncio.sleep(0)
    sink.go.set()
    with pytest.raises(OSError, match="no room"):
        await moving
    await asyncio.wait_for(asyncio.gather(*asking), 2.0)
    await asyncio.wait_for(body.hurry(), 2.0)
    body.close()


async def test_stop_leaves_nothing_that_has_arrived(sink: Slow) -> None:
    sink.go.set()
    body = AsgiBody(Client(b"abc", ends=False).receive, None, 5.0)
    moving = asyncio.create_task(body.move(sink, None))
    await asyncio.sleep(0.05)
    body.stop()

    assert 3 == await moving
    assert b"abc" == sink.content
    assert not body.ended

    body.close()


async def test_stop_ends_it_however_fast_the_client_is(sink: Slow) -> None:
    sink.go.set()

    async def endless() -> MutableMapping[str, Any]:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": bytes(PIECE), "more_body": True}

    body = AsgiBody(endless, None, 5.0)
    moving = asyncio.create_task(body.move(sink, None))
    await asyncio.sleep(0.05)
    body.stop()
    moved = await asyncio.wait_for(moving, 2.0)

    assert moved == len(sink.content)

    body.close()


async def test_a_client_that_goes_away_or_falls_silent_is_cut_short_with_what_it_sent(sink: Slow) -> None:
    sink.go.set()
    client = Client(b"abc", ends=False)
    client.messages.put_nowait(DISCONNECT)
    with pytest.raises(BodyCutShort):
        await AsgiBody(client.receive, None, 5.0).move(sink, None)

    silent = AsgiBody(Client(b"def", ends=False).receive, None, 0.2)
    with pytest.raises(BodyCutShort):
        await silent.move(sink, None)
    silent.close()

    assert b"abcdef" == sink.content


async def test_what_is_behind_the_room_is_seen_and_dropped(sink: Slow) -> None:
    sink.go.set()
    client = Client(b"abcdef", b"ghi", ends=False)
    body = AsgiBody(client.receive, None, 5.0)

    assert 4 == await body.move(sink, 4)
    assert await body.has_more()
    assert b"abcd" == sink.content

    await body.hurry()
    client.send(b"jkl", more=False)

    assert await body.discard(BATCH, 2.0)


async def test_what_does_not_end_is_not_read_for_ever() -> None:
    client = Client(*[bytes(PIECE)] * 100, ends=False)
    body = AsgiBody(client.receive, None, 5.0)

    assert not await body.discard(BATCH, 2.0)
    assert client.received < 4 * BATCH
    assert not await AsgiBody(Client(b"a", ends=False).receive, None, 5.0).discard(BATCH, 0.2)
