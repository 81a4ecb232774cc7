"""An HTTP protocol for uvicorn, with a request body that the kernel can carry from the socket to the file.

Bytes of a PATCH need not pass Python: splice(2) moves them socket -> pipe -> file, more than twice as fast as reading
and writing them, at a third of the processor's time (benchmarks/). `tusd-py serve` uses it; with uvicorn's own command
line it is `uvicorn --http tusd_py.server:KernelProtocol`. Everything works without it too, through the ASGI stream.
"""

import asyncio
import logging
import os
import re
import select
import socket
import time

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl

from ..ports import BodyCutShort, KernelSink, Sink
from .body import AsgiBody, Receive, offer
from .http1 import Http1Protocol, content_length
from .pump import CAN_SPLICE, Pump, set_low_water
from .receiving import Receiving

UVICORN = ((0, 50), (0, 55))  # from, and below: the versions whose internals are known to fit; tests/test_kernel.py
LEAST = 64 * 1024  # bytes; a smaller body comes with its headers or right behind, and is not worth a pipe
FIRST_REQUEST_S = 1.0  # from a connection to its first request, at the end of the server; a proxy takes milliseconds
LOOK_S = 5.0  # how often fewer bytes than the low-water mark are looked for, unless somebody asks how far the upload is

log = logging.getLogger("tusd_py")

version = tuple(map(int, re.findall(r"\d+", uvicorn.__version__)[:2]))
FITS = CAN_SPLICE and UVICORN[0] <= version < UVICORN[1]
if not FITS:
    log.warning("bodies go through Python: splice needs Linux and uvicorn from %d.%d, below %d.%d", *sum(UVICORN, ()))


class Connection:
    """body.Carrier: what a request may do with its connection beyond ASGI."""

    def __init__(self, protocol: "KernelProtocol", length: int) -> None:
        self.length = length  # bytes of the body
        self.parsed = 0  # bytes of the body that came out of the parser
        self._protocol = protocol
        self._cycle = protocol.cycle

    def body(self, receive: Receive, length: int | None, read_timeout_s: float) -> AsgiBody:
        """Return the body of the request."""
        return KernelBody(self, receive, length, read_timeout_s)

    @property
    def is_lost(self) -> bool:
        """Whether the transport has let the socket go; it has read what there was."""
        return self._protocol.transport.is_closing()

    def is_whole(self) -> bool:
        """Return whether all that was read of the body is still here: a middleware may have received some."""
        return self.parsed == len(self._cycle.body) and (self._cycle.more_body or self.parsed == self.length)

    def arrived(self) -> bytes:
        """Stop the transport, return what it read behind the headers, and tell a client that waits to go on."""
        cycle = self._cycle
        self._protocol.flow.hold()
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = bytes(cycle.body)
        cycle.body.clear()
        return data

    def socket(self) -> socket.socket:
        """Return the connection to read from, to be closed by the caller. Raises BodyCutShort when it is lost.

        A duplicate: the event loop does not let two parties watch one descriptor.
        """
        if self._cycle.disconnected:
            raise BodyCutShort
        return socket.socket(fileno=os.dup(self._protocol.transport.get_extra_info("socket").fileno()))

    def release(self) -> None:
        """Let the transport read again; a pipelined request, or whoever receives, resumes it."""
        self._protocol.flow.held = False

    def ended(self) -> None:
        """The body was read to its end past the parser: the next request gets a fresh one."""
        if self._cycle.more_body:  # otherwise all of it came with the headers, and the parser may be further already
            self._protocol.start_afresh()
            self._cycle.more_body = False
            self._cycle.message_event.set()


