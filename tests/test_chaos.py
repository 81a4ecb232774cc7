"""A short run of the chaos harness, and whether it would notice. A long one: `python -m tests.chaos --seconds 600`."""

from pathlib import Path

import pytest

from tests.chaos.__main__ import report, run
from tests.chaos.plan import Manner, PlannedUpload, make_plan
from tests.chaos.source import span
from tests.chaos.witness import Figures, Witness

SEED, SECONDS, CLIENTS = 1, 20.0, 12
LENGTH = 200_000  # bytes


@pytest.mark.timeout(400)
def test_nothing_is_lost_whatever_breaks(tmp_path: Path) -> None:
    """Replicas killed and frozen; Redis, nginx, the pipeline away; a full disk; cut connections, clients that lie."""
    plan = make_plan(SEED, SECONDS, CLIENTS)
    figures = run(plan, tmp_path, verbose=False)
    print(report(plan, figures))

    assert [] == figures.violations
    assert sum(map(len, plan.clients)) == figures.counts["uploads finished"] + figures.counts["uploads terminated"]
    assert figures.counts["resumes"] > 0
    assert len(figures.faults) > 5


def test_a_seed_makes_one_plan() -> None:
    assert make_plan(7, 30.0, 12) == make_plan(7, 30.0, 12)
    assert make_plan(7, 30.0, 12) != make_plan(8, 30.0, 12)


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    planned = PlannedUpload(seed=5, length=LENGTH, piece=LENGTH, rate=1e9, manner=Manner.PLAIN)
    return Witness(planned, "upload", tmp_path, Figures(verbose=False))


def test_a_witness_sees_foreign_bytes(witness: Witness) -> None:
    """What was acknowledged as one writer's and is another's later, by one byte, is told with its place."""
    right = span(5, 0, 0, LENGTH)
    witness.path.write_bytes(right)
    witness.told(LENGTH, 0, "PATCH")

    assert [] == witness.wrong_ranges()

    witness.path.write_bytes(right[:150_000] + bytes([right[150_000] ^ 1]) + right[150_001:])

    assert 1 == len(witness.wrong_ranges())
    assert "from 150000 on" in witness.wrong_ranges()[0]

    witness.path.write_bytes(right[:-1])

    assert f"has {LENGTH - 1} bytes" in witness.wrong_ranges()[0]


def test_a_witness_sees_a_mixture_of_writers(witness: Witness) -> None:
    witness.next_variant()
    witness.path.write_bytes(span(5, 0, 0, 100) + span(5, 1, 100, LENGTH))
    witness.told(LENGTH, 0, "HEAD")

    assert "no one writer's bytes" in witness._figures.violations[0]


def test_a_witness_sees_an_offset_that_falls(witness: Witness) -> None:
    witness.path.write_bytes(span(5, 0, 0, LENGTH))
    witness.told(1000, 0, "PATCH")
    witness.told(999, witness.acknowledged, "HEAD")

    assert "told 999, 1000 had been acknowledged" in witness._figures.violations[0]
