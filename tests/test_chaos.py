"""A short run of the chaos test, and tests that it finds faults. A long run: `python -m tests.chaos`."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.connection import encode_chunked
from tests.chaos.disk import Disk
from tests.chaos.figures import Figures
from tests.chaos.plan import MIB, Manner, PlannedUpload
from tests.chaos.points import POINTS, set_trap
from tests.chaos.scenarios import run_scenarios
from tests.chaos.seeds import make_plan
from tests.chaos.source import span
from tests.chaos.tracking import TrackedUpload

LENGTH = 200_000  # bytes


@pytest.mark.timeout(400)
def test_nothing_is_lost_whatever_breaks(tmp_path: Path) -> None:
    """A replica dies at every point, all are restarted, the disk is full or unmounted, Redis loses data."""
    figures = run_scenarios(tmp_path, verbose=True)

    assert [] == figures.violations
    assert {f"died: {name}" for name in POINTS} == set(figures.faults)
    assert figures.counts["uploads begun"] > len(POINTS)
    assert figures.counts["bodies that had to yield"] > 0
    assert 2 == figures.counts["uploads vanished before their first byte"]  # one in each ledger that was lost


def test_a_seed_makes_one_plan() -> None:
    assert make_plan(7, 30.0, 12) == make_plan(7, 30.0, 12)
    assert make_plan(7, 30.0, 12) != make_plan(8, 30.0, 12)


@pytest.fixture
def upload(tmp_path: Path) -> TrackedUpload:
    planned = PlannedUpload(seed=5, length=LENGTH, piece=LENGTH, rate=1e9, manner=Manner.PLAIN)
    return TrackedUpload(planned, "upload", tmp_path, Figures(verbose=False))


def test_a_changed_byte_is_found(upload: TrackedUpload) -> None:
    """One acknowledged byte that changes later is reported with its place, and so is a missing one."""
    right = span(5, 0, 0, LENGTH)
    upload.path.write_bytes(right)
    upload.note_offset(LENGTH, 0, "PATCH")

    assert [] == upload.wrong_ranges()

    upload.path.write_bytes(right[:150_000] + bytes([right[150_000] ^ 1]) + right[150_001:])

    assert 1 == len(upload.wrong_ranges())
    assert "from 150000 on" in upload.wrong_ranges()[0]

    upload.path.write_bytes(right[:-1])

    assert f"has {LENGTH - 1} bytes" in upload.wrong_ranges()[0]


def test_a_mixture_of_two_writers_is_found(upload: TrackedUpload) -> None:
    upload.next_variant()
    upload.path.write_bytes(span(5, 0, 0, 100) + span(5, 1, 100, LENGTH))
    upload.note_offset(LENGTH, 0, "HEAD")

    assert "does not have the bytes of a single writer" in upload._figures.violations[0]


def test_an_offset_that_falls_is_found(upload: TrackedUpload) -> None:
    upload.path.write_bytes(span(5, 0, 0, LENGTH))
    upload.note_offset(1000, 0, "PATCH")
    upload.note_offset(999, upload.acknowledged, "HEAD")

    assert "offset 999 in HEAD, 1000 had been acknowledged" in upload._figures.violations[0]


def test_an_offset_may_fall_when_an_older_ledger_is_restored(upload: TrackedUpload) -> None:
    """The client sends the bytes above the lower offset again, and each piece is still one writer's."""
    variant = upload.next_variant()
    upload.path.write_bytes(span(5, 0, 0, 1000) + span(5, variant, 1000, LENGTH))
    upload.note_offset(1000, 0, "PATCH")
    upload.note_offset(LENGTH, 1000, "PATCH")
    upload.note_offset(500, LENGTH, "HEAD", may_be_behind=True)

    assert 500 == upload.acknowledged

    upload.note_offset(LENGTH, 500, "PATCH")

    assert [] == upload._figures.violations
    assert [] == upload.wrong_ranges()


def test_a_body_in_chunked_coding_is_whole_or_not() -> None:
    body = span(5, 0, 0, LENGTH)
    read, rest = b"", encode_chunked(body, is_whole=True)
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        read, rest = read + rest[: int(size, 16)], rest[int(size, 16) + 2 :]

    assert body == read
    assert encode_chunked(body, is_whole=True) == encode_chunked(body, is_whole=False) + b"0\r\n\r\n"


def test_files_written_in_the_place_of_the_volume_are_found(tmp_path: Path) -> None:
    """remount() returns their names, and the volume is as before."""
    disk = Disk(tmp_path / "uploads", MIB)
    try:
        (disk.folder / "mine").touch()
        for leave_a_folder in (True, False):
            disk.unmount(leave_a_folder=leave_a_folder)

            assert leave_a_folder == disk.folder.exists()
            assert ["mine"] == [path.name for path in disk.content.iterdir()]

            if leave_a_folder:
                (disk.folder / "wrong").touch()

            assert (["wrong"] if leave_a_folder else []) == disk.remount()
            assert ["mine"] == [path.name for path in disk.folder.iterdir()]
    finally:
        disk.close()


def test_a_trap_works_once(tmp_path: Path) -> None:
    """It kills the first process that reaches its point, and no other."""
    trap = tmp_path / "trap"
    set_trap(trap, "here")
    code = (
        "import sys, pathlib; from tests.chaos.points import die_at; die_at(sys.argv[1], [pathlib.Path(sys.argv[2])])"
    )
    statuses = [
        subprocess.run([sys.executable, "-c", code, at, str(trap)]).returncode for at in ("there", "here", "here")
    ]

    assert [0, -signal.SIGKILL, 0] == statuses
    assert 1 == len(list(tmp_path.iterdir()))
