"""The servers that are compared, each started as its documentation says, and what their processes use."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
START_S = 30.0

TUSPYSERVER = """
import sys, uvicorn
from fastapi import FastAPI
from tuspyserver import create_tus_router
app = FastAPI()
app.include_router(create_tus_router(prefix="files", files_dir=sys.argv[1]))
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""


@dataclass(frozen=True)
class Contender:
    """One server with one configuration."""

    name: str
    command: Callable[[Path, int, int], list[str]]  # given the folder, the port, and the port of a redis-server
    is_there: Callable[[], bool] = lambda: True
    path: str = "/files/"


def tusd_py(*flags: str, redis: bool = False) -> Callable[[Path, int, int], list[str]]:
    """Return the command of a tusd_py server."""

    def command(folder: Path, port: int, redis_port: int) -> list[str]:
        program = [sys.executable, "-m", "tusd_py"]
        ledger = ["--redis-url", f"redis://127.0.0.1:{redis_port}/0"] if redis else []
        return [*program, "serve", "--port", str(port), "--upload-dir", str(folder), *ledger, *flags]

    return command


def on_path(program: str) -> Callable[[], bool]:
    return lambda: shutil.which(program) is not None


BARE = "bare splice loop"  # not a server: the upper limit, for one client
NODE = HERE / "node_modules" / "@tus" / "server"
CONTENDERS = [
    Contender(BARE, lambda folder, port, _: [sys.executable, str(HERE / "bare.py"), str(folder), str(port)]),
    Contender("tusd_py, sqlite, fsync", tusd_py()),
    Contender("tusd_py, redis, fsync", tusd_py(redis=True)),
    Contender("tusd_py, sqlite, none", tusd_py("--durability", "none")),
    Contender("tusd_py, redis, none", tusd_py("--durability", "none", redis=True)),
    Contender("tusd_py, sqlite, none, portable path", tusd_py("--durability", "none", "--splice", "off")),
    Contender(
        "tusd",
        lambda folder, port, _: ["tusd", "-host", "127.0.0.1", "-port", str(port), "-upload-dir", str(folder)],
        on_path("tusd"),
    ),
    Contender(
        "rustus",
        lambda folder, port, _: [
            *("rustus", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder)),
            *("--info-dir", str(folder), "--log-level", "error"),
        ],
        on_path("rustus"),
    ),
    Contender(
        "@tus/server", lambda folder, port, _: ["node", str(HERE / "peer.mjs"), str(folder), str(port)], NODE.exists
    ),
    Contender(
        "tuspyserver",
        lambda folder, port, _: [sys.executable, "-c", TUSPYSERVER, str(folder), str(port)],
        lambda: subprocess.run([sys.executable, "-c", "import tuspyserver"], capture_output=True).returncode == 0,
    ),
]


@contextmanager
def running(
    contender: Contender, folder: Path, port: int, redis_port: int, answers: Callable[[], bool]
) -> Iterator[int]:
    """Run a server for the length of the block, which begins when it answers; yield its pid. Raises TimeoutError."""
    with (folder.parent / "server.log").open("ab") as log:
        process = subprocess.Popen(contender.command(folder, port, redis_port), stdout=log, stderr=log)
    try:
        give_up_at = time.monotonic() + START_S
        while not answers():
            if time.monotonic() > give_up_at or process.poll() is not None:
                raise TimeoutError(f"{contender.name} does not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used in user and kernel mode, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Return the peak memory of a process, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0
