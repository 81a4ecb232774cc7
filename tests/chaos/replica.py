"""`python -m tests.chaos.replica [clock=SECONDS] [trap=FILE ...] serve ...`: tusd-py with a wrong clock and traps.

clock: how far this process's clock is ahead. trap: see points.py.
"""

import sys
import time
from pathlib import Path


def main() -> None:
    """Apply clock= and trap=, then run tusd-py's command line with the other arguments."""
    traps = []
    while "=" in sys.argv[1] and not sys.argv[1].startswith("-"):
        name, _, value = sys.argv.pop(1).partition("=")
        if name == "trap":
            traps.append(Path(value))
        elif name == "clock":
            set_clock(float(value))
        else:
            sys.exit(f"{name} is neither clock nor trap")
    from tests.chaos.points import install  # after set_clock(): the server's modules may keep a reference to time.time

    install(traps)
    from tusd_py.cli import main

    main()


def set_clock(step_s: float) -> None:
    """Set the wall clock of this process ahead."""
    real = time.time
    time.time = lambda: real() + step_s


if __name__ == "__main__":
    main()
