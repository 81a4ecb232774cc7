"""Points of a replica's work at which it kills itself, when a trap names one.

A trap is a file with the name of a point in it. The first replica that passes the point takes the trap, which happens
once, and dies by SIGKILL. The server's code knows nothing of it: the functions at the points are wrapped from outside.
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

Passed = Callable[..., bool]  # whether a call with these arguments is one at the point


def always(*arguments: Any, **named: Any) -> bool:
    return True


def completes(lease: Any, upload: Any, **named: Any) -> bool:
    """Whether a Lease.commit() records the last byte."""
    return bool(upload.is_complete)


def goes_on(lease: Any, upload: Any, **named: Any) -> bool:
    """Whether a Lease.commit() records another byte than the last."""
    return not upload.is_complete


@dataclass(frozen=True, kw_only=True)
class Point:
    """Before or behind one function, and the manner of an upload that passes it."""

    at: str  # module:name or module:class.name, in the package
    is_before: bool
    manner: Manner = Manner.PLAIN
    passed: Passed = always
    is_anywhere: bool = False  # any replica may pass it, whichever has the upload


WRITER, COPY, FILE = "storage.writer", "storage.copy", "storage.file"
REDIS = "ledger.redis:RedisLedger"

POINTS: dict[str, Point] = {
    "recorded, not answered": Point(at=f"{REDIS}.create", is_before=False),
    "the lease taken": Point(at=f"{REDIS}.acquire", is_before=False),
    "the sidecar there, the file not": Point(at=f"{WRITER}:open_file", is_before=True),
    "the file there, no byte in it": Point(at=f"{WRITER}:open_file", is_before=False),
    "some bytes written": Point(at=f"{WRITER}:FileWriter._pumped", is_before=False),
    "bytes written, not flushed": Point(at=f"{WRITER}:make_safe", is_before=True),
    "bytes flushed, the sidecar behind": Point(at=f"{WRITER}:make_safe", is_before=False),
    "the sidecar ahead of the record": Point(at="lease:Lease.commit", is_before=True, passed=goes_on),
    "committed, not answered": Point(at="lease:Lease.commit", is_before=False, passed=goes_on),
    "complete, not recorded": Point(at="lease:Lease.commit", is_before=True, passed=completes),
    "finished, not answered": Point(at="lease:Lease.commit", is_before=False, passed=completes),
    "the callback sent, not confirmed": Point(at=f"{REDIS}.confirm", is_before=True, is_anywhere=True),
    "the tombstone there, the files too": Point(at=f"{FILE}:remove", is_before=True, manner=Manner.TERMINATE),
    "the files removed, not answered": Point(at=f"{FILE}:remove", is_before=False, manner=Manner.TERMINATE),
    "a concatenation recorded, not copied": Point(at=f"{FILE}:copy_all", is_before=True, manner=Manner.PARALLEL),
    "one part copied": Point(at=f"{COPY}:copy_some", is_before=False, manner=Manner.PARALLEL),
    "all parts copied, not recorded": Point(at=f"{FILE}:copy_all", is_before=False, manner=Manner.PARALLEL),
}


def lay(traps: Sequence[Path]) -> None:
    """Make this process die at the point that any of the traps names, whenever it does. Imports the server."""
    for name, point in POINTS.items():
        module, _, path = point.at.partition(":")
        owner: Any = importlib.import_module(f"tusd_py.{module}")
        *classes, last = path.split(".")
        for one in classes:
            owner = getattr(owner, one)
        setattr(owner, last, wrapped(getattr(owner, last), name, point, traps))


def wrapped(call: Callable[..., Any], name: str, point: Point, traps: Sequence[Path]) -> Callable[..., Any]:
    """Return a function that does what call does, and dies before or behind it."""

    def pass_by(arguments: tuple[Any, ...], named: dict[str, Any], *, is_before: bool) -> None:
        if is_before == point.is_before and point.passed(*arguments, **named):
            die_at(name, traps)

    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def awaiting(*arguments: Any, **named: Any) -> Any:
            pass_by(arguments, named, is_before=True)
            value = await call(*arguments, **named)
            pass_by(arguments, named, is_before=False)
            return value

        return awaiting

    @functools.wraps(call)
    def calling(*arguments: Any, **named: Any) -> Any:
        pass_by(arguments, named, is_before=True)
        value = call(*arguments, **named)
        pass_by(arguments, named, is_before=False)
        return value

    return calling


def die_at(name: str, traps: Sequence[Path]) -> None:
    """Kill this process if a trap names the point and nobody else takes it first."""
    for trap in traps:
        with suppress(FileNotFoundError):
            if trap.read_text() == name:
                trap.rename(taken(trap, os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)


def lay_trap(trap: Path, name: str) -> None:
    """Make a trap at a point: whoever looks sees the whole name or nothing."""
    new = trap.with_name(f"{trap.name}.new")
    new.write_text(name)
    new.rename(trap)


def taken(trap: Path, pid: int) -> Path:
    """Return what a trap is called once the process has died of it."""
    return trap.with_name(f"{trap.name}.{pid}")
