"""Makes a plan from a seed. The same seed always makes the same plan; the exact timing depends on the machine."""

import random
from collections.abc import Iterator

from tests.chaos.plan import LEASE_TTL_S, MIB, REPLICAS, Cut, Fault, How, Kind, Manner, Plan, PlannedUpload, Round
from tests.chaos.points import POINTS

MAX_BYTES = 1536 * MIB  # limits the rate: a plan has up to three times as many bytes, and the disk is in memory
RATE = 1.0 * MIB  # bytes per second of one client; slow enough that most faults fall into the middle of an upload
BUSY = 0.75  # the time that a client's uploads take without faults, as a share of the time of the faults
CONFLICTING = 6  # one client in this many sends conflicting bytes
DAY_S = 24 * 3600.0
WRONG_CLOCK_S = 8 * DAY_S  # longer than an upload is kept

OF_REPLICA = (Kind.REPLICA_KILL, Kind.REPLICA_FREEZE, Kind.REPLICA_RESTART, Kind.REPLICA_POINT)
OF_REDIS = (Kind.REDIS_KILL, Kind.REDIS_FREEZE, Kind.REDIS_OLDER, Kind.CLOCK_SET_BACK, Kind.REDIS_EMPTY)
OF_DISK = (Kind.DISK_FULL, Kind.VOLUME_UNMOUNTED, Kind.DISK_FULL, Kind.VOLUME_MISSING)
HONEST = (Manner.PLAIN, Manner.CHECKSUM, Manner.WITH_CREATION, Manner.TERMINATE, Manner.PARALLEL)


