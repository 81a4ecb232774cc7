"""ASGI's receive() for a request under uvicorn: every byte that arrived, and then that the client has left.

uvicorn's own drops what it has read and not yet delivered when a connection is lost; whoever sends a small body and
leaves at once would lose all of it.
"""

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Receiving:
    """The receive() of one request."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._has_all = False  # the application has the end of the body
        self._half_closed = False

    def half_close(self) -> None:
        """The client sends nothing more and may still read: the application is told so behind the last byte."""
        self._half_closed = True
        self._cycle.message_event.set()

    async def __call__(self) -> ASGIReceiveEvent:
        cycle = self._cycle
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            # "A server MAY omit sending a 100 (Continue) response if it has already received some or all of the
            # content" (RFC 9110, 10.1.1). A client that has left answers with a reset, and what it sent would be lost.
            if not cycle.body and not cycle.transport.is_closing():
                cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not cycle.response_complete:
            if cycle.body or (not cycle.more_body and not self._has_all):
                body, cycle.body = bytes(cycle.body), bytearray()
                self._has_all = not cycle.more_body
                return {"type": "http.request", "body": body, "more_body": cycle.more_body}
            if cycle.disconnected or self._half_closed:
                break
            cycle.flow.resume_reading()
            await cycle.message_event.wait()
            cycle.message_event.clear()
        return {"type": "http.disconnect"}
