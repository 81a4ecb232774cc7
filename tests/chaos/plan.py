"""The plan that a seed makes: what is uploaded in which manner, and what breaks when.

Pure: the same seed, the same plan. Only when things happen to each other is left to the machine.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

MIB = 1024 * 1024
REPLICAS = 3
LEASE_TTL_S = 2.0
MAX_BYTES = 1536 * MIB  # of all uploads together: they lie in memory where the disk can be filled
RATE = 1.0 * MIB  # bytes a second of one client; slow enough that a fault finds most of them in the middle
BUSY = 0.75  # of the time of the faults is what the uploads would take without them
ADVERSARIES = 6  # one in so many clients


class Manner(StrEnum):
    """How a file is uploaded."""

    PLAIN = "in several PATCHes"
    CHECKSUM = "with Upload-Checksum"
    WITH_CREATION = "creation with the first bytes"
    TERMINATE = "terminated half way"
    ADVERSARY = "resumed with other bytes"


class How(StrEnum):
    """How a client leaves its own connection."""

    FIN = "cut with FIN"
    RST = "cut with RST"
    SILENT = "left open, silent"


class Kind(StrEnum):
    """What breaks."""

    REPLICA_KILL = "replica killed"
    REPLICA_FREEZE = "replica frozen"
    REDIS_KILL = "Redis killed"
    REDIS_FREEZE = "Redis frozen"
    NGINX_RESTART = "nginx restarted"
    RECEIVER_KILL = "receiver killed"
    DISK_FULL = "disk filled"


@dataclass(frozen=True)
class Cut:
    """The client leaves its connection once this many bytes have been sent, counted from the beginning of the file."""

    at: int
    how: How


@dataclass(frozen=True)
class Round:
    """One lie of an adversary: its holder is frozen over old bytes, and it resumes with new ones."""

    replica: int
    send: int  # bytes that the holder may read
    push: int  # bytes that come in a rush, so that the holder is frozen over a write
    rush_s: float  # from the beginning of the rush to the freeze
    frozen_s: float
    wait_s: float  # before the first try to go on: the holder may be back by then, or not


@dataclass(frozen=True)
class PlannedUpload:
    """One file."""

    seed: int
    length: int  # bytes
    piece: int  # bytes a PATCH
    rate: float  # bytes a second
    manner: Manner
    cuts: tuple[Cut, ...] = ()
    rounds: tuple[Round, ...] = ()
    terminate_at: int = 0  # bytes sent


@dataclass(frozen=True)
class Fault:
    """One thing that breaks, and is whole again after for_s."""

    at_s: float  # since the beginning
    kind: Kind
    for_s: float


@dataclass(frozen=True)
class Plan:
    """All of it."""

    seed: int
    seconds: float
    clients: tuple[tuple[PlannedUpload, ...], ...]
    faults: dict[str, tuple[Fault, ...]]  # by what they happen to; those of one never overlap

    @property
    def length(self) -> int:
        """Return the bytes of all files."""
        return sum(upload.length for uploads in self.clients for upload in uploads)


def make_plan(seed: int, seconds: float, clients: int) -> Plan:
    """Return the plan of a seed."""
    rate = min(RATE, MAX_BYTES / (clients * seconds * BUSY))
    adversaries = max(1, clients // ADVERSARIES)
    return Plan(
        seed,
        seconds,
        tuple(
            tuple(adversary(seed, n, seconds) if n < adversaries else client(seed, n, seconds, rate))
            for n in range(clients)
        ),
        {
            **{f"replica {n}": tuple(faults_of_replica(seed, n, seconds)) for n in range(REPLICAS)},
            "Redis": tuple(faults(seed, "Redis", seconds, (Kind.REDIS_KILL, Kind.REDIS_FREEZE), 8.0, (0.5, 5.0))),
            "nginx": tuple(faults(seed, "nginx", seconds, (Kind.NGINX_RESTART,), 9.0, (0.0, 1.0))),
            "receiver": tuple(faults(seed, "receiver", seconds, (Kind.RECEIVER_KILL,), 6.0, (0.5, 3.0))),
            "disk": tuple(faults(seed, "disk", seconds, (Kind.DISK_FULL,), 10.0, (0.5, 2.5))),
        },
    )


def faults_of_replica(seed: int, n: int, seconds: float) -> Iterator[Fault]:
    """Yield what happens to one replica: a freeze is longer than a lease."""
    kinds = (Kind.REPLICA_KILL, Kind.REPLICA_FREEZE)
    return faults(seed, f"replica {n}", seconds, kinds, 7.0, (LEASE_TTL_S + 0.5, LEASE_TTL_S + 3.0))


def faults(
    seed: int, target: str, seconds: float, kinds: tuple[Kind, ...], every_s: float, lasting: tuple[float, float]
) -> Iterator[Fault]:
    """Yield the faults of one target, about one in every_s; of several kinds each has its turn."""
    chance = random.Random(f"{seed} {target}")
    at_s = chance.uniform(0.2, 0.7) * every_s
    turn = chance.randrange(len(kinds))
    while at_s < seconds:
        fault = Fault(at_s, kinds[turn % len(kinds)], chance.uniform(*lasting))
        yield fault
        turn += 1
        at_s += fault.for_s + chance.uniform(0.4, 1.2) * every_s


def client(seed: int, n: int, seconds: float, rate: float) -> Iterator[PlannedUpload]:
    """Yield the uploads of an honest client, one after the other."""
    chance = random.Random(f"{seed} client {n}")
    busy_s = 0.0
    while busy_s < seconds * BUSY:
        manner = chance.choices((Manner.PLAIN, Manner.CHECKSUM, Manner.WITH_CREATION, Manner.TERMINATE), (12, 2, 3, 2))[
            0
        ]
        length = chance.choices((chance.randint(1, MIB), chance.randint(MIB, 8 * MIB)), (1, 9))[0]
        speed = rate * chance.choice((0.5, 1.0, 2.0, 8.0))
        if chance.random() < 0.04:
            length, speed = chance.randint(32 * MIB, 64 * MIB), rate * 16
        largest = MIB if manner is Manner.CHECKSUM else 8 * MIB
        upload = PlannedUpload(
            seed=chance.getrandbits(48),
            length=length,
            piece=chance.randint(min(length, 128 * 1024), min(length, largest)),
            rate=speed,
            manner=manner,
            cuts=tuple(
                Cut(chance.randrange(length), chance.choice(list(How)))
                for _ in range(chance.choice((0, 0, 1, 1, 2, 4)))
            ),
            terminate_at=chance.randrange(length) if manner is Manner.TERMINATE else 0,
        )
        yield upload
        busy_s += length / speed + 0.1


def adversary(seed: int, n: int, seconds: float) -> Iterator[PlannedUpload]:
    """Yield the uploads of a client that resumes with other bytes than those it has sent already."""
    chance = random.Random(f"{seed} adversary {n}")
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
            manner=Manner.ADVERSARY,
            rounds=rounds,
        )
        busy_s += length / (4 * MIB) + sum(one.frozen_s + 1 for one in rounds)
