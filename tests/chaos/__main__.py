"""`python -m tests.chaos [--seed N] [--seconds S] [--clients N]`: exit status 1 when anything was wrong."""

import argparse
import secrets
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.chaos.adversary import client_of
from tests.chaos.faults import Faults
from tests.chaos.figures import Figures
from tests.chaos.plan import Plan
from tests.chaos.seeds import make_plan
from tests.chaos.stage import Stage
from tests.chaos.theatre import Theatre
from tests.chaos.verdict import judge

MENDED_S = 180.0  # for the clients to finish once nothing breaks any more


def run(plan: Plan, folder: Path, *, verbose: bool) -> Figures:
    """Carry the plan out in an empty folder and return what was seen; figures.violations is empty when all is well."""
    figures = Figures(verbose)
    stage = Stage(folder, plan.length, clocks=plan.clocks)
    theatre = Theatre(stage, figures)
    try:
        stage.open()
        threads = [
            threading.Thread(target=client_of(uploads)(theatre, uploads, plan.seed * 1000 + n).run, name=f"client {n}")
            for n, uploads in enumerate(plan.clients)
        ]
        faults = Faults(plan, stage, figures, theatre.ending)
        faults.start()
        for thread in threads:
            thread.start()
        faults.join(plan.seconds + MENDED_S)
        figures.say("nothing breaks any more")
        give_up_at = time.monotonic() + MENDED_S
        for thread in threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        busy = [thread.name for thread in threads if thread.is_alive()]
        figures.say(f"all clients are done but {busy}" if busy else "all clients are done")
        theatre.ending.set()
        for thread in threads:
            thread.join(MENDED_S)
        judge(theatre)
        ended = figures.counts["uploads finished"] + figures.counts["uploads terminated"]
        if figures.counts["uploads begun"] != ended:
            figures.violated(f"{figures.counts['uploads begun']} uploads were begun, {ended} came to their end")
    finally:
        theatre.ending.set()
        stage.close()
    return figures


def report(plan: Plan, figures: Figures) -> str:
    """Return the figures as text."""
    counts = figures.counts
    lines = [f"seed {plan.seed}, {plan.seconds:g} s, {len(plan.clients)} clients", "", "faults"]
    lines += [f"{number:8}  {kind}" for kind, number in sorted(figures.faults.items())]
    lines += ["", "uploads"]
    first = ["uploads begun", "uploads finished", "uploads terminated"]
    others = sorted(name for name in counts if name not in first and not name.startswith("bytes "))
    lines += [f"{counts[name]:8}  {name}" for name in (*first, *others)]
    again = max(0, counts["bytes sent"] - counts["bytes kept"])
    lines += [f"{counts['bytes sent'] / 2**20:8.0f}  MiB sent", f"{again / 2**20:8.0f}  MiB of them in vain or twice"]
    lines += ["", "answers"]
    lines += [f"{number:8}  {method} {status}" for (method, status), number in sorted(figures.statuses.items())]
    lines += ["", "the longest wait for an answer, lease included"]
    lines += [f"{max(waits):6.1f} s  {method}" for method, waits in figures.waits_s.items() if waits]
    lines += ["", *(f"VIOLATED {what}" for what in figures.violations)]
    lines += [f"{len(figures.violations)} violations" if figures.violations else "nothing was lost, nothing is wrong"]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="the plan of an earlier run; default: a new one, which is printed")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long things break; default: %(default)s")
    parser.add_argument("--clients", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for logs and files; kept")
    given = parser.parse_args()
    if given.keep:
        given.keep.mkdir(parents=True)
    plan = make_plan(secrets.randbelow(10**6) if given.seed is None else given.seed, given.seconds, given.clients)
    print(f"seed {plan.seed}: {sum(map(len, plan.clients))} uploads, {plan.length / 2**20:.0f} MiB", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        figures = run(plan, given.keep or Path(temporary), verbose=True)
    print(report(plan, figures))
    return 1 if figures.violations else 0


if __name__ == "__main__":
    sys.exit(main())
