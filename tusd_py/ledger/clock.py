"""The time of a ledger: the same for every replica, and not moved by whoever sets the clock of a machine."""

import logging
import time
from collections.abc import Callable

from ..protocol.refusals import Unavailable

LARGEST_STEP_S = 3600.0  # a clock is set by less when it is corrected; by more when it is wrong before or after

log = logging.getLogger("tusd_py")


def elapsed() -> float:
    """Return seconds that nobody sets, and that go on while the machine sleeps where the system counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Clock:
    """Unix seconds as the ledger gives them, carried on between its answers."""

    def __init__(self, elapsed: Callable[[], float] = elapsed) -> None:
        self.is_steady = True
        self._elapsed = elapsed
        self._zero: float | None = None  # Unix seconds when elapsed() was 0

    def set(self, at: float) -> None:
        """Take the time that the ledger gave just now, in Unix seconds.

        A time that is more than LARGEST_STEP_S off is not taken: uploads would expire all at once, or never. Nothing is
        removed for its age until the clock is back, or this process was started again.
        """
        zero = at - self._elapsed()
        step = 0.0 if self._zero is None else zero - self._zero
        was_steady, self.is_steady = self.is_steady, abs(step) <= LARGEST_STEP_S
        if self.is_steady:
            self._zero = zero
        elif was_steady:
            log.error(
                "the clock of the ledger was set by %.0f s; expired uploads stay until it is set back, or, if it is"
                " right now, until this server is started again", step,
            )  # fmt: skip

    def now(self) -> float:
        """Return the time, in Unix seconds. Raises Unavailable before the ledger gave any."""
        if self._zero is None:
            raise Unavailable("The upload ledger has not answered yet; try again")
        return self._zero + self._elapsed()
