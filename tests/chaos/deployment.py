"""All parts that a plan breaks: three replicas, nginx, Redis (ledger.py), a receiver, and a disk (disk.py).

Every part can be broken and repaired from any thread. Replica.busy prevents two faults of one replica at once.
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
from tests.chaos.disk import Disk
from tests.chaos.ledger import FragileRedis, recover
from tests.chaos.losses import Losses
from tests.chaos.plan import LEASE_TTL_S, MIB, REPLICAS
from tests.chaos.points import set_trap, used_name
from tests.support.nginx import temporary_paths
from tests.support.processes import Server, end, eventually, lasting_port, start_server

SECRET = "whsec_" + "bWFueSB0aGluZ3MgYnJlYWsgYXQgb25jZSwgYWdhaW4="
RESTART_S = 60.0  # to retry a start, as a supervisor does: a replica refuses to start while the volume is missing
EXIT_S = 30.0  # after SIGTERM; longer than --shutdown-timeout because the machine is busy
ROOM = 64 * MIB  # on the small disk, in addition to all uploads

COMMON_TRAP = "trap"  # the file for whichever replica reaches the point first

Address = tuple[str, int]


class Replica:
    """One `tusd-py serve` on a port of its own, which can be started again."""

    def __init__(self, folder: Path, n: int, clock_s: float, flags: tuple[str, ...]) -> None:
        """clock_s: how far its clock is ahead."""
        self.address: Address = ("127.0.0.1", lasting_port())
        self.busy = threading.Lock()  # held while a fault happens to it
        self.trap = folder / f"trap-{n}"
        self.server: Server | None = None
        self._folder = folder
        self._flags = flags
        traps = (f"trap={self.trap}", f"trap={folder / COMMON_TRAP}")
        self._program = ("-m", "tests.chaos.replica", f"clock={clock_s}", *traps)

    def start(self) -> None:
        """Start it. Raises AssertionError if it does not start in time."""
        if self.server:
            self.server.process.wait(10)  # it may just have killed itself
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

    def stop(self) -> str:
        """Stop it with SIGTERM; return what went wrong, "" if nothing did."""
        assert self.server
        process = self.server.process
        process.terminate()
        try:
            status = process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            return f"still running after {EXIT_S:.0f} s"
        return f"exit status {status}" if status and not self.was_killed_by_trap() else ""

    def freeze_for(self, seconds: float, ending: threading.Event) -> None:
        """Freeze it for some seconds; shorter if the run ends."""
        assert self.server
        self.server.freeze()
        ending.wait(seconds)
        self.server.thaw()

    def set_trap(self, point: str) -> None:
        """Make it kill itself when it next reaches the point; see points.py."""
        set_trap(self.trap, point)

    def remove_trap(self) -> None:
        self.trap.unlink(missing_ok=True)

    def wait_for_exit(self, seconds: float, ending: threading.Event) -> None:
        """Wait until the process has ended, at most for this time; shorter if the run ends."""
        assert self.server
        give_up_at = time.monotonic() + seconds
        while self.server.process.poll() is None and time.monotonic() < give_up_at and not ending.wait(0.02):
            pass

    def was_killed_by_trap(self) -> bool:
        """Return whether it killed itself at a point; see points.py."""
        assert self.server
        pid = self.server.process.pid
        return any(used_name(trap, pid).exists() for trap in (self.trap, self._folder / COMMON_TRAP))

    def open_files(self, folder: Path) -> list[str]:
        """Return the paths in the folder that the process has open."""
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
        assert binary, "nginx is missing: apt-get install nginx-light"
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
    """The pipeline of examples/, and the database in which it stores the events that it receives."""

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

    def events(self) -> Counter[str]:
        """Return the number of different events received for each upload."""
        with closing(sqlite3.connect(self._database, timeout=10)) as db:
            return Counter(upload_id for (upload_id,) in db.execute("SELECT upload_id FROM assessments"))

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        if self._process:
            end(self._process)


class Deployment:
    """All parts together, in a folder."""

    def __init__(self, folder: Path, size: int, *more: str, clocks: Sequence[float] = (0.0,) * REPLICAS) -> None:
        """size: of all uploads, in bytes; more: further flags of the replicas; for clocks see Plan."""
        self.folder = folder
        self.disk = Disk(folder / "uploads", size + ROOM)
        self.redis = FragileRedis(folder / "redis", port=lasting_port())
        self.losses = Losses()
        self.loss_lock = threading.Lock()  # volume and ledger are never lost at once: recover needs one of them
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
        """Run `tusd-py recover`, which restores what the ledger had lost. Raises AssertionError."""
        recover(self.disk.folder, self.redis.url)
        self.losses.end()

    def tracebacks(self) -> list[str]:
        """Return the replicas' log files that contain a traceback."""
        return [str(log) for log in sorted(self.folder.glob("serve-*.log")) if "Traceback" in log.read_text()]

    def open(self) -> None:
        """Start everything."""
        self.redis.start()
        self.receiver.start()
        for replica in self.replicas:
            replica.start()
        self.nginx.start()

    def close(self) -> None:
        """Stop everything, in whatever state it is."""
        parts: list[Callable[[], None]] = [self.nginx.close, *(one.close for one in self.replicas), self.receiver.close]
        for close in (*parts, self.redis.end, self.disk.close):
            with suppress(Exception):  # the other parts must be stopped all the same
                close()


def listens(address: Address) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
        return True
    except OSError:
        return False


def wait_until(at: float, ending: threading.Event) -> bool:
    """Wait until a monotonic time; return False if the run ends before it."""
    return not ending.wait(max(0.0, at - time.monotonic()))
