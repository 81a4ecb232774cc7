"""Runs the chaos test with a plan made from a seed; the exit status is 1 if there were violations."""

import argparse
import secrets
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.chaos.conflicting import client_of
from tests.chaos.deployment import Deployment
from tests.chaos.faults import FaultSchedule
from tests.chaos.figures import Figures
from tests.chaos.final_checks import check_all
from tests.chaos.harness import Harness
from tests.chaos.plan import Plan
from tests.chaos.seeds import make_plan

FINISH_S = 180.0  # for the clients to finish after the last fault


def run(plan: Plan, folder: Path, *, verbose: bool) -> Figures:
    """Carry out the plan in an empty folder and return its figures; figures.violations is empty if nothing is wrong."""
    figures = Figures(verbose)
    deployment = Deployment(folder, plan.length, clocks=plan.clocks)
    harness = Harness(deployment, figures)
    try:
        deployment.open()
        threads = [
            threading.Thread(target=client_of(uploads)(harness, uploads, plan.seed * 1000 + n).run, name=f"client {n}")
            for n, uploads in enumerate(plan.clients)
        ]
        faults = FaultSchedule(plan, deployment, figures, harness.ending)
        faults.start()
        for thread in threads:
            thread.start()
        faults.join(plan.seconds + FINISH_S)
        figures.log("the last fault is over")
        give_up_at = time.monotonic() + FINISH_S
        for thread in threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        busy = [thread.name for thread in threads if thread.is_alive()]
        figures.log(f"still busy: {busy}" if busy else "all clients are done")
        harness.ending.set()
        for thread in threads:
            thread.join(FINISH_S)
        check_all(harness)
        ended = figures.counts["uploads finished"] + figures.counts["uploads terminated"]
        if figures.counts["uploads begun"] != ended:
            figures.add_violation(f"{figures.counts['uploads begun']} uploads were begun, {ended} ended")
    finally:
        harness.ending.set()
        deployment.close()
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
    lines += [f"{counts['bytes sent'] / 2**20:8.0f}  MiB sent", f"{again / 2**20:8.0f}  MiB of them not kept"]
    lines += ["", "answers"]
    lines += [f"{number:8}  {method} {status}" for (method, status), number in sorted(figures.statuses.items())]
    lines += ["", "longest wait for an answer, including the wait for a lease"]
    lines += [f"{max(waits):6.1f} s  {method}" for method, waits in figures.waits_s.items() if waits]
    lines += ["", *(f"VIOLATION {what}" for what in figures.violations)]
    lines += [f"{len(figures.violations)} violations" if figures.violations else "no violations"]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, help="repeats the plan of an earlier run; default: a random one, which is printed"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults happen; default: %(default)s")
    parser.add_argument("--clients", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for logs and files, which is kept")
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
