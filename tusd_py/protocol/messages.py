"""What passes the border: requests and replies without a framework, and the commands that a request can be.

A dialect (tus1.py) reads a Request into one command and builds the Reply; the engine knows only the commands.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request without its body."""

    method: str
    upload_id: str  # "" is the creation URL
    headers: Mapping[str, tuple[str, ...]]  # names in lower case; every value received, in order
    creation_url: str  # absolute, or a path where the origin is not known; ends in "/"
    is_streamed: bool = False  # a body comes though neither Content-Length nor Transfer-Encoding says so (HTTP/2)
    uri: str = ""  # path and query as received
    remote_addr: str = ""  # "host:port" of the peer


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP response."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Limits:
    """What this server takes and offers; told by OPTIONS."""

    max_size: int = 0  # bytes of one upload; 0: no limit
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the digest of a body must be."""

    algorithm: str  # a name of fields.CHECKSUM_ALGORITHMS
    digest: bytes


@dataclass(frozen=True, slots=True)
class Describe:
    """Tell what the server can do (OPTIONS)."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make a new upload (POST), with its first bytes when the request carries some."""

    length: int | None  # bytes; None: deferred, or that of the parts together
    metadata: str = ""  # Upload-Metadata as received
    concat: str = ""  # Upload-Concat as received
    parts: tuple[str, ...] = ()  # the ids that a final upload is made of, in order
    body_length: int | None = 0  # bytes; None: known at the end of the body
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """Add the body to an upload at an offset (PATCH)."""

    upload_id: str
    offset: int  # bytes
    length: int | None = None  # bytes; declared now for an upload whose length was deferred
    body_length: int | None = 0  # bytes; None: known at the end of the body (chunked, HTTP/2)
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class Inspect:
    """Tell the offset of an upload (HEAD)."""

    upload_id: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Remove an upload (DELETE)."""

    upload_id: str


@dataclass(frozen=True, slots=True)
class Download:
    """Give the bytes of a finished upload (GET); not part of tus, offered because every client expects it."""

    upload_id: str


Command = Describe | Create | Append | Inspect | Terminate | Download
