"""The rehearsal of the chaos harness, and whether it would notice. A long run: `python -m tests.chaos`."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.disk import Disk
from tests.chaos.figures import Figures
from tests.chaos.plan import MIB, Manner, PlannedUpload
from tests.chaos.points import POINTS, lay_trap
from tests.chaos.rehearsal import rehearse
from tests.chaos.seeds import make_plan
from tests.chaos.source import span
from tests.chaos.wire import coded
from tests.chaos.witness import Witness

LENGTH = 200_000  # bytes


@pytest.mark.timeout(400)
def test_nothing_is_lost_whatever_breaks(tmp_path: Path) -> None:
    """A replica dies at every point of its work, all are restarted, the disk is full or away, Redis forgets."""
    figures = rehearse(tmp_path, verbose=True)

    assert [] == figures.violations
    assert {f"died: {name}" for name in POINTS} == set(figures.faults)
    assert figures.counts["uploads begun"] > len(POINTS)
    assert figures.counts["bodies that had to yield"] > 0
    assert 2 == figures.counts["uploads vanished before their first byte"]  # one in each ledger that was lost


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


def test_a_witness_lets_an_offset_fall_with_an_older_ledger(witness: Witness) -> None:
    """Whoever was told the older one writes from there again, and each piece is still one writer's."""
    variant = witness.next_variant()
    witness.path.write_bytes(span(5, 0, 0, 1000) + span(5, variant, 1000, LENGTH))
    witness.told(1000, 0, "PATCH")
    witness.told(LENGTH, 1000, "PATCH")
    witness.told(500, LENGTH, "HEAD", may_be_behind=True)

    assert 500 == witness.acknowledged

    witness.told(LENGTH, 500, "PATCH")

    assert [] == witness._figures.violations
    assert [] == witness.wrong_ranges()


def test_a_body_in_chunked_coding_is_whole_or_not() -> None:
    body = span(5, 0, 0, LENGTH)
    read, rest = b"", coded(body, is_whole=True)
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        read, rest = read + rest[: int(size, 16)], rest[int(size, 16) + 2 :]

    assert body == read
    assert coded(body, is_whole=True) == coded(body, is_whole=False) + b"0\r\n\r\n"


def test_what_is_written_in_the_place_of_the_volume_is_seen(tmp_path: Path) -> None:
    """And the volume is back as it was."""
    disk = Disk(tmp_path / "uploads", MIB)
    try:
        (disk.folder / "mine").touch()
        for leave_a_folder in (True, False):
            disk.take_away(leave_a_folder=leave_a_folder)

            assert leave_a_folder == disk.folder.exists()
            assert ["mine"] == [path.name for path in disk.content.iterdir()]

            if leave_a_folder:
                (disk.folder / "wrong").touch()

            assert (["wrong"] if leave_a_folder else []) == disk.bring_back()
            assert ["mine"] == [path.name for path in disk.folder.iterdir()]
    finally:
        disk.close()


def test_a_trap_is_taken_once(tmp_path: Path) -> None:
    """By a process that passes its point, and by no other."""
    trap = tmp_path / "trap"
    lay_trap(trap, "here")
    code = (
        "import sys, pathlib; from tests.chaos.points import die_at; die_at(sys.argv[1], [pathlib.Path(sys.argv[2])])"
    )
    statuses = [
        subprocess.run([sys.executable, "-c", code, at, str(trap)]).returncode for at in ("there", "here", "here")
    ]

    assert [0, -signal.SIGKILL, 0] == statuses
    assert 1 == len(list(tmp_path.iterdir()))
