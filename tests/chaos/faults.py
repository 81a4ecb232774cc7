"""Breaks the parts of a stage as planned, each part in a thread of its own, and mends what it broke."""

import threading
import time
from collections.abc import Callable

from tests.chaos.amnesia import Loss
from tests.chaos.figures import Figures
from tests.chaos.plan import LEASE_TTL_S, Fault, Kind, Plan
from tests.chaos.stage import Replica, Stage, wait_until

Break = Callable[[float], None]  # breaks a part for some seconds and mends it

COPY_AGE_S = LEASE_TTL_S + 1.5  # of the data that Redis comes back with: the leases of then have run out


class Faults:
    """The faults of a plan on a stage. start(), then join(): everything is whole again."""

    def __init__(self, plan: Plan, stage: Stage, figures: Figures, ending: threading.Event) -> None:
        self._breaking = Breaking(stage, figures, ending)
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
            what = self._breaking.of(target, fault)
            if what is None:
                continue
            self._figures.happened(fault.kind, f"{target}: {fault.kind} {fault.point} for {fault.for_s:.1f} s")
            try:
                what(fault.for_s)
            except Exception as exc:
                self._figures.violated(f"{target} did not come back after it was broken: {exc}")
                return


class Breaking:
    """How each thing is broken, and mended."""

    def __init__(self, stage: Stage, figures: Figures, ending: threading.Event) -> None:
        self._stage = stage
        self._figures = figures
        self._ending = ending

    def of(self, target: str, fault: Fault) -> Break | None:
        """Return what does it; None if this stage cannot have it."""
        stage = self._stage
        if target.startswith("replica "):
            return lambda for_s: self._break_replica(stage.replicas[int(target.split()[1])], fault, for_s)
        match fault.kind:
            case Kind.REDIS_KILL:
                return lambda for_s: self._down(stage.redis.kill, stage.redis.start, for_s)
            case Kind.REDIS_FREEZE:
                return lambda for_s: stage.redis.freeze_for(for_s, self._ending)
            case Kind.REDIS_OLDER:
                return self.bring_an_older_ledger
            case Kind.REDIS_EMPTY:
                return self.empty_the_ledger
            case Kind.CLOCK_SET_BACK:
                return lambda for_s: self._figures.count("leases an hour ahead", stage.redis.set_clock_back())
            case Kind.NGINX_RESTART:
                return lambda for_s: self._down(stage.nginx.close, stage.nginx.start, for_s)
            case Kind.RECEIVER_KILL:
                return lambda for_s: self._down(stage.receiver.kill, stage.receiver.start, for_s)
            case Kind.DISK_FULL:
                if not stage.disk.is_mounted:
                    return None
                return lambda for_s: self._down(stage.disk.fill, stage.disk.free, for_s)
            case Kind.VOLUME_UNMOUNTED:
                return lambda for_s: self.take_the_volume_away(for_s, leave_a_folder=True)
            case Kind.VOLUME_MISSING:
                return lambda for_s: self.take_the_volume_away(for_s, leave_a_folder=False)
        raise ValueError(fault.kind)

    def bring_an_older_ledger(self, for_s: float) -> None:
        """Let Redis die and come back with the data that it had some seconds before; recover after for_s."""
        stage = self._stage
        with stage.one_side:
            copy = stage.redis.copy()
            self._ending.wait(COPY_AGE_S)
            stage.amnesia.begins(Loss.NEWEST)
            stage.redis.restore(copy)
            self._ending.wait(for_s)
            stage.recover()

    def empty_the_ledger(self, for_s: float) -> None:
        """Let Redis lose everything; recover after for_s."""
        stage = self._stage
        with stage.one_side:
            stage.amnesia.begins(Loss.EVERYTHING)
            stage.redis.lose_everything()
            self._ending.wait(for_s)
            stage.recover()

    def take_the_volume_away(self, for_s: float, *, leave_a_folder: bool) -> None:
        """Unmount the volume for a while. Nothing may be written into its place."""
        disk = self._stage.disk
        with self._stage.one_side:
            disk.take_away(leave_a_folder=leave_a_folder)
            self._ending.wait(for_s)
            if written := disk.bring_back():
                self._figures.violated(f"in the place of the volume there was {written}")

    def restart_in_order(self, replica: Replica) -> None:
        """Send SIGTERM, wait for the end, and start it again."""
        if wrong := replica.leave():
            self._figures.violated(f"the replica at {replica.address[1]} ended badly after SIGTERM: {wrong}")
        replica.start()

    def _break_replica(self, replica: Replica, fault: Fault, for_s: float) -> None:
        with replica.busy:
            match fault.kind:
                case Kind.REPLICA_KILL:
                    self._down(replica.kill, replica.start, for_s)
                case Kind.REPLICA_FREEZE:
                    replica.freeze_for(for_s, self._ending)
                case Kind.REPLICA_RESTART:
                    self.restart_in_order(replica)
                case Kind.REPLICA_POINT:
                    replica.set_trap(fault.point)
                    replica.dies_within(for_s, self._ending)
                    replica.remove_trap()
                    if replica.has_died_of_a_trap():
                        self._figures.count(f"died: {fault.point}")
                        replica.start()

    def _down(self, down: Callable[[], None], up: Callable[[], None], for_s: float) -> None:
        down()
        self._ending.wait(for_s)
        up()
