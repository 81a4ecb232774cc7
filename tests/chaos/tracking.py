"""What the servers acknowledged about an upload, and which variant of its bytes belongs where."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.figures import Figures
from tests.chaos.plan import PlannedUpload
from tests.chaos.source import first_difference, span


@dataclass(frozen=True)
class Range:
    """Bytes that the server acknowledged to one writer; each writer sends another variant of the file."""

    start: int
    end: int
    variant: int


class TrackedUpload:
    """One upload, with everything that any client was answered about it.

    Bytes below an acknowledged offset must never change. Every PATCH begins at an acknowledged offset, so the bytes
    between two acknowledged offsets in a row must all be one writer's. Only a ledger that was restored from an older
    copy may acknowledge less than before. The earlier offsets stay boundaries between writers then.
    """

    def __init__(
        self,
        planned: PlannedUpload,
        upload_id: str,
        folder: Path,
        figures: Figures,
        whole: tuple[int, int] | None = None,
    ) -> None:
        """whole: for a partial upload, the seed of the whole file and the offset of this part in it."""
        self.planned = planned
        self.upload_id = upload_id
        self.path = folder / upload_id
        self.is_partial = whole is not None
        self.created_at = time.monotonic()  # the client sets it to the time before its request
        self.terminated_at: float | None = None
        self.has_vanished = False  # the ledger lost its record before it had a byte
        self.finished = False
        self.acknowledged = 0
        self.highest = 0  # the highest offset that was ever acknowledged
        self.ranges: list[Range] = []
        self.writes: list[Range] = []
        self._seed, self._base = whole or (planned.seed, 0)
        self._figures = figures
        self._boundaries: set[int] = set()
        self._variants = 1  # number of variants sent so far
        self._lock = threading.Lock()

    @property
    def terminated(self) -> bool:
        return self.terminated_at is not None

    @property
    def over(self) -> bool:
        return self.finished or self.terminated or self.has_vanished

    @property
    def was_rolled_back(self) -> bool:
        """Whether the acknowledged offset has ever fallen: late answers to earlier requests are no longer valid."""
        return bool(self._boundaries)

    def next_variant(self) -> int:
        """Return the variant to send from now on."""
        with self._lock:
            self._variants += 1
            return self._variants - 1

    def bytes_of(self, variant: int, start: int, end: int) -> bytes:
        return span(self._seed, variant, self._base + start, self._base + end)

    def note_offset(self, offset: int, floor: int, by: str, *, may_be_behind: bool = False) -> None:
        """Record and check the offset in an answer; floor is the offset acknowledged before the request.

        by: names the answer in messages. may_be_behind: an older ledger had been restored, so less than floor is
        allowed.
        """
        with self._lock:
            if offset < floor and may_be_behind:
                self._roll_back(offset)
            elif offset < floor:
                self._add_violation(f"offset {offset} in {by}, {floor} had been acknowledged before")
            if offset > self.planned.length:
                self._add_violation(f"offset {offset} in {by}, the file has {self.planned.length} bytes")
            elif offset > self.acknowledged:
                if not self.terminated:
                    self._check_between_boundaries(self.acknowledged, offset, by)
                self.acknowledged = offset
                self.highest = max(self.highest, offset)
            self.finished = self.finished or self.acknowledged == self.planned.length

    def note_written(self, start: int, end: int, variant: int, by: str) -> None:
        """Record that the answer to a PATCH acknowledged a writer's bytes from start to end."""
        self.note_offset(end, start, by)
        with self._lock:
            self.writes.append(Range(start, end, variant))

    def wrong_ranges(self) -> list[str]:
        """Return the differences between the file and what was acknowledged, as text."""
        content = self.path.read_bytes()
        wrong = []
        if len(content) != self.planned.length:
            wrong.append(f"has {len(content)} bytes, not {self.planned.length}")
        for kind, some in (("acknowledged", self.ranges), ("written", self.writes)):
            for one in some:
                there, right = content[one.start : one.end], self.bytes_of(one.variant, one.start, one.end)
                if there != right:
                    at = one.start + first_difference(there, right)
                    wrong.append(
                        f"{kind} {one} differs from {at} on, where the file has {self._writer_at(content, at)}"
                    )
        return wrong

    def _roll_back(self, offset: int) -> None:
        """Forget the writers of the bytes above offset: the client that received this offset writes them again."""
        self._boundaries |= {one.end for one in self.ranges if one.end > offset}
        self.ranges, self.writes = (
            [Range(one.start, min(one.end, offset), one.variant) for one in some if one.start < offset]
            for some in (self.ranges, self.writes)
        )
        self.acknowledged = offset

    def _check_between_boundaries(self, start: int, end: int, by: str) -> None:
        """Check each piece between two boundaries: each must be one writer's."""
        ends = [*sorted(at for at in self._boundaries if start < at < end), end]
        for one_start, one_end in zip([start, *ends], ends, strict=False):
            self._check(one_start, one_end, by)

    def _check(self, start: int, end: int, by: str) -> None:
        """Find the writer of the bytes that have just been acknowledged: they must all be one writer's."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                there = file.read(end - start)
        except FileNotFoundError:
            self._add_violation(f"offset {end} in {by}, but there is no file")
            return
        for variant in reversed(range(self._variants)):
            if there == self.bytes_of(variant, start, end):
                self.ranges.append(Range(start, end, variant))
                return
        places = [start + first_difference(there, self.bytes_of(v, start, end)) for v in range(self._variants)]
        self._add_violation(
            f"offset {end} in {by} after {start}, but the file does not have the bytes of a single writer there: "
            f"{len(there)} bytes, which agree with those of writers 0, 1, ... up to {places}"
        )

    def _writer_at(self, content: bytes, at: int) -> str:
        piece = content[at : at + 32]
        found = [v for v in range(self._variants) if piece == self.bytes_of(v, at, at + len(piece))]
        zeros = " (zeros)" if not any(piece) else ""
        return f"bytes of writer {found[0]}" if found and piece else f"bytes of no writer{zeros}"

    def _add_violation(self, what: str) -> None:
        self._figures.add_violation(f"upload {self.upload_id} ({self.planned.manner}): {what}")
