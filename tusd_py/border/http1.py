"""uvicorn's protocol on httptools, made to lose no byte of a request.

httptools stops at the headers of a request that asks for an upgrade and drops what was read behind them. It reports a
trailer like a header. What is not HTTP uvicorn answers in plain text, in the middle of another answer if one is under
way. Here every byte that was read is part of a head, a body or trailers; otherwise the connection is closed.
"""

from typing import Literal

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ..protocol import tus1
from ..protocol.messages import Reply
from ..protocol.refusals import BadRequest, Internal, Refusal, TrailersTooLarge

MAX_TRAILERS = 100  # lines; as many as Apache takes as headers, and no client of tus sends any
MAX_FRAMING = 16 * 1024  # bytes between two bytes of a chunked body, or behind the last; Node's limit for headers
LINGER_S = 2.0  # closing a connection over unread bytes resets it, and the client never reads the answer
EXTENSION = "tusd_py.http1"  # in scope["extensions"]: no body is lost to an Upgrade
END_OF_HEAD = b"\r\n\r\n"


class Http1Protocol(HttpToolsProtocol):
    """Serves every request in HTTP/1.1, keeps trailers apart from headers, refuses what is not a request."""

    _part: Literal["head", "body", "end"] = "end"  # of a request; what the parser is in
    _trailers = 0  # lines
    _framing = 0  # bytes read since the head or the last byte of the body
    _length: int | None = None  # bytes of the body; None: chunked
    _head_ended = False  # in the data that is being parsed
    _content = 0  # bytes of the last body in the data that is being parsed
    _tail = b""  # the last bytes of the data before, where END_OF_HEAD may have begun
    _deaf = False  # what is read from now on is dropped

    def on_request(self) -> None:
        """Called when the head of a request is complete; self.cycle is the request's."""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._deaf:
            return
        self._head_ended, self._content = False, 0
        self._framing += len(data)
        try:
            self._parse(memoryview(data))
            if self._part == "body":
                self._check_body(data)
        except httptools.HttpParserError as exc:
            self.refuse(refusal_of(exc))
        except Refusal as refusal:
            self.refuse(refusal)
        self._tail = (self._tail + data[-len(END_OF_HEAD) :])[-len(END_OF_HEAD) :]

    def _parse(self, data: memoryview) -> None:
        """Feed the parser. Raises httptools.HttpParserError.

        "A server MAY ignore a received Upgrade header field if it wishes to continue using the current protocol on that
        connection." (RFC 9110, 7.8). The parser cannot ignore it: it gets the head a second time, without the field.
        """
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stopped:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                    return
                if self.parser.get_method() == b"CONNECT":
                    # What follows is meant for the other end of a tunnel, and there is no tunnel.
                    self.cycle.keep_alive = False
                    self._deaf = True
                    return
                self.parser.feed_data(self._head_without_upgrade())
                data = data[stopped.args[0] :]

    def _upgrade_ignored(self) -> bool:
        """Return whether the parser is about to stop at a head that it will get again."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT" and not self._should_upgrade()

    def _should_upgrade(self) -> bool:
        """Return whether this begins a WebSocket, for an application beside ours; always False in tusd-py serve."""
        # "The method of the request MUST be GET" (RFC 6455, 4.1), and a body would be lost.
        is_handshake = self.parser.get_method() == b"GET" and content_length(self.headers) == 0
        return is_handshake and super()._should_upgrade()

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(fields))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part = "head"
        self._trailers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part == "head":
            super().on_header(name, value)
            return
        # "A recipient MUST NOT merge a received trailer field into the header section unless its corresponding header
        # field definition explicitly permits" it (RFC 9112, 7.1.2): none of those that matter here does.
        self._trailers += 1
        if self._trailers > MAX_TRAILERS:
            raise TrailersTooLarge(f"More than {MAX_TRAILERS} trailers follow the body; send none")
        if name.lower() == b"connection":
            self.cycle.keep_alive = False  # the parser took it for a header, and may drop what follows

    def on_headers_complete(self) -> None:
        self._head_ended, self._content, self._framing = True, 0, 0
        if self._upgrade_ignored():
            return
        self.scope["extensions"] = {EXTENSION: {}}
        super().on_headers_complete()
        self._part = "body"
        self._length = content_length(self.headers)
        if not self.parser.should_upgrade():
            self.on_request()

    def on_body(self, body: bytes) -> None:
        self._content += len(body)
        self._framing = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._part = "end"
        self._framing = 0
        if not self._upgrade_ignored():
            super().on_message_complete()

    def _check_body(self, data: bytes) -> None:
        """Raise a Refusal unless the data before the body is a head, and what is between chunks is short."""
        if self._length is None:
            if self._framing > MAX_FRAMING:
                raise TrailersTooLarge(f"More than {MAX_FRAMING} bytes follow the body as trailers; send none")
            return
        before = len(data) - self._content
        seen = (self._tail + data[max(0, before - len(END_OF_HEAD)) : before])[-len(END_OF_HEAD) :]
        if before and not (self._head_ended and seen == END_OF_HEAD):
            # Whoever took the next byte for the next byte of the body would write it at a wrong offset.
            self.logger.error("the HTTP parser lost %d bytes of a body, the connection is closed", before)
            self.cycle.body.clear()  # a client that leaves keeps what arrived; these bytes have a gap before them
            raise Internal("The server lost a part of the body; ask for the offset and resume")

    def start_afresh(self) -> None:
        """Take a new parser: the old one waits for a body that went past it."""
        if self.parser is not None:  # the connection is lost otherwise
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._part = "end"

    def refuse(self, refusal: Refusal) -> None:
        """Answer in place of the application, unless an answer is under way or owed before, then close."""
        self._deaf = True
        cycle = self.cycle
        unfinished = cycle is not None and self._part == "body"  # what is refused is in the body of this request
        if self.pipeline:
            if unfinished:
                self.pipeline.popleft()  # never begun
            return  # on_response_complete() closes
        if cycle is not None and not cycle.response_complete:
            if not unfinished or cycle.response_started:
                return
            cycle.disconnected = True  # for the application the client is gone
            cycle.message_event.set()
        self.logger.warning("refused a request: %s", refusal.detail)
        method = "" if self._part == "end" else self.parser.get_method().decode()
        self._answer(tus1.refused(refusal, method))

    def _answer(self, reply: Reply) -> None:
        """Write the reply, and close when the client has had time to read it."""
        headers = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
        headers += [(b"Content-Length", b"%d" % len(reply.body)), (b"Connection", b"close")]
        fields = [b"%b: %b\r\n" % field for field in self.server_state.default_headers + headers]
        self.transport.write(STATUS_LINE[reply.status] + b"".join(fields) + b"\r\n" + reply.body)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_S, self.transport.abort)
        else:
            self.transport.close()  # TLS

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if self._deaf and last:
            self.transport.close()


def content_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """Return the bytes of a body, 0 without one, None when it is chunked; the parser has judged the values."""
    length = 0
    for name, value in headers:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            length = int(value)
    return length


def refusal_of(error: httptools.HttpParserError) -> Refusal:
    """Return the refusal that a callback raised, or that of the parser."""
    if isinstance(error.__context__, Refusal):
        return error.__context__
    reason = "" if isinstance(error, httptools.HttpParserCallbackError) else f": {error}"
    return BadRequest(f"This is not a valid HTTP/1.1 request{reason}")
