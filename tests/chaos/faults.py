"""Breaks the parts of a deployment as planned and repairs them, each part in a thread of its own."""

import threading
import time
from collections.abc import Callable

from tests.chaos.deployment import Deployment, Replica, wait_until
from tests.chaos.figures import Figures
from tests.chaos.losses import Loss
from tests.chaos.plan import LEASE_TTL_S, Fault, Kind, Plan

Break = Callable[[float], None]  # breaks a part for some seconds and repairs it

COPY_AGE_S = LEASE_TTL_S + 1.5  # age of the copy that Redis restores: every lease in it has expired


class FaultSchedule:
    """The faults of a plan on a deployment. start() begins them; after join() everything is repaired."""

    def __init__(self, plan: Plan, deployment: Deployment, figures: Figures, ending: threading.Event) -> None:
        self._injector = FaultInjector(deployment, figures, ending)
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
        """Wait for the end of all faults. Raises AssertionError after timeout_s."""
        give_up_at = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
            assert not thread.is_alive(), f"the {thread.name} do not end"

    def _carry_out(self, target: str, some: tuple[Fault, ...]) -> None:
        begun_at = time.monotonic()
        for fault in some:
            if not wait_until(begun_at + fault.at_s, self._ending):
                return
            inject = self._injector.action(target, fault)
            if inject is None:
                continue
            self._figures.count_fault(fault.kind, f"{target}: {fault.kind} {fault.point} for {fault.for_s:.1f} s")
            try:
                inject(fault.for_s)
            except Exception as exc:
                self._figures.add_violation(f"{target} did not come back after the fault: {exc}")
                return


class FaultInjector:
    """How each part is broken and repaired."""

    def __init__(self, deployment: Deployment, figures: Figures, ending: threading.Event) -> None:
        self._deployment = deployment
        self._figures = figures
        self._ending = ending

    def action(self, target: str, fault: Fault) -> Break | None:
        """Return the function that injects the fault; None if it is not possible in this deployment."""
        deployment = self._deployment
        if target.startswith("replica "):
            return lambda for_s: self._break_replica(deployment.replicas[int(target.split()[1])], fault, for_s)
        match fault.kind:
            case Kind.REDIS_KILL:
                return lambda for_s: self._down(deployment.redis.kill, deployment.redis.start, for_s)
            case Kind.REDIS_FREEZE:
                return lambda for_s: deployment.redis.freeze_for(for_s, self._ending)
            case Kind.REDIS_OLDER:
                return self.restore_older_redis
            case Kind.REDIS_EMPTY:
                return self.empty_redis
            case Kind.CLOCK_SET_BACK:
                return lambda for_s: self._figures.count("leases an hour ahead", deployment.redis.set_clock_back())
            case Kind.NGINX_RESTART:
                return lambda for_s: self._down(deployment.nginx.close, deployment.nginx.start, for_s)
            case Kind.RECEIVER_KILL:
                return lambda for_s: self._down(deployment.receiver.kill, deployment.receiver.start, for_s)
            case Kind.DISK_FULL:
                if not deployment.disk.is_mounted:
                    return None
                return lambda for_s: self._down(deployment.disk.fill, deployment.disk.free, for_s)
            case Kind.VOLUME_UNMOUNTED:
                return lambda for_s: self.unmount_volume(for_s, leave_a_folder=True)
            case Kind.VOLUME_MISSING:
                return lambda for_s: self.unmount_volume(for_s, leave_a_folder=False)
        raise ValueError(fault.kind)

    def restore_older_redis(self, for_s: float) -> None:
        """Kill Redis and start it with the data that it had some seconds before; run recover after for_s."""
        deployment = self._deployment
        with deployment.loss_lock:
            copy = deployment.redis.copy()
            self._ending.wait(COPY_AGE_S)
            deployment.losses.begin(Loss.NEWEST)
            deployment.redis.restore(copy)
            self._ending.wait(for_s)
            deployment.recover()

    def empty_redis(self, for_s: float) -> None:
        """Delete everything in Redis; run recover after for_s."""
        deployment = self._deployment
        with deployment.loss_lock:
            deployment.losses.begin(Loss.EVERYTHING)
            deployment.redis.lose_everything()
            self._ending.wait(for_s)
            deployment.recover()

    def unmount_volume(self, for_s: float, *, leave_a_folder: bool) -> None:
        """Unmount the volume for a while. Nothing may be written in its place."""
        disk = self._deployment.disk
        with self._deployment.loss_lock:
            disk.unmount(leave_a_folder=leave_a_folder)
            self._ending.wait(for_s)
            if written := disk.remount():
                self._figures.add_violation(f"written in the place of the volume: {written}")

    def restart_gracefully(self, replica: Replica) -> None:
        """Stop a replica with SIGTERM, and start it again."""
        if wrong := replica.stop():
            self._figures.add_violation(
                f"the replica at {replica.address[1]} did not end properly after SIGTERM: {wrong}"
            )
        replica.start()

    def _break_replica(self, replica: Replica, fault: Fault, for_s: float) -> None:
        with replica.busy:
            match fault.kind:
                case Kind.REPLICA_KILL:
                    self._down(replica.kill, replica.start, for_s)
                case Kind.REPLICA_FREEZE:
                    replica.freeze_for(for_s, self._ending)
                case Kind.REPLICA_RESTART:
                    self.restart_gracefully(replica)
                case Kind.REPLICA_POINT:
                    replica.set_trap(fault.point)
                    replica.wait_for_exit(for_s, self._ending)
                    replica.remove_trap()
                    if replica.was_killed_by_trap():
                        self._figures.count(f"died: {fault.point}")
                        replica.start()

    def _down(self, down: Callable[[], None], up: Callable[[], None], for_s: float) -> None:
        down()
        self._ending.wait(for_s)
        up()
