"""python -m benchmarks: measures every scenario on every installed server, in turn; medians of several rounds."""

import argparse
import mmap
import os
import platform
import resource
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import free_port, running_redis

from .contenders import BARE, CONTENDERS, HERE, Contender, cpu_s, peak_mib, running
from .growth import growth
from .report import chart, table
from .scenarios import MIB, SCENARIOS, Scenario


@dataclass(frozen=True)
class Measured:
    """The figures of one scenario on one server."""

    per_s: float  # units per second
    cpu: float  # of the server: seconds per GiB, or milliseconds per request
    peak_mib: float
    client_share: float  # of one core, used by the client


def main() -> None:
    """Measure, print, and write benchmarks/README.md and benchmarks/chart.svg."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file, in MiB")
    parser.add_argument("--folder", default=".", help="where the servers store uploads; the results depend on its disk")
    parser.add_argument("--only", default="", help="measure only servers with this in their name; write no files")
    parser.add_argument(
        "--records",
        default="1000,10000,100000,1000000",
        help="numbers of uploads for the growth table, separated by commas",
    )
    given = parser.parse_args()
    if shutil.which("npm"):
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=HERE, check=True)
    found = [one for one in CONTENDERS if one.is_there() and given.only in one.name]
    print("not installed:", ", ".join(one.name for one in CONTENDERS if not one.is_there()) or "none")
    results: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    stolen = stolen_s()
    with tempfile.TemporaryDirectory(dir=given.folder) as work, running_redis(Path(work) / "redis") as redis:
        file = Path(work) / "source"
        file.write_bytes(os.urandom(MIB) * given.mib)
        for n in range(given.rounds):
            for scenario in SCENARIOS:
                for contender in found:
                    if contender.name == BARE and scenario is not SCENARIOS[0]:
                        continue
                    measured = measure(contender, scenario, file, Path(work), redis.port)
                    if measured:
                        results[scenario.name, contender.name].append(measured)
                    print(f"{n + 1}/{given.rounds} {scenario.name:18} {contender.name:38} {measured}", flush=True)
    medians = {
        key: Measured(*(statistics.median(getattr(one, name) for one in some) for name in Measured.__annotations__))
        for key, some in results.items()
    }
    about = f"{machine()}, {stolen_s() - stolen:.0f} s of CPU time taken by its host"
    text = table(medians, SCENARIOS, [one.name for one in found], about, given.rounds, given.mib)
    if not given.only:
        with tempfile.TemporaryDirectory(dir=given.folder) as work:
            text += "\n" + growth(Path(work), [int(count) for count in given.records.split(",")])
    print(text)
    if not given.only:
        (HERE / "README.md").write_text(text)
        (HERE / "chart.svg").write_text(chart(medians, SCENARIOS[0], [one.name for one in found]))


def measure(contender: Contender, scenario: Scenario, file: Path, work: Path, redis_port: int) -> Measured | None:
    """Start a server, run the scenario and return its figures; None if the server failed."""
    # Each measurement has a new folder, and small files are not deleted before the end of the run: ext4 checks every
    # inode that was deleted in the last minutes before it allocates one, so creating a file after many deletions costs
    # ten times as much.
    folder = Path(tempfile.mkdtemp(dir=work))
    port = free_port()

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    try:
        with running(contender, folder, port, redis_port, answers) as pid:
            touch_memory(file.stat().st_size * 3 // 2)
            time.sleep(0.3)
            own, cpu, begun_at = client_cpu_s(), cpu_s(pid), time.monotonic()
            done = scenario.run(port, file)
            elapsed_s, used_s = time.monotonic() - begun_at, cpu_s(pid) - cpu
            each = used_s / done * (1024 if scenario.unit == "MiB" else 1000)
            return Measured(done / elapsed_s, each, peak_mib(pid), (client_cpu_s() - own) / elapsed_s)
    except (AssertionError, OSError, KeyError) as exc:
        print(f"   {contender.name} failed: {exc!r}"[:300])
        return None
    finally:
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_size > MIB:
                path.unlink()


def touch_memory(size: int) -> None:
    """Use that many bytes of memory and free them again, so that they are ready for the server's page cache.

    The host of a virtual machine may provide memory only when it is first used, and take free memory back. That costs
    up to a second per GiB, which must not count as the server's time.
    """
    mmap.mmap(-1, size).write(b"x" * size)


def client_cpu_s() -> float:
    """Return the CPU time that this process has used, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def stolen_s() -> float:
    """Return the CPU time that the host of this virtual machine has used for other guests since boot, in seconds."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """Return a short description of the machine."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
