"""What a plan is made of: what is uploaded in which manner, and what breaks when."""

from dataclasses import dataclass
from enum import StrEnum

MIB = 1024 * 1024
REPLICAS = 3
LEASE_TTL_S = 2.0


class Manner(StrEnum):
    """How a file is uploaded."""

    PLAIN = "in several PATCHes"
    CHECKSUM = "with Upload-Checksum"
    WITH_CREATION = "creation with the first bytes"
    TERMINATE = "terminated half way"
    PARALLEL = "as partial uploads"
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
    REPLICA_RESTART = "replica restarted in order"
    REPLICA_POINT = "replica killed at a point"
    REDIS_KILL = "Redis killed"
    REDIS_FREEZE = "Redis frozen"
    REDIS_OLDER = "Redis restored from a copy"
    REDIS_EMPTY = "Redis emptied"
    CLOCK_SET_BACK = "clock of Redis set back"
    NGINX_RESTART = "nginx restarted"
    RECEIVER_KILL = "receiver killed"
    DISK_FULL = "disk filled"
    VOLUME_UNMOUNTED = "volume unmounted"
    VOLUME_MISSING = "upload folder missing"


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


@dataclass(frozen=True, kw_only=True)
class PlannedUpload:
    """One file."""

    seed: int
    length: int  # bytes
    piece: int  # bytes a PATCH
    rate: float  # bytes a second
    manner: Manner
    chunked: bool = False  # every body comes in chunked coding, as tus-java-client sends it
    upgrade: bool = False  # every request with a body asks for HTTP/2, as curl --http2 and Java's HttpClient do
    cuts: tuple[Cut, ...] = ()
    rounds: tuple[Round, ...] = ()
    terminate_at: int = 0  # bytes sent
    parts: tuple["PlannedUpload", ...] = ()  # partial uploads that make this one, in order


@dataclass(frozen=True)
class Fault:
    """One thing that breaks, and is whole again after for_s."""

    at_s: float  # since the beginning
    kind: Kind
    for_s: float
    point: str = ""  # of points.py, for a replica that is killed at one


@dataclass(frozen=True)
class Plan:
    """All of it."""

    seed: int
    seconds: float
    clients: tuple[tuple[PlannedUpload, ...], ...]
    faults: dict[str, tuple[Fault, ...]]  # by what they happen to; those of one never overlap
    clocks: tuple[float, ...]  # how far the clock of each replica is off, in seconds

    @property
    def length(self) -> int:
        """Return the bytes of all files, and of the parts that some are made of."""
        return sum(upload.length * (2 if upload.parts else 1) for uploads in self.clients for upload in uploads)
