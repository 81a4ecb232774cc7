"""`tusd-py serve`: the application under uvicorn, on a socket of its own, in one process or several."""

import asyncio
import contextlib
import os
import resource
import socket
import stat
import tempfile
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from .app import create_app
from .metrics import MULTIPROC_DIR
from .ports import WrongLedger
from .protocol.refusals import Unavailable
from .server import KernelProtocol
from .settings import Settings
from .wiring import check_storage, open_parts

BACKLOG = 2048  # connections that wait to be accepted; the kernel's somaxconn cuts it
KEEP_ALIVE_S = 75  # longer than nginx keeps an idle connection (60 s): the side that reuses it must not lose a race

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
    """Prints where to upload as soon as the server listens: the line that tools made for tusd wait for."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._line, flush=True)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises CannotServe."""
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
        stack.callback(stop_listening, listener, settings)
        if settings.workers == 1:
            Announcing(uvicorn.Config(create_app(settings), **config), line).run([listener])
        else:
            os.environ.update(settings.to_env())  # read by create_app in each worker
            figures = stack.enter_context(tempfile.TemporaryDirectory(prefix="tusd_py-"))
            os.environ[MULTIPROC_DIR] = figures  # one file a worker, put together for whoever asks any of them
            app = "tusd_py.app:create_app"
            supervisor = Multiprocess(
                uvicorn.Config(app, factory=True, workers=settings.workers, **config), sockets=[listener]
            )
            print(line, flush=True)  # the socket listens already: who connects now is served when a worker is up
            supervisor.run()


async def check(settings: Settings) -> None:
    """Open everything once and close it. Raises CannotServe; not for a Redis that is away, for it may come back."""
    try:
        if settings.file_locks == "required":
            check_storage(settings)
        async with open_parts(settings):
            pass
    except (WrongLedger, Unavailable, OSError) as exc:
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
    except OSError as exc:
        where = settings.unix_socket or f"{settings.host}:{settings.port}"
        text = f"cannot listen on {where}: {exc.strerror or exc}; is it in use? --port 0 picks a free one"
        raise CannotServe(text) from exc
    listener.set_inheritable(True)
    return listener


def stop_listening(listener: socket.socket, settings: Settings) -> None:
    """Close the socket, and remove the file of a unix socket."""
    listener.close()
    if settings.unix_socket:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(settings.unix_socket)


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
