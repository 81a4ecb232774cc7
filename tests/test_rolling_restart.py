"""Three replicas behind nginx are restarted one after the other while clients upload: no client gets a 5xx."""

import threading
from pathlib import Path

import pytest

from tests.chaos.clients import Client
from tests.chaos.deployment import Deployment
from tests.chaos.figures import Figures
from tests.chaos.final_checks import find_problems
from tests.chaos.harness import Harness
from tests.chaos.plan import MIB, Manner, PlannedUpload
from tests.support.processes import end

CLIENTS = 12
ROUNDS = 2
LENGTH, PIECE = 6 * MIB, 3 * MIB
RATE = 1.0 * MIB  # bytes per second; slow enough that every restart interrupts some PATCHes


@pytest.mark.timeout(300)
def test_clients_do_not_notice_a_rolling_restart(tmp_path: Path) -> None:
    """Every upload finishes, a PATCH that has to yield is answered 204, and nginx never answers 502 or 504."""
    planned = PlannedUpload(seed=3, length=LENGTH, piece=PIECE, rate=RATE, manner=Manner.PLAIN)
    figures = Figures(verbose=False)
    deployment = Deployment(tmp_path, 20 * CLIENTS * LENGTH, "--grace", "1")
    harness = Harness(deployment, figures)
    restarted = threading.Event()

    def upload(n: int) -> None:
        while not restarted.is_set():
            Client(harness, (planned,), n).run()

    threads = [threading.Thread(target=upload, args=(n,)) for n in range(CLIENTS)]
    try:
        deployment.open()
        for thread in threads:
            thread.start()
        for _ in range(ROUNDS):
            for replica in deployment.replicas:
                assert replica.server
                end(replica.server.process)
                replica.start()
        restarted.set()
        for thread in threads:
            thread.join(60)
        wrong = list(find_problems(harness))
    finally:
        restarted.set()
        harness.ending.set()
        deployment.close()
    answers = {status for _, status in figures.statuses if status[0].isdigit()}

    assert [] == wrong
    assert answers <= {"200", "201", "204"}, figures.statuses
    assert figures.counts["uploads begun"] >= CLIENTS
    assert figures.statuses["PATCH", "204"] > 2 * figures.counts["uploads begun"]  # some had to yield
