"""Three replicas behind nginx are restarted one after the other while clients upload: nobody sees a 5xx."""

import threading
from pathlib import Path

import pytest

from tests.chaos.clients import Client
from tests.chaos.figures import Figures
from tests.chaos.plan import MIB, Manner, PlannedUpload
from tests.chaos.stage import Stage
from tests.chaos.theatre import Theatre
from tests.chaos.verdict import verdict
from tests.support.processes import end

CLIENTS = 12
ROUNDS = 2
LENGTH, PIECE = 6 * MIB, 3 * MIB
RATE = 1.0 * MIB  # bytes a second: every restart meets PATCHes in the middle


@pytest.mark.timeout(300)
def test_a_rolling_restart_is_seen_by_nobody(tmp_path: Path) -> None:
    """Every upload finishes, a PATCH that had to yield is a 204, and nginx has no failure to report."""
    planned = PlannedUpload(seed=3, length=LENGTH, piece=PIECE, rate=RATE, manner=Manner.PLAIN)
    figures = Figures(verbose=False)
    stage = Stage(tmp_path, 20 * CLIENTS * LENGTH, "--grace", "1")
    theatre = Theatre(stage, figures)
    restarted = threading.Event()

    def upload(n: int) -> None:
        while not restarted.is_set():
            Client(theatre, (planned,), n).run()

    threads = [threading.Thread(target=upload, args=(n,)) for n in range(CLIENTS)]
    try:
        stage.open()
        for thread in threads:
            thread.start()
        for _ in range(ROUNDS):
            for replica in stage.replicas:
                assert replica.server
                end(replica.server.process)
                replica.start()
        restarted.set()
        for thread in threads:
            thread.join(60)
        wrong = list(verdict(theatre))
    finally:
        restarted.set()
        theatre.ending.set()
        stage.close()
    answers = {status for _, status in figures.statuses if status[0].isdigit()}

    assert [] == wrong
    assert answers <= {"200", "201", "204"}, figures.statuses
    assert figures.counts["uploads begun"] >= CLIENTS
    assert figures.statuses["PATCH", "204"] > 2 * figures.counts["uploads begun"]  # some were asked to yield
