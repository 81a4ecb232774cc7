"""Everything that a plan breaks: three replicas, nginx, Redis (ledger.py), a receiver, and a disk (disk.py).

Every part can be broken and mended from any thread; a lock each keeps two faults of one part apart. close() ends all.
"""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import examples
from tests.chaos.amnesia import Amnesia
from tests.chaos.disk import Disk
from tests.chaos.ledger import FragileRedis, recover
from tests.chaos.plan import LEASE_TTL_S, MIB, REPLICAS
from tests.chaos.points import lay_trap, taken
from tests.support.nginx import temporary_paths
from tests.support.processes import Server, end, eventually, lasting_port, start_server

SECRET = "whsec_" + "bWFueSB0aGluZ3MgYnJlYWsgYXQgb25jZSwgYWdhaW4="
RESTART_S = 60.0  # a replica is started again and again, as by a supervisor: it refuses to start on a missing volume
EXIT_S = 30.0  # after SIGTERM; a replica's own limit is --shutdown-timeout, and two cores have other things to do
ROOM = 64 * MIB  # of the small disk, beyond all uploads

COMMON_TRAP = "trap"  # for whichever replica passes the point first

Address = tuple[str, int]


class Replica:
    """One `tusd-py serve` on a port of its own, started again and again."""

    def __init__(self, folder: Path, n: int, clock_s: float, flags: tuple[str, ...]) -> None:
        """clock_s is how far its clock is off."""
        self.address: Address = ("127.0.0.1", lasting_port())
        self.busy = threading.Lock()  # of whoever breaks it
        self.trap = folder / f"trap-{n}"
        self.server: Server | None = None
        self._folder = folder
        self._flags = flags
        traps = (f"trap={self.trap}", f"trap={folder / COMMON_TRAP}")
        self._program = ("-m", "tests.chaos.replica", f"clock={clock_s}", *traps)

    def start(self) -> None:
        """Start it. Raises AssertionError when it does not come up."""
        if self.server:
            self.server.process.wait(10)  # it may have killed itself just now
        give_up_at = time.monotonic() + RESTART_S
        while True:
            try:
                self.server = start_server(self._folder, *self._flags, port=self.address[1], program=self._program)
                return
            except AssertionError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.5)

    def kill(self) -> None:
        assert self.server
        self.server.kill()

    def leave(self) -> str:
        """End it with SIGTERM, and return what was wrong about its end, nothing if all was well."""
        assert self.server
        process = self.server.process
        process.terminate()
        try:
            status = process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            return f"no end within {EXIT_S:.0f} s"
        return f"exit status {status}" if status and not self.has_died_of_a_trap() else ""

    def freeze_for(self, seconds: float, ending: threading.Event) -> None:
        """Stop it for some seconds; shorter when all ends."""
        assert self.server
        self.server.freeze()
        ending.wait(seconds)
        self.server.thaw()

    def set_trap(self, point: str) -> None:
        """Let it die when it passes the point next; see points.py."""
        lay_trap(self.trap, point)

    def remove_trap(self) -> None:
        self.trap.unlink(missing_ok=True)

    def dies_within(self, seconds: float, ending: threading.Event) -> None:
        """Wait until it has died of itself, at most for this time; shorter when all ends."""
        assert self.server
        give_up_at = time.monotonic() + seconds
        while self.server.process.poll() is None and time.monotonic() < give_up_at and not ending.wait(0.02):
            pass

    def has_died_of_a_trap(self) -> bool:
        """Return whether it killed itself at a point; see points.py."""
        assert self.server
        pid = self.server.process.pid
        return any(taken(trap, pid).exists() for trap in (self.trap, self._folder / COMMON_TRAP))

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


class Stage:
    """All parts together, in a folder."""

    def __init__(self, folder: Path, size: int, *more: str, clocks: Sequence[float] = (0.0,) * REPLICAS) -> None:
        """size is that of all uploads, in bytes; more are flags of the replicas; clocks see Plan."""
        self.folder = folder
        self.disk = Disk(folder / "uploads", size + ROOM)
        self.redis = FragileRedis(folder / "redis", port=lasting_port())
        self.amnesia = Amnesia()
        self.one_side = threading.Lock()  # of the losses of volume and ledger: one of them must know what was there
        self.receiver = Receiver(folder)
        flags = (
            *("--redis-url", self.redis.url, "--lease-ttl", str(LEASE_TTL_S), "--tidy-interval", "2"),
            *("--webhook-url", self.receiver.url, "--webhook-secret", SECRET, "--webhook-timeout", "2"),
            *("--grace", "1", "--shutdown-timeout", "8"),
            *more,
        )
        self.replicas = [Replica(folder, n, clock_s, flags) for n, clock_s in enumerate(clocks)]
        self.nginx = Nginx(folder / "nginx", [replica.address for replica in self.replicas])

    def recover(self) -> None:
        """Run `tusd-py recover`; what the ledger had lost is made good then. Raises AssertionError."""
        recover(self.disk.folder, self.redis.url)
        self.amnesia.ends()

    def tracebacks(self) -> list[str]:
        """Return the logs of replicas with a traceback in them."""
        return [str(log) for log in sorted(self.folder.glob("serve-*.log")) if "Traceback" in log.read_text()]

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
        for close in (*parts, self.redis.end, self.disk.close):
            with suppress(Exception):  # the others must end all the same
                close()


def listens(address: Address) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
        return True
    except OSError:
        return False


def wait_until(at: float, ending: threading.Event) -> bool:
    """Wait until a monotonic time; return False when all ends before."""
    return not ending.wait(max(0.0, at - time.monotonic()))
