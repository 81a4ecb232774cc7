"""What was counted and what was seen to be wrong, by all threads of a run."""

import threading
import time
from collections import Counter


class Figures:
    """What was counted, by all threads."""

    def __init__(self, verbose: bool) -> None:
        self.faults: Counter[str] = Counter()
        self.statuses: Counter[tuple[str, str]] = Counter()  # method; status, or why there was none
        self.waits_s: dict[str, list[float]] = {"HEAD": [], "PATCH": [], "POST": [], "DELETE": []}
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._lock = threading.Lock()
        self._verbose = verbose
        self._begun_at = time.monotonic()

    def happened(self, kind: str, what: str) -> None:
        """Count a fault."""
        with self._lock:
            self.faults[kind] += 1
        self.say(what)

    def answered(self, method: str, status: str, waited_s: float) -> None:
        """Count an answer, or the lack of one."""
        with self._lock:
            self.statuses[method, status] += 1
            self.waits_s[method].append(waited_s)

    def count(self, what: str, how_many: int = 1) -> None:
        with self._lock:
            self.counts[what] += how_many

    def violated(self, what: str) -> None:
        """Note that something is not as it has to be."""
        with self._lock:
            self.violations.append(f"at {time.monotonic() - self._begun_at:.1f} s: {what}")
        self.say(f"VIOLATED: {what}")

    def say(self, what: str) -> None:
        if self._verbose:
            print(f"{time.monotonic() - self._begun_at:7.1f} s  {what}", flush=True)
