"""Points in a replica's work at which it kills itself, if a trap names the point.

A trap is a file that contains the name of a point. The first replica that reaches the point renames the file, so that
the trap works only once, and kills itself with SIGKILL. The server's code has no part in this: the functions at the
points are wrapped here.
"""

import functools
import importlib
import inspect
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.plan import Manner

Applies = Callable[..., bool]  # whether a call with these arguments is at the point


def always(*arguments: Any, **named: Any) -> bool:
    return True


def completes(lease: Any, upload: Any, **named: Any) -> bool:
    """Return whether a Lease.commit() completes the upload."""
    return bool(upload.is_complete)


def goes_on(lease: Any, upload: Any, **named: Any) -> bool:
    """Return whether a Lease.commit() leaves the upload incomplete."""
    return not upload.is_complete


@dataclass(frozen=True, kw_only=True)
class Point:
    """The moment before or after a call of one function, and how to upload so that it is called."""

    at: str  # module:name or module:class.name, in the package
    is_before: bool
    manner: Manner = Manner.PLAIN
    applies: Applies = always
    is_anywhere: bool = False  # any replica may reach it, not only the one that receives the upload


WRITER, COPY, FILE = "storage.writer", "storage.copy", "storage.file"
REDIS = "ledger.redis:RedisLedger"

POINTS: dict[str, Point] = {
    "upload recorded, not answered": Point(at=f"{REDIS}.create", is_before=False),
    "lease taken": Point(at=f"{REDIS}.acquire", is_before=False),
    "sidecar created, file not created": Point(at=f"{WRITER}:open_file", is_before=True),
    "file created, nothing written": Point(at=f"{WRITER}:open_file", is_before=False),
    "some bytes written": Point(at=f"{WRITER}:FileWriter._pumped", is_before=False),
    "bytes written, not flushed": Point(at=f"{WRITER}:make_safe", is_before=True),
    "bytes flushed, sidecar not updated": Point(at=f"{WRITER}:make_safe", is_before=False),
    "sidecar updated, offset not committed": Point(at="lease:Lease.commit", is_before=True, applies=goes_on),
    "offset committed, not answered": Point(at="lease:Lease.commit", is_before=False, applies=goes_on),
    "complete, not committed": Point(at="lease:Lease.commit", is_before=True, applies=completes),
    "completion committed, not answered": Point(at="lease:Lease.commit", is_before=False, applies=completes),
    "callback sent, not confirmed": Point(at=f"{REDIS}.confirm", is_before=True, is_anywhere=True),
    "tombstone recorded, files not removed": Point(at=f"{FILE}:remove", is_before=True, manner=Manner.TERMINATE),
    "files removed, not answered": Point(at=f"{FILE}:remove", is_before=False, manner=Manner.TERMINATE),
    "concatenation recorded, nothing copied": Point(at=f"{FILE}:copy_all", is_before=True, manner=Manner.PARALLEL),
    "one part copied": Point(at=f"{COPY}:copy_some", is_before=False, manner=Manner.PARALLEL),
    "all parts copied, not committed": Point(at=f"{FILE}:copy_all", is_before=False, manner=Manner.PARALLEL),
}


def install(traps: Sequence[Path]) -> None:
    """Wrap the functions at all points, so that this process kills itself at a point that a trap names.

    It imports the server's modules.
    """
    for name, point in POINTS.items():
        module, _, path = point.at.partition(":")
        owner: Any = importlib.import_module(f"tusd_py.{module}")
        *classes, last = path.split(".")
        for one in classes:
            owner = getattr(owner, one)
        setattr(owner, last, wrapped(getattr(owner, last), name, point, traps))


def wrapped(call: Callable[..., Any], name: str, point: Point, traps: Sequence[Path]) -> Callable[..., Any]:
    """Return a function that does what call does, and kills the process at the point if a trap names it."""

    def die_if_here(arguments: tuple[Any, ...], named: dict[str, Any], *, is_before: bool) -> None:
        if is_before == point.is_before and point.applies(*arguments, **named):
            die_at(name, traps)

    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def awaiting(*arguments: Any, **named: Any) -> Any:
            die_if_here(arguments, named, is_before=True)
            value = await call(*arguments, **named)
            die_if_here(arguments, named, is_before=False)
            return value

        return awaiting

    @functools.wraps(call)
    def calling(*arguments: Any, **named: Any) -> Any:
        die_if_here(arguments, named, is_before=True)
        value = call(*arguments, **named)
        die_if_here(arguments, named, is_before=False)
        return value

    return calling


def die_at(name: str, traps: Sequence[Path]) -> None:
    """Kill this process if a trap names the point and no other process is faster to use it."""
    for trap in traps:
        with suppress(FileNotFoundError):
            if trap.read_text() == name:
                trap.rename(used_name(trap, os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)


def set_trap(trap: Path, name: str) -> None:
    """Make a trap for a point. The rename lets a reader see either the whole name or no file."""
    new = trap.with_name(f"{trap.name}.new")
    new.write_text(name)
    new.rename(trap)


def used_name(trap: Path, pid: int) -> Path:
    """Return the name of a trap that has killed the process."""
    return trap.with_name(f"{trap.name}.{pid}")
