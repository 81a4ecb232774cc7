"""A TCP proxy between the server and Redis that can break or delay connections."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum


class Mode(Enum):
    """What the proxy does with connections and data."""

    PASS = "pass"
    CUT = "cut"  # close all connections, and new ones at once
    HANG = "hang"  # keep connections open, but forward nothing
    SLOW = "slow"  # forward every piece late


DELAY_S = 0.3  # of every piece in Mode.SLOW


class Proxy:
    """A port that forwards to another port on 127.0.0.1."""

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.mode = Mode.PASS
        self.lose_answer_to = b""  # the next request that contains this is forwarded, but its answer is lost
        self._target = target
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def become(self, mode: Mode) -> None:
        """Change the mode, also for open connections."""
        self.mode = mode
        if mode is Mode.CUT:
            self._cut_all()

    def close(self) -> None:
        self._listener.close()
        self._cut_all()

    def _cut_all(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            cut(*pair)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        if self.mode is Mode.CUT:
            client.close()
            return
        try:
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            server.settimeout(None)
        except OSError:
            client.close()
            return
        with self._lock:
            self._pairs.add((client, server))
        threading.Thread(target=self._relay, args=(client, server, True), daemon=True).start()
        self._relay(server, client, False)

    def _relay(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if is_request and self.lose_answer_to and self.lose_answer_to in piece:
                    self.lose_answer_to = b""
                    source.shutdown(socket.SHUT_WR)  # the client gets no more data: the answer is lost
                    sink.sendall(piece)
                    time.sleep(0.1)  # for the server to carry it out
                    break
                if self.mode is Mode.SLOW:
                    time.sleep(DELAY_S)
                while self.mode is Mode.HANG:
                    time.sleep(0.02)
                sink.sendall(piece)
        cut(source, sink)


def cut(*sockets: socket.socket) -> None:
    """Shut down sockets in both directions and close them."""
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextmanager
def running_proxy(target: int, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """Run a proxy for a port on 127.0.0.1 for the length of the with block; with tls, clients connect to it in TLS."""
    proxy = Proxy(target, tls)
    try:
        yield proxy
    finally:
        proxy.become(Mode.CUT)
        proxy.close()
