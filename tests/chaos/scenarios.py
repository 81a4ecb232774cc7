"""A short run in which every fault happens once and a replica dies at every point, without a random plan.

Each scenario breaks one part at a fixed moment of an upload, checks the answers meanwhile, and repairs the part. It
gets a client of its own.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.clients import Client
from tests.chaos.connection import Connection, NoAnswer
from tests.chaos.deployment import COMMON_TRAP, Deployment, Replica
from tests.chaos.faults import FaultInjector
from tests.chaos.figures import Figures
from tests.chaos.final_checks import check_all
from tests.chaos.harness import PATH, GaveUp, Harness, Vanished
from tests.chaos.losses import Loss
from tests.chaos.plan import MIB, REPLICAS, Manner, PlannedUpload
from tests.chaos.points import POINTS, set_trap
from tests.chaos.seeds import WRONG_CLOCK_S
from tests.chaos.tracking import TrackedUpload
from tests.support.processes import eventually
from tusd_py.settings import Settings

KIB = 1024
LENGTH = MIB  # default length of a file
SIZE = 256 * MIB  # upper limit for all files together
FAST = 1e9  # bytes per second
LEASE_S = 1  # the minimum: after a replica has died, its uploads are blocked this long
GRACE_S = 0.3  # shorter than the running bodies take, so that they have to yield at a restart
LIMIT_S = 200.0  # for the whole run; then all clients give up
LENGTHS = (1, 1000, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 200_000, 2 * MIB)  # of uploads by clients that ask for HTTP/2


def run_scenarios(folder: Path, *, verbose: bool) -> Figures:
    """Run all scenarios in an empty folder and return the figures; figures.violations is empty if nothing is wrong."""
    figures = Figures(verbose)
    flags = ("--lease-ttl", str(LEASE_S), "--grace", str(GRACE_S))
    deployment = Deployment(folder, SIZE, *flags, clocks=(WRONG_CLOCK_S, -WRONG_CLOCK_S, 0.0))
    harness = Harness(deployment, figures)
    watchdog = threading.Timer(LIMIT_S, harness.ending.set)
    watchdog.start()
    try:
        deployment.open()
        for scenario in SCENARIOS:
            figures.log(scenario.__name__)
            try:
                with Client(harness, (), 1) as client:
                    scenario(harness, client)
            except (GaveUp, Vanished, NoAnswer, AssertionError) as exc:
                figures.add_violation(f"{scenario.__name__} did not finish: {type(exc).__name__} {exc}")
        figures.log("final checks")
        check_all(harness)
    finally:
        watchdog.cancel()
        harness.ending.set()
        deployment.close()
    return figures


def planned(
    manner: Manner = Manner.PLAIN,
    length: int = LENGTH,
    *,
    piece: int | None = None,
    rate: float = FAST,
    chunked: bool = False,
    upgrade: bool = False,
) -> PlannedUpload:
    """Return an upload, by default in two PATCHes or in two parts."""
    half = (length + 1) // 2
    part = PlannedUpload(seed=0, length=length // 2, piece=half, rate=rate, manner=Manner.PLAIN)
    return PlannedUpload(
        seed=next(SEEDS),
        length=length,
        piece=piece or half,
        rate=rate,
        manner=manner,
        chunked=chunked,
        upgrade=upgrade,
        terminate_at=half,
        parts=(part, part) if manner is Manner.PARALLEL else (),
    )


SEEDS = iter(range(1, 10**6))


def run_all(harness: Harness, clients: Sequence[Client]) -> list[threading.Thread]:
    """Start clients, each in a thread; return the threads."""
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    return threads


# The scenarios


def die_at_every_point(harness: Harness, client: Client) -> None:
    """Each replica dies at a third of the points, during an upload that began on it and continues elsewhere."""
    own_points = [name for name, point in POINTS.items() if not point.is_anywhere]

    def die(n: int) -> None:
        for name in own_points[n::REPLICAS]:
            replica = harness.deployment.replicas[n]
            replica.set_trap(name)
            die_during_upload(harness, name, [replica])

    threads = [threading.Thread(target=die, args=(n,)) for n in range(REPLICAS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in POINTS.keys() - own_points:
        set_trap(harness.deployment.folder / COMMON_TRAP, name)
        die_during_upload(harness, name, harness.deployment.replicas)


def die_during_upload(harness: Harness, name: str, replicas: Sequence[Replica]) -> None:
    """Upload a file, beginning on the first of the replicas; restart the replica that dies at the point."""
    client = Client(harness, (planned(POINTS[name].manner),), 1, replicas[0].address)
    [uploading] = run_all(harness, [client])

    def dead() -> Replica | None:
        return next((one for one in replicas if one.was_killed_by_trap()), None)

    replica = eventually(dead, what=f"a replica dies at the point: {name}")
    harness.figures.count_fault(f"died: {name}", f"the replica at {replica.address[1]} died: {name}")
    replica.start()
    uploading.join()


def restart_every_replica(harness: Harness, client: Client) -> None:
    """At each restart, running bodies of every form have to yield; other clients ask for HTTP/2 all the time."""
    asking = [
        planned(manner, length, upgrade=True, chunked=chunked)
        for length in LENGTHS
        for manner in (Manner.PLAIN, Manner.WITH_CREATION)
        for chunked in (False, True)
    ]
    others = run_all(harness, [Client(harness, tuple(some), 1) for some in (asking[::2], asking[1::2])])
    for replica in harness.deployment.replicas:
        restart_gracefully(harness, replica)
    for thread in others:
        thread.join()


def restart_gracefully(harness: Harness, replica: Replica) -> None:
    """Restart one replica during uploads that began on it."""
    slow = (
        planned(length=2 * MIB, piece=2 * MIB, rate=MIB),
        planned(length=2 * MIB, piece=2 * MIB, rate=MIB, chunked=True),
        planned(Manner.CHECKSUM, 2 * MIB, piece=2 * MIB, rate=MIB),
    )
    threads = run_all(harness, [Client(harness, (one,), 1, replica.address) for one in slow])

    def under_way() -> bool:
        begun = [one.upload_id for one in harness.uploads if one.planned in slow]
        return len(begun) == len(slow) and all(harness.deployment.redis.is_held(one) for one in begun)

    eventually(under_way, what="bodies are under way")
    FaultInjector(harness.deployment, harness.figures, harness.ending).restart_gracefully(replica)
    for thread in threads:
        thread.join()


def fill_disk(harness: Harness, client: Client) -> None:
    """The bytes that fit are kept, and DELETE needs no disk space."""
    disk = harness.deployment.disk
    if not disk.is_mounted:
        return
    half, other = client.begin(planned(length=4 * MIB, piece=4 * MIB)), half_uploaded(client, Manner.TERMINATE)
    disk.fill(Settings().min_free + MIB)
    check_answers(harness, half, "PATCH", 507)
    if not client.find_offset(half):
        harness.figures.add_violation("nothing was kept of a body whose first MiB fits on the disk")
    disk.fill()
    wait_for_answers(harness, half, "POST", 507, 201)
    client.terminate(other)
    disk.free()
    client.append_until(half, half.planned.length)


def unmount_volume(harness: Harness, client: Client) -> None:
    """Meanwhile no answer is 404, nothing is removed, and nothing is written in its place."""
    for leave_a_folder in (True, False):
        half, other = half_uploaded(client), half_uploaded(client)
        harness.deployment.disk.unmount(leave_a_folder=leave_a_folder)
        for method, status in (("PATCH", 503), ("DELETE", 503)):
            check_answers(harness, half, method, status)
        # Requests that change no file may use the result of a check of the volume from a moment ago.
        for method, status, allowed in (("POST", 503, 201), ("HEAD", 423, 200)):
            wait_for_answers(harness, half, method, status, allowed)
        if written := harness.deployment.disk.remount():
            harness.figures.add_violation(f"written in the place of the volume: {written}")
        for one in (half, other):
            client.find_offset(one)
            client.append_until(one, one.planned.length)


def restore_older_redis(harness: Harness, client: Client) -> None:
    """Some records are behind, some are missing, some were removed and are back; recover repairs them."""
    deployment = harness.deployment
    done = client.upload(planned())
    grown, finished, removed = half_uploaded(client), half_uploaded(client), half_uploaded(client, Manner.TERMINATE)
    started = client.begin(planned(length=LENGTH))
    copy = deployment.redis.copy()
    client.append_until(grown, LENGTH * 3 // 4)
    client.append_until(finished, LENGTH)
    client.append_until(started, LENGTH // 2)
    client.terminate(removed)
    new, new_done, empty = half_uploaded(client), client.upload(planned()), client.begin(planned())
    whole = client.upload(planned(Manner.PARALLEL))
    deployment.losses.begin(Loss.NEWEST)
    deployment.redis.restore(copy)
    for upload in (done, grown, finished, started, new, new_done, whole):
        check_answers(harness, upload, "HEAD", 200, allowed=404)
    deployment.recover()
    for upload in (grown, started, new):
        client.find_offset(upload)
        client.append_until(upload, LENGTH)
    expect_unknown(harness, client, empty)


def empty_redis(harness: Harness, client: Client) -> None:
    """The server detects it and does not answer 404; new uploads work meanwhile."""
    deployment = harness.deployment
    done, half, empty = client.upload(planned()), half_uploaded(client), client.begin(planned())
    deployment.losses.begin(Loss.EVERYTHING)
    deployment.redis.lose_everything()
    for upload in (done, half):
        for method, status in (("HEAD", 423), ("PATCH", 503), ("DELETE", 503)):
            check_answers(harness, upload, method, status)
    new = client.upload(planned())
    deployment.recover()
    for upload in (done, half, new):
        client.find_offset(upload)
        client.append_until(upload, LENGTH)
    expect_unknown(harness, client, empty)


def set_clock_back(harness: Harness, client: Client) -> None:
    """A clock that is set back does not prolong the lease of a holder that died."""
    deployment = harness.deployment
    upload = client.begin(planned())
    connection = Connection(deployment.replicas[0].address, harness.ending.is_set)
    connection.send_head("PATCH", PATH + upload.upload_id, {"Upload-Offset": "0"}, LENGTH)
    connection.send(upload.bytes_of(0, 0, LENGTH // 2))
    eventually(lambda: deployment.redis.is_held(upload.upload_id), what="the lease is taken")
    deployment.replicas[0].kill()
    if not deployment.redis.set_clock_back():
        harness.figures.add_violation("the lease of the dead holder ended too early")
    deployment.replicas[0].start()
    connection.close()
    client.find_offset(upload)
    client.append_until(upload, LENGTH)


SCENARIOS: tuple[Callable[[Harness, Client], None], ...] = (
    die_at_every_point,
    restart_every_replica,
    fill_disk,
    unmount_volume,
    restore_older_redis,
    empty_redis,
    set_clock_back,
)


# Steps of the scenarios


def half_uploaded(client: Client, manner: Manner = Manner.PLAIN) -> TrackedUpload:
    """Return a new upload of which half is sent."""
    upload = client.begin(planned(manner))
    client.append_until(upload, upload.planned.length // 2)
    return upload


def check_answers(
    harness: Harness, upload: TrackedUpload, method: str, status: int, allowed: int | None = None
) -> bool:
    """Send a request about the upload to every replica; return whether each answered with this status.

    Any other status, except allowed, is recorded as a violation.
    """
    statuses = []
    for n, replica in enumerate(harness.deployment.replicas):
        headers, body, path = {}, b"", PATH + upload.upload_id
        if method == "PATCH":
            offset = upload.acknowledged
            headers, body = {"Upload-Offset": str(offset)}, upload.bytes_of(0, offset, upload.planned.length)
        elif method == "POST":
            headers, path = {"Upload-Length": "10"}, PATH
        connection = Connection(replica.address, harness.ending.is_set)
        try:
            answer = harness.request(connection, method, path, headers, body)
        except NoAnswer as exc:
            harness.figures.add_violation(f"{method} at replica {n} was not answered: {exc}")
            continue
        finally:
            connection.close()
        if answer.status not in (status, allowed):
            harness.figures.add_violation(f"{method} at replica {n} was answered {answer.status}, not {status}")
        statuses.append(answer.status)
        if status == 507 and method == "PATCH":
            break  # the next replica would find the disk completely full
    return {status} == set(statuses)


def wait_for_answers(harness: Harness, upload: TrackedUpload, method: str, status: int, allowed: int) -> None:
    """Repeat the request until every replica answers with this status: a replica may use an older check at first."""
    eventually(lambda: check_answers(harness, upload, method, status, allowed), what=f"{method} is answered {status}")


def expect_unknown(harness: Harness, client: Client, upload: TrackedUpload) -> None:
    """Record a violation if an upload without bytes is still known after its record was lost."""
    try:
        client.find_offset(upload)
        harness.figures.add_violation(
            f"upload {upload.upload_id} had only a record, which was lost, but is still known"
        )
    except Vanished:
        pass
