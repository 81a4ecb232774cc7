"""Redis, and everything that may happen to it: killed, frozen, emptied, restored from an older copy, its clock set."""

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
RECOVER_S = 60.0  # for recover to get through, while other things break
IN_USE_S = LEASE_TTL_S + 0.5  # before it looks again at what was in use: a dead holder's lease has run out
MOST_LOOKS = 3


class FragileRedis(Redis):
    """A redis-server that all this happens to."""

    def freeze_for(self, seconds: float, ending: threading.Event) -> None:
        self.signal(signal.SIGSTOP)
        ending.wait(seconds)
        self.signal(signal.SIGCONT)

    def copy(self) -> Path:
        """Return a copy of its data as they are now; it goes on meanwhile."""
        copy = self._folder.with_name(f"{self._folder.name}-{time.monotonic_ns()}")
        shutil.copytree(self._folder, copy)
        return copy

    def restore(self, copy: Path) -> None:
        """Kill it, and start it again with the data of a copy."""
        self.kill()
        shutil.rmtree(self._folder)
        copy.rename(self._folder)
        self.start()

    def lose_everything(self) -> None:
        """FLUSHALL."""
        with self._client() as client:
            client.flushall()

    def set_clock_back(self) -> int:
        """Make every lease as it looks when the clock was set back by an hour; return how many there were."""
        with self._client() as client:
            moved = 0
            for key in client.scan_iter(PREFIX + "upload:*"):
                # In one step: the holder may let go between a look and a write, and a field would be left over.
                moved += int(client.eval(SET_BACK, 1, key, HOUR_MS))
            return moved

    def is_held(self, upload_id: str) -> bool:
        """Return whether somebody has taken a lease on the upload."""
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
    """Run `tusd-py recover` as an operator does: again while it fails, and while some uploads are in use.

    Return what it printed last. Raises AssertionError when it does not get through.
    """
    command = [sys.executable, "-m", "tusd_py", "recover", "--upload-dir", str(folder), "--redis-url", url]
    give_up_at = time.monotonic() + RECOVER_S
    looks = 0
    while True:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=RECOVER_S, env=environment())
        looks += ended.returncode == 0
        if ended.returncode == 0 and (looks == MOST_LOOKS or not re.search(r"are in use", ended.stdout)):
            return ended.stdout
        assert time.monotonic() < give_up_at, f"recover does not get through: {ended.stderr}"
        assert "Traceback" not in ended.stderr, ended.stderr
        time.sleep(IN_USE_S if ended.returncode == 0 else 0.5)
