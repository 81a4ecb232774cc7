"""The counts and the violations of a run, from all its threads."""

import threading
import time
from collections import Counter


class Figures:
    """Counts and violations; every method can be called from any thread."""

    def __init__(self, verbose: bool) -> None:
        self.faults: Counter[str] = Counter()
        self.statuses: Counter[tuple[str, str]] = Counter()  # method; status, or why there was none
        self.waits_s: dict[str, list[float]] = {"HEAD": [], "PATCH": [], "POST": [], "DELETE": []}
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._lock = threading.Lock()
        self._verbose = verbose
        self._begun_at = time.monotonic()

    def count_fault(self, kind: str, what: str) -> None:
        """Count a fault."""
        with self._lock:
            self.faults[kind] += 1
        self.log(what)

    def count_answer(self, method: str, status: str, waited_s: float) -> None:
        """Count an answer, or the lack of one."""
        with self._lock:
            self.statuses[method, status] += 1
            self.waits_s[method].append(waited_s)

    def count(self, what: str, how_many: int = 1) -> None:
        with self._lock:
            self.counts[what] += how_many

    def add_violation(self, what: str) -> None:
        """Record that something is wrong."""
        with self._lock:
            self.violations.append(f"at {time.monotonic() - self._begun_at:.1f} s: {what}")
        self.log(f"VIOLATION: {what}")

    def log(self, what: str) -> None:
        """Print a line with the time since the beginning, if verbose."""
        if self._verbose:
            print(f"{time.monotonic() - self._begun_at:7.1f} s  {what}", flush=True)
