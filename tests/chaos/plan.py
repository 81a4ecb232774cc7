"""The values of a plan: which files are uploaded and how, and what breaks when."""

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
    CONFLICTING = "resumed with other bytes"


class How(StrEnum):
    """How a client cuts its own connection."""

    FIN = "cut with FIN"
    RST = "cut with RST"
    SILENT = "left open, silent"


class Kind(StrEnum):
    """What breaks."""

    REPLICA_KILL = "replica killed"
    REPLICA_FREEZE = "replica frozen"
    REPLICA_RESTART = "replica restarted with SIGTERM"
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
    """The client cuts its connection once it has sent the file up to this offset."""

    at: int
    how: How


@dataclass(frozen=True)
class Round:
    """One conflict: a client freezes the replica that receives its bytes, and resumes with other bytes elsewhere."""

    replica: int
    send: int  # bytes that the replica may read
    push: int  # bytes sent at full speed after them, so that the freeze falls into a write
    rush_s: float  # from the first of these bytes to the freeze
    frozen_s: float
    wait_s: float  # before the first try to resume: the replica may still be frozen or not


@dataclass(frozen=True, kw_only=True)
class PlannedUpload:
    """One file."""

    seed: int
    length: int  # bytes
    piece: int  # bytes in a PATCH
    rate: float  # bytes per second
    manner: Manner
    chunked: bool = False  # every body has chunked coding, as from tus-java-client
    upgrade: bool = False  # every request with a body asks for HTTP/2, as curl --http2 and Java's HttpClient do
    cuts: tuple[Cut, ...] = ()
    rounds: tuple[Round, ...] = ()
    terminate_at: int = 0  # bytes sent
    parts: tuple["PlannedUpload", ...] = ()  # partial uploads to concatenate, in order


@dataclass(frozen=True)
class Fault:
    """One fault, which is repaired after for_s."""

    at_s: float  # since the beginning
    kind: Kind
    for_s: float
    point: str = ""  # the name in points.py, for Kind.REPLICA_POINT


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    seed: int
    seconds: float
    clients: tuple[tuple[PlannedUpload, ...], ...]
    faults: dict[str, tuple[Fault, ...]]  # by the part that breaks; the faults of one part never overlap
    clocks: tuple[float, ...]  # for each replica: how far its clock is ahead, in seconds

    @property
    def length(self) -> int:
        """Return the bytes of all files, and of the parts of concatenated ones."""
        return sum(upload.length * (2 if upload.parts else 1) for uploads in self.clients for upload in uploads)