class KernelProtocol(Http1Protocol):
    """Stops reading at the headers of a body that the kernel can carry."""

    connection: Connection | None = None
    flow: "Flow"
    receiving: Receiving | None = None  # of the last request
    _is_leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self.flow = Flow(transport)

    def on_request(self) -> None:
        if self._is_leaving:
            self.cycle.keep_alive = False
        self.connection = None
        self.receiving = Receiving(self.cycle)
        self.cycle.receive = self.receiving  # type: ignore[method-assign]  # looked up when its task begins
        length = content_length(self.headers)
        if FITS and length and self.scheme == "http":  # over TLS the socket has other bytes
            self.connection = Connection(self, length)
            offer(self.scope["extensions"], self.connection)
            if length >= LEAST:
                self.flow.pause_reading()  # ASGI's receive() resumes it, if the application goes that way

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.connection:
            self.connection.parsed += len(body)

    def shutdown(self) -> None:
        """Serve the request that whoever has just connected is about to send, but no further one."""
        if self.cycle is not None:
            super().shutdown()
            return
        self._is_leaving = True
        self.loop.call_later(FIRST_REQUEST_S, self._close_unused)

    def _close_unused(self) -> None:
        if self.cycle is not None or self.transport.is_closing():
            return
        # On a busy machine the request may be there, and nobody has had the time to read it.
        unread = select.poll()
        unread.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        if unread.poll(0):
            self.loop.call_later(FIRST_REQUEST_S, self._close_unused)
        else:
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio: true keeps the connection
        """Keep the connection of a half-closed client until its last request is answered."""
        if self.cycle is None or self.cycle.response_complete or self.scheme == "https":  # TLS has no half-close
            return False
        self.cycle.keep_alive = False
        if self.receiving:
            self.receiving.half_close()
        return True


class Flow(FlowControl):
    """Keeps the transport from reading while the kernel carries a body past it, whoever calls receive()."""

    held = False

    def hold(self) -> None:
        self.pause_reading()
        self.held = True

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class KernelBody(AsgiBody):
    """ports.Body that the kernel carries where the sink is a file, and the ASGI stream where it is not."""

    def __init__(self, connection: Connection, receive: Receive, length: int | None, read_timeout_s: float) -> None:
        super().__init__(receive, length, read_timeout_s)
        self._connection = connection
        self._splicing = False
        self._waiting: asyncio.Future[None] | None = None  # for the socket
        self._looked = asyncio.Event()  # at the socket, since hurry() was called

    async def move(self, sink: Sink, at_most: int | None) -> int:
        can_be_carried = self._connection.is_whole() and not self._connection.is_lost
        if not isinstance(sink, KernelSink) or self._connection.length < LEAST or not can_be_carried:
            return await super().move(sink, at_most)
        length = self._connection.length if at_most is None else min(at_most, self._connection.length)
        self.carried_by = "kernel"
        with self._connection.socket() as sock:
            moved = await self._splice(sock, sink, self._connection.arrived(), length)
        if moved == self._connection.length:
            self.ended = True
            self._connection.ended()
        return moved

    def begin(self) -> None:
        pass  # the bytes wait in the socket, and KernelProtocol keeps what was read

    def stop(self) -> None:
        super().stop()
        self._wake()

    async def hurry(self) -> None:
        await super().hurry()  # of a small body
        if self._splicing:
            self._looked.clear()
            self._wake()
            await self._looked.wait()  # for a turn that is under way, too: a disk that hangs is no silent client

    async def _splice(self, sock: socket.socket, sink: KernelSink, arrived: bytes, length: int) -> int:
        """Move length bytes into the file, those that have arrived and the rest from the socket; return how many.

        They are fewer when stop() is called. Raises BodyCutShort.
        """
        pump = Pump(sock, arrived, length)
        self._splicing = True
        try:
            while pump.left:
                moved = await sink.pull(pump.run)
                self.moved += moved
                if moved:
                    self.received_at = time.monotonic()
                self._looked.set()
                if pump.failure:  # what was moved before counts; the next turn raises it
                    continue
                if pump.ended:
                    raise BodyCutShort
                if self._stopped:  # what had arrived by then is in
                    break
                if pump.left:
                    await self._readable(sock)
        finally:
            self._splicing = False
            self._looked.set()
            self._connection.release()
            set_low_water(sock, 1)  # the next request may be shorter
        return length - pump.left

    async def _readable(self, sock: socket.socket) -> None:
        """Wait until there is much to read, LOOK_S is over, or somebody cannot wait.

        Raises BodyCutShort when nothing came for the read time-out.
        """
        left_s = self.received_at + self._read_timeout_s - time.monotonic()
        if left_s <= 0:
            raise BodyCutShort
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(min(LOOK_S, left_s), self._wake)
        loop.add_reader(sock.fileno(), self._wake)
        try:
            await self._waiting
        finally:
            loop.remove_reader(sock.fileno())
            timer.cancel()
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(None)
