"""Everything that a plan breaks: three replicas, nginx, Redis, a receiver, and a disk that can be filled.

Every part can be broken and mended from any thread; a lock each keeps two faults of one part apart. close() ends all.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import examples
from tests.chaos.plan import LEASE_TTL_S, MIB, REPLICAS
from tests.processes import Redis, Server, end, eventually, lasting_port, start_server
from tests.test_nginx import temporary_paths

SECRET = "whsec_" + "bWFueSB0aGluZ3MgYnJlYWsgYXQgb25jZSwgYWdhaW4="
RESTARTS = 3  # a process that does not come up on a busy machine gets another chance
ROOM = 64 * MIB  # of the small disk, beyond all uploads

Address = tuple[str, int]


class Replica:
    """One `tusd-py serve` on a port of its own, started again and again."""

    def __init__(self, folder: Path, flags: tuple[str, ...]) -> None:
        self.address: Address = ("127.0.0.1", lasting_port())
        self.busy = threading.Lock()  # of whoever breaks it
        self.logs: list[Path] = []
        self.server: Server | None = None
        self._folder = folder
        self._flags = flags

    def start(self) -> None:
        """Start it. Raises AssertionError when it does not come up."""
        for left in reversed(range(RESTARTS)):
            try:
                self.server = start_server(self._folder, *self._flags, port=self.address[1])
                break
            except AssertionError:
                if not left:
                    raise
        assert self.server
        self.logs.append(self.server.log)

    def kill(self) -> None:
        assert self.server
        self.server.kill()

    def freeze_for(self, seconds: float, ending: threading.Event) -> None:
        """Stop it for some seconds; shorter when all ends."""
        assert self.server
        self.server.freeze()
        ending.wait(seconds)
        self.server.thaw()

    def uploads_open(self, folder: Path) -> list[str]:
        """Return what it has open of the upload folder, but the folder itself."""
        assert self.server
        descriptors = Path(f"/proc/{self.server.process.pid}/fd")
        targets = []
        for one in descriptors.iterdir():
            with suppress(OSError):  # closed meanwhile
                targets.append(os.readlink(one))
        return [target for target in targets if target.startswith(f"{folder}/")]

    def close(self) -> None:
        if self.server:
            end(self.server.process)


class Nginx:
    """nginx with the configuration of examples/nginx.conf, in front of the replicas."""

    def __init__(self, folder: Path, replicas: list[Address]) -> None:
        binary = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        assert binary, "this needs nginx: apt-get install nginx-light"
        self.address: Address = ("127.0.0.1", lasting_port())
        folder.mkdir()
        text = (Path(examples.__file__).parent / "nginx.conf").read_text()
        text = text.replace("listen 8080", f"listen 127.0.0.1:{self.address[1]}")
        text = text.replace("http {", f"http {{ access_log off; {temporary_paths(folder)}")
        [line, *others] = [line for line in text.splitlines() if "server tusd_py_" in line]
        for host, port in replicas:
            text = text.replace(line, line.replace("tusd_py_1:1080", f"{host}:{port}") + "\n" + line)
        for one in (line, *others):
            text = text.replace(one, "")
        log = f"error_log {folder}/nginx.log;"
        config = folder / "nginx.conf"
        config.write_text(f"daemon off; master_process off; pid {folder}/nginx.pid; {log}\n{text}")
        self._command = [binary, "-c", str(config), "-p", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        eventually(lambda: listens(self.address), what="nginx listens")

    def close(self) -> None:
        if self._process:
            end(self._process)


class Receiver:
    """The pipeline of examples/, and the database in which it writes down what came."""

    def __init__(self, folder: Path) -> None:
        self._database = folder / "assessments.sqlite3"
        self.address: Address = ("127.0.0.1", lasting_port())
        self._videos = folder / "uploads"
        self._log = folder / "receiver.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}/hooks"

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "examples.video_assessment", "--port", str(self.address[1]), "--secret", SECRET),
            *("--videos-dir", str(self._videos), "--database", str(self._database)),
        ]
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        eventually(lambda: listens(self.address), what="the receiver listens")

    def heard(self) -> Counter[str]:
        """Return how many events there were of each upload; repeats of the same event are one."""
        with closing(sqlite3.connect(self._database, timeout=10)) as db:
            return Counter(upload_id for (upload_id,) in db.execute("SELECT upload_id FROM assessments"))

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        if self._process:
            end(self._process)


class Disk:
    """The upload folder: on a small disk of its own, in memory, where we may mount one."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        folder.mkdir()
        self._filler = folder / "filler"
        options = f"size={size},mode=0700"
        self.can_be_filled = (
            os.geteuid() == 0
            and shutil.which("mount") is not None
            and run_quietly("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
        )

    def fill(self) -> None:
        """Take all the room there is, and what is freed meanwhile."""
        with self._filler.open("wb") as file, suppress(OSError):
            for _ in range(100):
                free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, max(free, 1))

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        if self.can_be_filled:
            # At once where nothing is open on it, which is so when all that we started has ended.
            run_quietly("umount", str(self.folder)) or run_quietly("umount", "-l", str(self.folder))


class FrozenRedis(Redis):
    """One that can be frozen, too."""

    def freeze_for(self, seconds: float, ending: threading.Event) -> None:
        self.signal(signal.SIGSTOP)
        ending.wait(seconds)
        self.signal(signal.SIGCONT)


class Stage:
    """All parts together, in a folder."""

    def __init__(self, folder: Path, size: int, *more: str) -> None:
        """size is that of all uploads, in bytes; more are flags of the replicas."""
        self.folder = folder
        self.disk = Disk(folder / "uploads", size + ROOM)
        self.redis = FrozenRedis(folder / "redis", port=lasting_port())
        self.receiver = Receiver(folder)
        flags = (
            *("--redis-url", self.redis.url, "--lease-ttl", str(LEASE_TTL_S), "--tidy-interval", "2"),
            *("--webhook-url", self.receiver.url, "--webhook-secret", SECRET, "--webhook-timeout", "2"),
            *more,
        )
        self.replicas = [Replica(folder, flags) for _ in range(REPLICAS)]
        self.nginx = Nginx(folder / "nginx", [replica.address for replica in self.replicas])

    def open(self) -> None:
        """Start everything."""
        self.redis.start()
        self.receiver.start()
        for replica in self.replicas:
            replica.start()
        self.nginx.start()

    def close(self) -> None:
        """End everything, whatever state it is in."""
        parts: list[Callable[[], None]] = [self.nginx.close, *(one.close for one in self.replicas), self.receiver.close]
        if self.redis.process:
            process = self.redis.process
            parts.append(lambda: end(process))
        for close in (*parts, self.disk.close):
            with suppress(Exception):  # the others must end all the same
                close()


def listens(address: Address) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
        return True
    except OSError:
        return False


def run_quietly(*command: str) -> bool:
    """Return whether a command succeeded."""
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def wait_until(at: float, ending: threading.Event) -> bool:
    """Wait until a monotonic time; return False when all ends before."""
    return not ending.wait(max(0.0, at - time.monotonic()))