def make_plan(seed: int, seconds: float, clients: int) -> Plan:
    """Return the plan of a seed."""
    rate = min(RATE, MAX_BYTES / (clients * seconds * BUSY))
    conflicting = max(1, clients // CONFLICTING)
    return Plan(
        seed,
        seconds,
        tuple(
            tuple(conflicting_client(seed, n, seconds) if n < conflicting else client(seed, n, seconds, rate))
            for n in range(clients)
        ),
        {
            **{f"replica {n}": tuple(faults_of_replica(seed, n, seconds)) for n in range(REPLICAS)},
            "Redis": tuple(faults(seed, "Redis", seconds, OF_REDIS, 8.0, (0.5, 5.0))),
            "nginx": tuple(faults(seed, "nginx", seconds, (Kind.NGINX_RESTART,), 9.0, (0.0, 1.0))),
            "receiver": tuple(faults(seed, "receiver", seconds, (Kind.RECEIVER_KILL,), 6.0, (0.5, 3.0))),
            "disk": tuple(faults(seed, "disk", seconds, OF_DISK, 10.0, (0.5, 2.5))),
        },
        (WRONG_CLOCK_S, -WRONG_CLOCK_S, 0.0),
    )


def faults_of_replica(seed: int, n: int, seconds: float) -> Iterator[Fault]:
    """Yield the faults of one replica. A freeze lasts longer than a lease."""
    return faults(seed, f"replica {n}", seconds, OF_REPLICA, 7.0, (LEASE_TTL_S + 0.5, LEASE_TTL_S + 3.0))


def faults(
    seed: int, target: str, seconds: float, kinds: tuple[Kind, ...], every_s: float, lasting: tuple[float, float]
) -> Iterator[Fault]:
    """Yield the faults of one target, about one in every_s seconds, with the kinds in rotation."""
    chance = random.Random(f"{seed} {target}")
    at_s = chance.uniform(0.2, 0.7) * every_s
    turn = chance.randrange(len(kinds))
    while at_s < seconds:
        kind = kinds[turn % len(kinds)]
        point = chance.choice(list(POINTS)) if kind is Kind.REPLICA_POINT else ""
        fault = Fault(at_s, kind, chance.uniform(*lasting), point)
        yield fault
        turn += 1
        at_s += fault.for_s + chance.uniform(0.4, 1.2) * every_s


def client(seed: int, n: int, seconds: float, rate: float) -> Iterator[PlannedUpload]:
    """Yield the uploads of an honest client, one after the other."""
    chance = random.Random(f"{seed} client {n}")
    busy_s = 0.0
    while busy_s < seconds * BUSY:
        manner = chance.choices(HONEST, (12, 2, 3, 2, 2))[0]
        length = any_length(chance)
        speed = rate * chance.choice((0.5, 1.0, 2.0, 8.0))
        if chance.random() < 0.03:
            length, speed = chance.randint(32 * MIB, 64 * MIB), rate * 16
        if manner is Manner.PARALLEL:
            yield parallel(chance, length, speed)
        else:
            yield one_file(chance, manner, length, speed)
        busy_s += length / speed + 0.1


def any_length(chance: random.Random) -> int:
    """Return a length in bytes: sometimes small, sometimes at the size of a buffer, mostly some MiB."""
    small = chance.randint(1, 64 * 1024)
    at_buffer_size = max(1, chance.choice((1, 2, 64 * 1024, 128 * 1024, MIB)) + chance.randint(-1, 1))
    large, larger = chance.randint(64 * 1024, MIB), chance.randint(MIB, 8 * MIB)
    return chance.choices((small, at_buffer_size, large, larger), (2, 2, 2, 6))[0]


def one_file(chance: random.Random, manner: Manner, length: int, speed: float) -> PlannedUpload:
    """Return an upload of an honest client, with any form of body and with cuts of its own connection."""
    largest = MIB if manner is Manner.CHECKSUM else 8 * MIB
    return PlannedUpload(
        seed=chance.getrandbits(48),
        length=length,
        piece=chance.randint(min(length, 128 * 1024), min(length, largest)),
        rate=speed,
        manner=manner,
        chunked=chance.random() < 0.3,
        upgrade=chance.random() < 0.3,
        cuts=tuple(
            Cut(chance.randrange(length), chance.choice(list(How))) for _ in range(chance.choice((0, 0, 1, 1, 2, 4)))
        ),
        terminate_at=chance.randrange(length) if manner is Manner.TERMINATE else 0,
    )


def parallel(chance: random.Random, length: int, speed: float) -> PlannedUpload:
    """Return an upload in two to four parts, as tus-js-client makes with parallelUploads."""
    count = min(length, chance.randint(2, 4))
    ends = [length * (n + 1) // count for n in range(count)]
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    parts = tuple(one_file(chance, Manner.PLAIN, one, speed) for one in lengths)
    return PlannedUpload(
        seed=chance.getrandbits(48), length=length, piece=length, rate=speed, manner=Manner.PARALLEL, parts=parts
    )


def conflicting_client(seed: int, n: int, seconds: float) -> Iterator[PlannedUpload]:
    """Yield the uploads of a client that sends other bytes when it resumes."""
    chance = random.Random(f"{seed} adversary {n}")  # the text is part of the seed: a change makes other plans
    busy_s = 0.0
    while busy_s < seconds * BUSY:
        rounds = tuple(
            Round(
                replica=chance.randrange(REPLICAS),
                send=chance.randint(1, MIB),
                push=chance.randint(MIB, 8 * MIB),
                rush_s=chance.uniform(0.0, 0.006),
                frozen_s=chance.uniform(LEASE_TTL_S + 0.5, LEASE_TTL_S + 2.0),
                wait_s=chance.choice((0.0, chance.uniform(0.0, LEASE_TTL_S + 2.5))),
            )
            for _ in range(chance.randint(1, 3))
        )
        length = chance.randint(12 * MIB, 24 * MIB)
        yield PlannedUpload(
            seed=chance.getrandbits(48),
            length=length,
            piece=chance.randint(MIB, 8 * MIB),
            rate=4 * MIB,
            manner=Manner.CONFLICTING,
            rounds=rounds,
        )
        busy_s += length / (4 * MIB) + sum(one.frozen_s + 1 for one in rounds)
