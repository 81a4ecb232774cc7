"""What was acknowledged, and by whom it was written: the evidence on which verdict.py judges."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.figures import Figures
from tests.chaos.plan import PlannedUpload
from tests.chaos.source import first_difference, span


@dataclass(frozen=True)
class Range:
    """Bytes that one writer was told are safe."""

    start: int
    end: int
    variant: int


class Witness:
    """One upload, and everything that anybody was told of it.

    An offset that was told fixes everything below it. Every PATCH begins at an offset that was told, so what lies
    between two neighbouring told offsets is one writer's: a second writer began where the first was told to have ended.
    Only a ledger that came back with older records may tell less; what was told before stays a seam then.
    """

    def __init__(
        self,
        planned: PlannedUpload,
        upload_id: str,
        folder: Path,
        figures: Figures,
        whole: tuple[int, int] | None = None,
    ) -> None:
        """whole: the seed of the file that this upload is a part of, and where in it the part begins."""
        self.planned = planned
        self.upload_id = upload_id
        self.path = folder / upload_id
        self.is_partial = whole is not None
        self.created_at = time.monotonic()  # or later, by the time that the answer took
        self.terminated_at: float | None = None
        self.has_vanished = False  # it had no byte, and went with a ledger that lost its record
        self.finished = False
        self.acknowledged = 0
        self.highest = 0  # that was ever acknowledged
        self.ranges: list[Range] = []
        self.claims: list[Range] = []
        self._seed, self._base = whole or (planned.seed, 0)
        self._figures = figures
        self._seams: set[int] = set()
        self._variants = 1  # that were sent so far
        self._lock = threading.Lock()

    @property
    def terminated(self) -> bool:
        return self.terminated_at is not None

    @property
    def over(self) -> bool:
        return self.finished or self.terminated or self.has_vanished

    @property
    def was_taken_back(self) -> bool:
        """Whether somebody was told less than was acknowledged before: old answers count no longer."""
        return bool(self._seams)

    def next_variant(self) -> int:
        """Return the variant to send from now on."""
        with self._lock:
            self._variants += 1
            return self._variants - 1

    def bytes_of(self, variant: int, start: int, end: int) -> bytes:
        return span(self._seed, variant, self._base + start, self._base + end)

    def told(self, offset: int, floor: int, by: str, *, may_be_behind: bool = False) -> None:
        """Note an offset that was told in an answer to a request; floor was acknowledged when the request began.

        may_be_behind: the ledger had come back with older records when it was told.
        """
        with self._lock:
            if offset < floor and may_be_behind:
                self._take_back(offset)
            elif offset < floor:
                self._violated(f"{by} told {offset}, {floor} had been acknowledged before")
            if offset > self.planned.length:
                self._violated(f"{by} told {offset}, the file has {self.planned.length} bytes")
            elif offset > self.acknowledged:
                if not self.terminated:
                    self._look_between_seams(self.acknowledged, offset, by)
                self.acknowledged = offset
                self.highest = max(self.highest, offset)
            self.finished = self.finished or self.acknowledged == self.planned.length

    def claimed(self, start: int, end: int, variant: int, by: str) -> None:
        """Note that a writer was told, in answer to a PATCH, that its bytes from start to end are there."""
        self.told(end, start, by)
        with self._lock:
            self.claims.append(Range(start, end, variant))

    def wrong_ranges(self) -> list[str]:
        """Return what is not as it was told, of the file as it is now."""
        content = self.path.read_bytes()
        wrong = []
        if len(content) != self.planned.length:
            wrong.append(f"has {len(content)} bytes, not {self.planned.length}")
        for kind, some in (("acknowledged", self.ranges), ("written", self.claims)):
            for one in some:
                there, right = content[one.start : one.end], self.bytes_of(one.variant, one.start, one.end)
                if there != right:
                    at = one.start + first_difference(there, right)
                    whose = self._whose_at(content, at)
                    wrong.append(f"{kind} {one} is something else from {at} on, as of {whose}")
        return wrong

    def _take_back(self, offset: int) -> None:
        """Forget who wrote what lies behind offset: whoever was told this offset writes there again."""
        self._seams |= {one.end for one in self.ranges if one.end > offset}
        self.ranges, self.claims = (
            [Range(one.start, min(one.end, offset), one.variant) for one in some if one.start < offset]
            for some in (self.ranges, self.claims)
        )
        self.acknowledged = offset

    def _look_between_seams(self, start: int, end: int, by: str) -> None:
        """Look at each piece that one writer may have written alone."""
        ends = [*sorted(seam for seam in self._seams if start < seam < end), end]
        for one_start, one_end in zip([start, *ends], ends, strict=False):
            self._look(one_start, one_end, by)

    def _look(self, start: int, end: int, by: str) -> None:
        """Find out whose bytes have just been acknowledged: they must be one writer's, and stay."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                there = file.read(end - start)
        except FileNotFoundError:
            self._violated(f"{by} told {end}, and there is no file")
            return
        for variant in reversed(range(self._variants)):
            if there == self.bytes_of(variant, start, end):
                self.ranges.append(Range(start, end, variant))
                return
        places = [start + first_difference(there, self.bytes_of(v, start, end)) for v in range(self._variants)]
        self._violated(
            f"{by} told {end} after {start}, and no one writer's bytes are there: {len(there)} bytes, "
            f"as those of the writers 0, 1, ... up to {places}"
        )

    def _whose_at(self, content: bytes, at: int) -> str:
        piece = content[at : at + 32]
        found = [v for v in range(self._variants) if piece == self.bytes_of(v, at, at + len(piece))]
        zeros = " (zeros)" if not any(piece) else ""
        return f"the writer {found[0]}" if found and piece else f"nobody{zeros}"

    def _violated(self, what: str) -> None:
        self._figures.violated(f"upload {self.upload_id} ({self.planned.manner}): {what}")
