"""`tusd-py serve`: the application under uvicorn, on a socket of its own, in one process or several.

It ends in bounded time with exit status 0 after SIGTERM or SIGINT, and removes the file of its unix socket.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from .border.app import create_app
from .border.kernel import KernelProtocol
from .leaving import SIGNALS, on_exit_signal
from .metrics import MULTIPROC_DIR
from .ports import WrongLedger
from .protocol.refusals import StorageFull, Unavailable
from .settings import Settings
from .wiring import check_storage, open_parts

BACKLOG = 2048  # connections that wait to be accepted; the kernel's somaxconn cuts it
KEEP_ALIVE_S = 75  # longer than nginx keeps an idle connection (60 s): the side that reuses it must not lose a race
WORKER_MARGIN_S = 2.0  # behind --shutdown-timeout, to cancel what still runs and to close everything
PARENT_MARGIN_S = 4.0  # behind --shutdown-timeout; the parent hears of the signal up to 0.5 s before its workers
LAST_S = 0.5  # for the last line of the log and the socket's file, which may lie on the disk that hangs

log = logging.getLogger("tusd_py")

LOG_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(process)d %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {name: {"handlers": ["stderr"], "level": "INFO"} for name in ("tusd_py", "uvicorn.error")},
}


class CannotServe(Exception):
    """The address cannot be had, or what is in the upload folder cannot be used; the text is one line."""


class Announcing(uvicorn.Server):
    """Prints where to upload as soon as the server listens: the line that tools made for tusd wait for.

    At its end it serves those who have connected already; uvicorn leaves them to the kernel, which resets them.
    """

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._line, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or []:
            await self._accept_waiting(listener)
        await super().shutdown(sockets)

    async def _accept_waiting(self, listener: socket.socket) -> None:
        """Take the connections that wait to be accepted, so that closing the listener resets nobody."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # BlockingIOError: there are no more
            while True:
                connection, _ = listener.accept()
                await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> KernelProtocol:
        return KernelProtocol(self.config, self.server_state, self.lifespan.state)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises CannotServe, and SystemExit with status 0."""
    for number in SIGNALS:
        signal.signal(number, leave)
    open_more_files()
    asyncio.run(check(settings))
    listener = listen(settings)
    line = f"You can now upload files to: {address_of(listener, settings)}"
    config: dict[str, Any] = {
        "http": KernelProtocol,
        "ws": "none",
        "lifespan": "on",
        "log_config": LOG_CONFIG,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # forwarded.py believes fewer people
        "backlog": BACKLOG,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": round(settings.shutdown_timeout),
    }
    with contextlib.ExitStack() as stack:
        remove_socket = socket_file(settings)
        stack.callback(remove_socket)
        stack.callback(listener.close)
        if settings.workers == 1:

            def one_process() -> Starlette:
                end_in_time(settings.shutdown_timeout + WORKER_MARGIN_S, remove_socket)
                return create_app(settings)

            Announcing(uvicorn.Config(one_process, factory=True, **config), line).run([listener])
        else:
            os.environ.update(settings.to_env())  # read by worker() in each worker
            figures = stack.enter_context(tempfile.TemporaryDirectory(prefix="tusd_py-"))
            os.environ[MULTIPROC_DIR] = figures  # one file a worker, put together for whoever asks any of them
            app = "tusd_py.serve:worker"
            supervisor = Multiprocess(
                uvicorn.Config(app, factory=True, workers=settings.workers, **config), sockets=[listener]
            )

            def kill_workers() -> None:
                for process in supervisor.processes:
                    process.process.kill()
                remove_socket()

            end_in_time(settings.shutdown_timeout + PARENT_MARGIN_S, kill_workers)
            print(line, flush=True)  # the socket listens already: who connects now is served when a worker is up
            supervisor.run()


async def check(settings: Settings) -> None:
    """Open everything once and close it. Raises CannotServe; not for a Redis that is away, for it may come back."""
    try:
        if settings.file_locks == "required":
            check_storage(settings)
        async with open_parts(settings):
            pass
    except (WrongLedger, Unavailable, StorageFull, OSError) as exc:
        raise CannotServe(str(exc)) from exc


def listen(settings: Settings) -> socket.socket:
    """Return a listening socket. Raises CannotServe."""
    try:
        if settings.unix_socket:
            return listen_unix(settings.unix_socket)
        family, kind, proto, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except (OSError, UnicodeError) as exc:  # UnicodeError: of a host name with a part that is too long
        where = settings.unix_socket or f"{settings.host}:{settings.port}"
        why = (exc.strerror if isinstance(exc, OSError) else None) or exc
        text = f"cannot listen on {where}: {why}; is it in use? --port 0 picks a free one"
        raise CannotServe(text) from exc
    listener.set_inheritable(True)
    return listener


def socket_file(settings: Settings) -> Callable[[], None]:
    """Return what removes the file of our unix socket, unless another server has its own there meanwhile."""
    path = settings.unix_socket
    ours = os.stat(path) if path else None

    def remove() -> None:
        with contextlib.suppress(FileNotFoundError):
            if ours and os.path.samestat(ours, os.stat(path)):
                os.unlink(path)

    return remove


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """End with status 0: before uvicorn handles signals, and when it raises them again behind its end."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)  # what is left to do takes a moment
    raise SystemExit(0)


def worker() -> Starlette:
    """Return the application of one of several processes. It leaves when its parent is gone, however that ended."""
    settings = Settings.from_env()
    end_in_time(settings.shutdown_timeout + WORKER_MARGIN_S, lambda: None)
    parent = multiprocessing.parent_process()
    if parent:
        loop = asyncio.get_running_loop()

        def orphaned() -> None:
            loop.remove_reader(parent.sentinel)
            log.warning("the parent process is gone; this worker leaves")
            signal.raise_signal(signal.SIGTERM)

        loop.add_reader(parent.sentinel, orphaned)  # a pipe whose other end only the parent has
    return create_app(settings)


def end_in_time(timeout_s: float, last: Callable[[], None]) -> None:
    """End the process timeout_s after SIGTERM or SIGINT, with last() and status 0, if it has not ended by itself.

    A thread that hangs in a disk or a name server is joined at an ordinary end, for ever.
    """
    leaving = threading.Event()

    def say() -> None:
        last()
        log.error("something hangs; ended after %.0f s", timeout_s)

    def end() -> None:
        leaving.wait()
        time.sleep(timeout_s)
        saying = threading.Thread(target=say, daemon=True)
        saying.start()
        saying.join(LAST_S)
        os._exit(0)

    threading.Thread(target=end, name="tusd_py-end", daemon=True).start()
    on_exit_signal(leaving.set)


def open_more_files() -> None:
    """Let this process have as many descriptors as it may: an upload needs three, and the usual limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says "infinity" and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listen_unix(path: str) -> socket.socket:
    """Return a socket that listens at path, where a dead server may have left its own. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and not is_answered(path):
            os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o666)  # as uvicorn does: who may connect is decided by the folder
    listener.listen(BACKLOG)
    listener.set_inheritable(True)
    return listener


def is_answered(path: str) -> bool:
    """Return whether somebody listens on the unix socket at path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(path)
        except OSError:
            return False
    return True


def address_of(listener: socket.socket, settings: Settings) -> str:
    """Return the creation URL, or the path of the unix socket and the creation path."""
    if settings.unix_socket:
        return f"unix:{settings.unix_socket}:{settings.base_path}"
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.base_path}"
