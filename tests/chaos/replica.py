"""`python -m tests.chaos.replica [clock=SECONDS] [trap=FILE ...] serve ...`: tusd-py with a wrong clock and traps.

clock: how far this machine's clock is off, for this process. trap: see points.py.
"""

import sys
import time
from pathlib import Path


def main() -> None:
    """Run the command line behind the arguments that are for us."""
    traps = []
    while "=" in sys.argv[1] and not sys.argv[1].startswith("-"):
        name, _, value = sys.argv.pop(1).partition("=")
        if name == "trap":
            traps.append(Path(value))
        elif name == "clock":
            set_clock(float(value))
        else:
            sys.exit(f"{name} is neither clock nor trap")
    from tests.chaos.points import lay  # imports the server, which may keep time.time

    lay(traps)
    from tusd_py.cli import main

    main()


def set_clock(step_s: float) -> None:
    """Put the wall clock of this process that far ahead."""
    right = time.time
    time.time = lambda: right() + step_s


if __name__ == "__main__":
    main()
