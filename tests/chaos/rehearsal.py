"""A short run in which every fault happens once, and a replica dies at every point: nothing in it is left to the clock.

Each act breaks one thing at a fixed moment of an upload, looks at what is answered meanwhile, and mends it. It gets
a client of its own.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.amnesia import Loss
from tests.chaos.clients import Client
from tests.chaos.faults import Breaking
from tests.chaos.figures import Figures
from tests.chaos.plan import MIB, REPLICAS, Manner, PlannedUpload
from tests.chaos.points import POINTS, lay_trap
from tests.chaos.seeds import WRONG_CLOCK_S
from tests.chaos.stage import COMMON_TRAP, Replica, Stage
from tests.chaos.theatre import PATH, GaveUp, Theatre, Vanished
from tests.chaos.verdict import judge
from tests.chaos.wire import NoAnswer, Wire
from tests.chaos.witness import Witness
from tests.support.processes import eventually
from tusd_py.settings import Settings

KIB = 1024
LENGTH = MIB  # of a file, where nothing else is said
SIZE = 256 * MIB  # of all files together, at most
FAST = 1e9  # bytes a second
LEASE_S = 1  # the shortest there is: whoever goes on where a replica died waits so long
GRACE_S = 0.3  # for bodies that take seconds: they have to yield
LIMIT_S = 200.0  # for the whole; everybody gives up then
LENGTHS = (1, 1000, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 200_000, 2 * MIB)  # of uploads by clients that ask for HTTP/2


def rehearse(folder: Path, *, verbose: bool) -> Figures:
    """Carry out all acts in an empty folder and return what was seen; figures.violations is empty when all is well."""
    figures = Figures(verbose)
    flags = ("--lease-ttl", str(LEASE_S), "--grace", str(GRACE_S))
    stage = Stage(folder, SIZE, *flags, clocks=(WRONG_CLOCK_S, -WRONG_CLOCK_S, 0.0))
    theatre = Theatre(stage, figures)
    watchdog = threading.Timer(LIMIT_S, theatre.ending.set)
    watchdog.start()
    try:
        stage.open()
        for act in ACTS:
            figures.say(act.__name__)
            try:
                with Client(theatre, (), 1) as client:
                    act(theatre, client)
            except (GaveUp, Vanished, NoAnswer, AssertionError) as exc:
                figures.violated(f"{act.__name__} did not get to its end: {type(exc).__name__} {exc}")
        figures.say("the verdict")
        judge(theatre)
    finally:
        watchdog.cancel()
        theatre.ending.set()
        stage.close()
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
    """Return an upload, in two PATCHes or in two parts where nothing else is said."""
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


def run_all(theatre: Theatre, clients: Sequence[Client]) -> list[threading.Thread]:
    """Let clients upload at once; return their threads."""
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    return threads


# The acts


def die_at_every_point(theatre: Theatre, client: Client) -> None:
    """Each replica dies at a third of the points, under an upload that began on it and goes on elsewhere."""
    alone = [name for name, point in POINTS.items() if not point.is_anywhere]

    def die(n: int) -> None:
        for name in alone[n::REPLICAS]:
            replica = theatre.stage.replicas[n]
            replica.set_trap(name)
            die_under_an_upload(theatre, name, [replica])

    lanes = [threading.Thread(target=die, args=(n,)) for n in range(REPLICAS)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    for name in POINTS.keys() - alone:
        lay_trap(theatre.stage.folder / COMMON_TRAP, name)
        die_under_an_upload(theatre, name, theatre.stage.replicas)


def die_under_an_upload(theatre: Theatre, name: str, replicas: Sequence[Replica]) -> None:
    """Upload a file whose first connection is to the first of the replicas; start the one again that dies of it."""
    client = Client(theatre, (planned(POINTS[name].manner),), 1, replicas[0].address)
    [uploading] = run_all(theatre, [client])

    def dead() -> Replica | None:
        return next((one for one in replicas if one.has_died_of_a_trap()), None)

    replica = eventually(dead, what=f"a replica dies at the point: {name}")
    theatre.figures.happened(f"died: {name}", f"the replica at {replica.address[1]} died: {name}")
    replica.start()
    uploading.join()


def restart_every_replica_in_order(theatre: Theatre, client: Client) -> None:
    """Each with bodies of every form in the middle, which have to yield, and others that ask for HTTP/2."""
    asking = [
        planned(manner, length, upgrade=True, chunked=chunked)
        for length in LENGTHS
        for manner in (Manner.PLAIN, Manner.WITH_CREATION)
        for chunked in (False, True)
    ]
    others = run_all(theatre, [Client(theatre, tuple(some), 1) for some in (asking[::2], asking[1::2])])
    for replica in theatre.stage.replicas:
        restart_in_order(theatre, replica)
    for thread in others:
        thread.join()


def restart_in_order(theatre: Theatre, replica: Replica) -> None:
    """Restart one replica under uploads that began on it."""
    slow = (
        planned(length=2 * MIB, piece=2 * MIB, rate=MIB),
        planned(length=2 * MIB, piece=2 * MIB, rate=MIB, chunked=True),
        planned(Manner.CHECKSUM, 2 * MIB, piece=2 * MIB, rate=MIB),
    )
    threads = run_all(theatre, [Client(theatre, (one,), 1, replica.address) for one in slow])

    def under_way() -> bool:
        begun = [one.upload_id for one in theatre.witnesses if one.planned in slow]
        return len(begun) == len(slow) and all(theatre.stage.redis.is_held(one) for one in begun)

    eventually(under_way, what="bodies are under way")
    Breaking(theatre.stage, theatre.figures, theatre.ending).restart_in_order(replica)
    for thread in threads:
        thread.join()


def fill_the_disk(theatre: Theatre, client: Client) -> None:
    """What finds room is kept, and a DELETE needs none."""
    disk = theatre.stage.disk
    if not disk.is_mounted:
        return
    half, other = client.begin(planned(length=4 * MIB, piece=4 * MIB)), half_uploaded(client, Manner.TERMINATE)
    disk.fill(Settings().min_free + MIB)
    answers(theatre, half, "PATCH", 507)
    if not client.ask(half):
        theatre.figures.violated("nothing was kept of a body that found room for its first MiB")
    disk.fill()
    settled(theatre, half, "POST", 507, 201)
    client.terminate(other)
    disk.free()
    client.carry(half, half.planned.length)


def take_the_volume_away(theatre: Theatre, client: Client) -> None:
    """Nobody hears 404 then, nothing is removed, and nothing is written in its place."""
    for leave_a_folder in (True, False):
        half, other = half_uploaded(client), half_uploaded(client)
        theatre.stage.disk.take_away(leave_a_folder=leave_a_folder)
        for method, status in (("PATCH", 503), ("DELETE", 503)):
            answers(theatre, half, method, status)
        # A look at the volume counts for a moment where no file is changed.
        for method, status, besides in (("POST", 503, 201), ("HEAD", 423, 200)):
            settled(theatre, half, method, status, besides)
        if written := theatre.stage.disk.bring_back():
            theatre.figures.violated(f"in the place of the volume there was {written}")
        for one in (half, other):
            client.ask(one)
            client.carry(one, one.planned.length)


def bring_an_older_ledger(theatre: Theatre, client: Client) -> None:
    """Records that are behind, that are missing, and that are back though they were removed; recover mends them."""
    stage = theatre.stage
    done = client.upload(planned())
    grown, finished, removed = half_uploaded(client), half_uploaded(client), half_uploaded(client, Manner.TERMINATE)
    started = client.begin(planned(length=LENGTH))
    copy = stage.redis.copy()
    client.carry(grown, LENGTH * 3 // 4)
    client.carry(finished, LENGTH)
    client.carry(started, LENGTH // 2)
    client.terminate(removed)
    new, new_done, empty = half_uploaded(client), client.upload(planned()), client.begin(planned())
    whole = client.upload(planned(Manner.PARALLEL))
    stage.amnesia.begins(Loss.NEWEST)
    stage.redis.restore(copy)
    for witness in (done, grown, finished, started, new, new_done, whole):
        answers(theatre, witness, "HEAD", 200, besides=404)
    stage.recover()
    for witness in (grown, started, new):
        client.ask(witness)
        client.carry(witness, LENGTH)
    expect_nothing_of(theatre, client, empty)


def empty_the_ledger(theatre: Theatre, client: Client) -> None:
    """It knows that it does not know; new uploads go on meanwhile."""
    stage = theatre.stage
    done, half, empty = client.upload(planned()), half_uploaded(client), client.begin(planned())
    stage.amnesia.begins(Loss.EVERYTHING)
    stage.redis.lose_everything()
    for witness in (done, half):
        for method, status in (("HEAD", 423), ("PATCH", 503), ("DELETE", 503)):
            answers(theatre, witness, method, status)
    new = client.upload(planned())
    stage.recover()
    for witness in (done, half, new):
        client.ask(witness)
        client.carry(witness, LENGTH)
    expect_nothing_of(theatre, client, empty)


def set_the_clock_back(theatre: Theatre, client: Client) -> None:
    """The lease of a holder that died lasts no longer for it."""
    stage = theatre.stage
    witness = client.begin(planned())
    wire = Wire(stage.replicas[0].address, theatre.ending.is_set)
    wire.ask("PATCH", PATH + witness.upload_id, {"Upload-Offset": "0"}, LENGTH)
    wire.send(witness.bytes_of(0, 0, LENGTH // 2))
    eventually(lambda: stage.redis.is_held(witness.upload_id), what="the lease is taken")
    stage.replicas[0].kill()
    if not stage.redis.set_clock_back():
        theatre.figures.violated("the lease of the dead was gone before its time")
    stage.replicas[0].start()
    wire.close()
    client.ask(witness)
    client.carry(witness, LENGTH)


ACTS: tuple[Callable[[Theatre, Client], None], ...] = (
    die_at_every_point,
    restart_every_replica_in_order,
    fill_the_disk,
    take_the_volume_away,
    bring_an_older_ledger,
    empty_the_ledger,
    set_the_clock_back,
)


# What they do


def half_uploaded(client: Client, manner: Manner = Manner.PLAIN) -> Witness:
    """Return an upload of which half is there."""
    witness = client.begin(planned(manner))
    client.carry(witness, witness.planned.length // 2)
    return witness


def answers(theatre: Theatre, witness: Witness, method: str, status: int, besides: int | None = None) -> bool:
    """Send a request about the upload to every replica; return whether each gave this answer.

    Another one is noted as wrong, except besides.
    """
    statuses = []
    for n, replica in enumerate(theatre.stage.replicas):
        headers, body, path = {}, b"", PATH + witness.upload_id
        if method == "PATCH":
            offset = witness.acknowledged
            headers, body = {"Upload-Offset": str(offset)}, witness.bytes_of(0, offset, witness.planned.length)
        elif method == "POST":
            headers, path = {"Upload-Length": "10"}, PATH
        wire = Wire(replica.address, theatre.ending.is_set)
        try:
            answer = theatre.request(wire, method, path, headers, body)
        except NoAnswer as exc:
            theatre.figures.violated(f"{method} at replica {n} had no answer: {exc}")
            continue
        finally:
            wire.close()
        if answer.status not in (status, besides):
            theatre.figures.violated(f"{method} at replica {n} was answered {answer.status}, not {status}")
        statuses.append(answer.status)
        if status == 507 and method == "PATCH":
            break  # the next replica would find no room at all
    return {status} == set(statuses)


def settled(theatre: Theatre, witness: Witness, method: str, status: int, besides: int) -> None:
    """Ask until every replica gives this answer; what it saw a moment ago counts a little longer."""
    eventually(lambda: answers(theatre, witness, method, status, besides), what=f"{method} is answered {status}")


def expect_nothing_of(theatre: Theatre, client: Client, witness: Witness) -> None:
    """Note it if an upload without a byte is still known after its record was lost."""
    try:
        client.ask(witness)
        theatre.figures.violated(f"upload {witness.upload_id} had nothing but a record, which was lost; who knows it?")
    except Vanished:
        pass
