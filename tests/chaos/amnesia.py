"""When the ledger knew less than it had acknowledged: from a loss until `tusd-py recover` had run."""

import math
import threading
import time
from enum import Enum, auto


class Loss(Enum):
    """What was lost."""

    NEWEST = auto()  # an older copy came back: records are behind, or not there
    EVERYTHING = auto()


class Amnesia:
    """Every loss of a run, with its times in monotonic seconds."""

    def __init__(self) -> None:
        self._losses: list[tuple[Loss, float]] = []  # and when it was made good
        self._lock = threading.Lock()

    def begins(self, loss: Loss) -> None:
        """Note that the ledger is about to lose something."""
        with self._lock:
            self._losses.append((loss, math.inf))

    def ends(self) -> None:
        """Note that recover has made good the last loss."""
        with self._lock:
            loss, _ = self._losses.pop()
            self._losses.append((loss, time.monotonic()))

    def since(self, at: float) -> Loss | None:
        """Return the last loss that was not made good yet at some moment since at, None if there was none."""
        with self._lock:
            return next((loss for loss, good_at in reversed(self._losses) if good_at >= at), None)
