"""A receiver of callbacks for tests. It stores what it receives and answers with given statuses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """The callbacks received so far, and the next answers."""

    url: str
    answers: list[int] = field(default_factory=list)  # a status for each of the next requests; then 204
    received: list[tuple[dict[str, str], str]] = field(default_factory=list)  # headers (lower case) and body

    def ids(self) -> list[str]:
        """Return the webhook-ids in the order of arrival."""
        return [headers["webhook-id"] for headers, _ in self.received]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver for the length of the with block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Print nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hooks")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
