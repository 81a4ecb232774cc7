"""A redis-server that can be killed, frozen, emptied and restored from an older copy, and `tusd-py recover`."""

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import redis

from tests.chaos.plan import LEASE_TTL_S
from tests.support.processes import Redis, environment

PREFIX = "tusd:{0}:"
HOUR_MS = 3600 * 1000
RECOVER_S = 60.0  # for recover to succeed while other parts break
IN_USE_S = LEASE_TTL_S + 0.5  # before recover is run again for uploads in use: leases of dead holders have expired
MAX_RUNS = 3


class FragileRedis(Redis):
    """A redis-server with the faults of a run."""

    def freeze_for(self, seconds: float, ending: threading.Event) -> None:
        self.signal(signal.SIGSTOP)
        ending.wait(seconds)
        self.signal(signal.SIGCONT)

    def copy(self) -> Path:
        """Copy its data folder while it runs, and return the copy."""
        copy = self._folder.with_name(f"{self._folder.name}-{time.monotonic_ns()}")
        shutil.copytree(self._folder, copy)
        return copy

    def restore(self, copy: Path) -> None:
        """Kill it, and start it again with the data in a copy."""
        self.kill()
        shutil.rmtree(self._folder)
        copy.rename(self._folder)
        self.start()

    def lose_everything(self) -> None:
        """FLUSHALL."""
        with self._client() as client:
            client.flushall()

    def set_clock_back(self) -> int:
        """Move the end of every lease ahead by an hour, as if the clock were set back; return how many there were."""
        with self._client() as client:
            moved = 0
            for key in client.scan_iter(PREFIX + "upload:*"):
                # One atomic step: the holder may release the lease between a read and a write.
                moved += int(client.eval(SET_BACK, 1, key, HOUR_MS))
            return moved

    def is_held(self, upload_id: str) -> bool:
        """Return whether a replica has taken a lease on the upload."""
        with self._client() as client:
            return bool(client.hexists(f"{PREFIX}upload:{upload_id}", "lease_until"))

    def _client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url, decode_responses=True)


SET_BACK = """
if redis.call('HEXISTS', KEYS[1], 'lease_until') == 0 then return 0 end
redis.call('HINCRBY', KEYS[1], 'lease_until', ARGV[1])
return 1
"""


def recover(folder: Path, url: str) -> str:
    """Run `tusd-py recover` as an operator does: again if it fails or some uploads are in use.

    Return the output of the last run. Raises AssertionError if it does not succeed in time.
    """
    command = [sys.executable, "-m", "tusd_py", "recover", "--upload-dir", str(folder), "--redis-url", url]
    give_up_at = time.monotonic() + RECOVER_S
    runs = 0
    while True:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=RECOVER_S, env=environment())
        runs += ended.returncode == 0
        if ended.returncode == 0 and (runs == MAX_RUNS or not re.search(r"are in use", ended.stdout)):
            return ended.stdout
        assert time.monotonic() < give_up_at, f"recover does not succeed: {ended.stderr}"
        assert "Traceback" not in ended.stderr, ended.stderr
        time.sleep(IN_USE_S if ended.returncode == 0 else 0.5)
