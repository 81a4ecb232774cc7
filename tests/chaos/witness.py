"""What was acknowledged, by whom it was written, and what was seen: the evidence on which verdict.py judges."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.plan import PlannedUpload
from tests.chaos.source import first_difference, span


class Figures:
    """What was counted, by all threads."""

    def __init__(self, verbose: bool) -> None:
        self.faults: Counter[str] = Counter()
        self.statuses: Counter[tuple[str, str]] = Counter()  # method; status, or why there was none
        self.waits_s: dict[str, list[float]] = {"HEAD": [], "PATCH": [], "POST": [], "DELETE": []}
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._lock = threading.Lock()
        self._verbose = verbose
        self._begun_at = time.monotonic()

    def happened(self, kind: str, what: str) -> None:
        """Count a fault."""
        with self._lock:
            self.faults[kind] += 1
        self.say(what)

    def answered(self, method: str, status: str, waited_s: float) -> None:
        """Count an answer, or the lack of one."""
        with self._lock:
            self.statuses[method, status] += 1
            self.waits_s[method].append(waited_s)

    def count(self, what: str, how_many: int = 1) -> None:
        with self._lock:
            self.counts[what] += how_many

    def violated(self, what: str) -> None:
        """Note that something is not as it has to be."""
        with self._lock:
            self.violations.append(f"at {time.monotonic() - self._begun_at:.1f} s: {what}")
        self.say(f"VIOLATED: {what}")

    def say(self, what: str) -> None:
        if self._verbose:
            print(f"{time.monotonic() - self._begun_at:7.1f} s  {what}", flush=True)


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
    """

    def __init__(self, planned: PlannedUpload, upload_id: str, folder: Path, figures: Figures) -> None:
        self.planned = planned
        self.upload_id = upload_id
        self.path = folder / upload_id
        self.finished = False
        self.terminated = False
        self.acknowledged = 0
        self.ranges: list[Range] = []
        self.claims: list[Range] = []
        self._figures = figures
        self._variants = 1  # that were sent so far
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        return self.finished or self.terminated

    def next_variant(self) -> int:
        """Return the variant to send from now on."""
        with self._lock:
            self._variants += 1
            return self._variants - 1

    def bytes_of(self, variant: int, start: int, end: int) -> bytes:
        return span(self.planned.seed, variant, start, end)

    def told(self, offset: int, floor: int, by: str) -> None:
        """Note an offset that was told in an answer to a request; floor was acknowledged when the request began."""
        with self._lock:
            if offset < floor:
                self._violated(f"{by} told {offset}, {floor} had been acknowledged before")
            if offset > self.planned.length:
                self._violated(f"{by} told {offset}, the file has {self.planned.length} bytes")
            elif offset > self.acknowledged:
                if not self.terminated:
                    self._look(self.acknowledged, offset, by)
                self.acknowledged = offset
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
