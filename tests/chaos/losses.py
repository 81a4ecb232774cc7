"""When the ledger had lost data that it had acknowledged: from each loss until `tusd-py recover` had run."""

import math
import threading
import time
from enum import Enum, auto


class Loss(Enum):
    """What was lost."""

    NEWEST = auto()  # an older copy was restored: records are behind or missing
    EVERYTHING = auto()


class Losses:
    """Every loss of a run, with its times in monotonic seconds."""

    def __init__(self) -> None:
        self._losses: list[tuple[Loss, float]] = []  # with the time of its recovery
        self._lock = threading.Lock()

    def begin(self, loss: Loss) -> None:
        """Record that the ledger is about to lose data."""
        with self._lock:
            self._losses.append((loss, math.inf))

    def end(self) -> None:
        """Record that `tusd-py recover` has restored what the last loss took."""
        with self._lock:
            loss, _ = self._losses.pop()
            self._losses.append((loss, time.monotonic()))

    def since(self, at: float) -> Loss | None:
        """Return the last loss that had not been recovered from at that time or came later; None if there is none."""
        with self._lock:
            return next((loss for loss, recovered_at in reversed(self._losses) if recovered_at >= at), None)
