"""Breaks the parts of a stage as planned, each part in a thread of its own, and mends what it broke."""

import threading
import time
from collections.abc import Callable

from tests.chaos.plan import Fault, Kind, Plan
from tests.chaos.stage import Replica, Stage, wait_until
from tests.chaos.witness import Figures

Break = Callable[[float], None]  # breaks a part for some seconds and mends it


class Faults:
    """The faults of a plan on a stage. start(), then join(): everything is whole again."""

    def __init__(self, plan: Plan, stage: Stage, figures: Figures, ending: threading.Event) -> None:
        self._stage = stage
        self._figures = figures
        self._ending = ending
        self._threads = [
            threading.Thread(target=self._carry_out, args=(target, some), name=f"faults of {target}")
            for target, some in plan.faults.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of all faults. Raises AssertionError when one takes longer than that."""
        give_up_at = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
            assert not thread.is_alive(), f"the {thread.name} do not end"

    def _carry_out(self, target: str, some: tuple[Fault, ...]) -> None:
        begun_at = time.monotonic()
        for fault in some:
            if not wait_until(begun_at + fault.at_s, self._ending):
                return
            what = self._breaking(target, fault.kind)
            if what is None:
                continue
            self._figures.happened(fault.kind, f"{target}: {fault.kind} for {fault.for_s:.1f} s")
            try:
                what(fault.for_s)
            except Exception as exc:
                self._figures.violated(f"{target} did not come back after it was broken: {exc}")
                return

    def _breaking(self, target: str, kind: Kind) -> Break | None:
        """Return what does it; None if this stage cannot have it."""
        stage = self._stage
        match kind:
            case Kind.REPLICA_KILL:
                return lambda for_s: self._kill(stage.replicas[int(target.split()[1])], for_s)
            case Kind.REPLICA_FREEZE:
                return lambda for_s: self._freeze(stage.replicas[int(target.split()[1])], for_s)
            case Kind.REDIS_KILL:
                return lambda for_s: self._down(stage.redis.kill, stage.redis.start, for_s)
            case Kind.REDIS_FREEZE:
                return lambda for_s: stage.redis.freeze_for(for_s, self._ending)
            case Kind.NGINX_RESTART:
                return lambda for_s: self._down(stage.nginx.close, stage.nginx.start, for_s)
            case Kind.RECEIVER_KILL:
                return lambda for_s: self._down(stage.receiver.kill, stage.receiver.start, for_s)
            case Kind.DISK_FULL:
                return (
                    (lambda for_s: self._down(stage.disk.fill, stage.disk.free, for_s))
                    if (stage.disk.can_be_filled)
                    else None
                )

    def _kill(self, replica: Replica, for_s: float) -> None:
        with replica.busy:
            self._down(replica.kill, replica.start, for_s)

    def _freeze(self, replica: Replica, for_s: float) -> None:
        with replica.busy:
            replica.freeze_for(for_s, self._ending)

    def _down(self, down: Callable[[], None], up: Callable[[], None], for_s: float) -> None:
        down()
        self._ending.wait(for_s)
        up()
