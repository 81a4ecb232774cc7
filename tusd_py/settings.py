"""Every setting once: its flag, its environment variable, its unit, its default and what it may be."""

import base64
import binascii
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .border.forwarded import Proxies

REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
ENV_PREFIX = "TUSD_PY_"
LONGEST_S = 1_000_000_000  # 31 years: any date that comes of it can still be written
POSITIVE = (
    "sweep_interval",
    "tidy_interval",
    "webhook_timeout",
    "webhook_give_up_after",
    "lease_wait",
    "checkpoint_interval",
    "read_timeout",
)


class WrongSetting(ValueError):
    """A setting has a value that cannot be; the text is one line that says what would be right."""


def setting(default: Any, metavar: str, text: str) -> Any:
    return field(default=default, metadata={"metavar": metavar, "help": text})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the server runs. Raises WrongSetting."""

    host: str = setting("127.0.0.1", "ADDRESS", "Address to listen on.")
    port: int = setting(1080, "PORT", "Port to listen on; 0 picks a free one and prints it.")
    unix_socket: str = setting("", "PATH", "Listen on this unix socket instead.")
    base_path: str = setting("/files/", "PATH", "Where uploads are created.")
    upload_dir: Path = setting(Path("./uploads"), "DIRECTORY", "Folder of the uploads; replicas share it.")
    redis_url: str = setting(
        "", "URL", "Ledger for several replicas: redis://, rediss://, unix://, redis+sentinel://; none: SQLite."
    )
    redis_prefix: str = setting("tusd", "TEXT", "Begins every key in Redis; another one for each deployment there.")
    redis_shards: int = setting(1, "N", "On a Cluster the uploads are spread over so many slots; never change it.")
    redis_wait_replicas: int = setting(0, "N", "Replicas of Redis that must have a completion before it is answered.")
    workers: int = setting(1, "N", "Processes.")
    max_size: int = setting(0, "BYTES", "Largest upload; 0: no limit.")
    expire_after: float = setting(
        604800.0, "SECONDS", "An unfinished upload goes this long after its last byte; 0: never."
    )
    min_free: int = setting(
        16777216, "BYTES", "Room on the volume that uploads do not take: the ledger and DELETE need some; 0: none."
    )
    sweep_interval: float = setting(60.0, "SECONDS", "How often expired uploads are looked for.")
    tidy_interval: float = setting(21600.0, "SECONDS", "How often files that a crash left over are looked for.")
    webhook_url: tuple[str, ...] = setting((), "URL", "Who hears of finished uploads; may repeat.")
    webhook_secret: str = setting("", "SECRET", "Signs the callbacks: whsec_ and 24 to 64 bytes in Base64.")
    webhook_timeout: float = setting(10.0, "SECONDS", "How long a receiver may take to answer.")
    webhook_give_up_after: float = setting(259200.0, "SECONDS", "Callbacks are retried this long, then buried.")
    durability: str = setting("fsync", "fsync|none", "Whether an acknowledged byte survives a crash of the host.")
    file_locks: str = setting("required", "required|none", "Whether a file system without OFD locks will do.")
    lease_ttl: float = setting(10.0, "SECONDS", "How long a crash of a replica blocks its uploads.")
    lease_wait: float = setting(15.0, "SECONDS", "How long a request waits for an upload in use before 423.")
    checkpoint_bytes: int = setting(16777216, "BYTES", "The offset is recorded at least this often while bytes come.")
    checkpoint_interval: float = setting(
        10.0, "SECONDS", "The offset is recorded at least this often while bytes come."
    )
    read_timeout: float = setting(60.0, "SECONDS", "A client that sends nothing for this long has gone away.")
    grace: float = setting(5.0, "SECONDS", "After SIGTERM, bodies go on for this long, then they yield.")
    shutdown_timeout: float = setting(20.0, "SECONDS", "How long running requests may go on at the end.")
    cors_origin: tuple[str, ...] = setting(("*",), "ORIGIN", "Pages of this origin may upload; may repeat; * is all.")
    behind_proxy: tuple[str, ...] = setting(
        (), "ADDRESS", "Believe X-Forwarded-* and Forwarded of this address, network, 'unix' or '*'; may repeat."
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "upload_dir", Path(self.upload_dir))  # callers of the library give texts too
        for one in fields(self):
            if isinstance(one.default, float):
                value = getattr(self, one.name)
                require(value <= LONGEST_S, one.name, value, f"at most {LONGEST_S} seconds")
        require(0 <= self.port <= 65535, "port", self.port, "a port from 0 to 65535")
        require(self.workers >= 1, "workers", self.workers, "1 or more")
        require(self.max_size >= 0, "max_size", self.max_size, "a number of bytes, or 0 for no limit")
        require(self.min_free >= 0, "min_free", self.min_free, "a number of bytes, or 0 for none")
        require(self.expire_after >= 0, "expire_after", self.expire_after, "a number of seconds, or 0 for never")
        require(self.durability in ("fsync", "none"), "durability", self.durability, "fsync or none")
        require(self.file_locks in ("required", "none"), "file_locks", self.file_locks, "required or none")
        require(self.checkpoint_bytes >= 65536, "checkpoint_bytes", self.checkpoint_bytes, "65536 or more")
        require(self.lease_ttl >= 1, "lease_ttl", self.lease_ttl, "1 second or more")
        for name in POSITIVE:
            require(getattr(self, name) > 0, name, getattr(self, name), "more than 0 seconds")
        require(self.grace >= 0, "grace", self.grace, "a number of seconds")
        require(self.shutdown_timeout >= 0, "shutdown_timeout", self.shutdown_timeout, "a number of seconds")
        path = self.base_path
        require(path.startswith("/") and path.endswith("/") and "//" not in path, "base_path", path, "like /files/")
        require(
            not self.redis_url or urlsplit(self.redis_url).scheme in REDIS_SCHEMES,
            "redis_url",
            self.redis_url,
            "like redis://localhost:6379/0, unix:///path or one of " + ", ".join(f"{one}://" for one in REDIS_SCHEMES),
        )
        require(
            re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", self.redis_prefix) is not None,
            "redis_prefix",
            repr(self.redis_prefix),
            "1 to 64 letters, digits and _ . : -",
        )
        require(self.redis_shards >= 1, "redis_shards", self.redis_shards, "1 or more")
        require(self.redis_wait_replicas >= 0, "redis_wait_replicas", self.redis_wait_replicas, "0 or more")
        for url in self.webhook_url:
            parts = urlsplit(url)
            require(parts.scheme in ("http", "https") and bool(parts.hostname), "webhook_url", url, "an http(s) URL")
        if self.webhook_secret or self.webhook_url:
            example = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
            said = "not that" if self.webhook_secret else "missing"  # a secret is never printed
            right = is_secret(self.webhook_secret)
            require(right, "webhook_secret", said, f"whsec_ and 24 to 64 bytes in Base64, for example {example}")
        try:
            Proxies(self.behind_proxy)
        except ValueError as exc:
            raise WrongSetting(f"--behind-proxy: {exc}; it must be an address, a network, unix or *") from None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Return the settings that TUSD_PY_... variables tell. Raises WrongSetting."""
        values: dict[str, Any] = {}
        for one in fields(cls):
            text = environ.get(ENV_PREFIX + one.name.upper())
            if text:
                values[one.name] = parse(one.name, one.default, text)
        return cls(**values)

    def to_env(self) -> dict[str, str]:
        """Return the variables from which from_env makes these settings: how worker processes get them."""
        return {ENV_PREFIX + one.name.upper(): build(getattr(self, one.name)) for one in fields(self)}


def parse(name: str, default: object, text: str) -> object:
    """Return the value that a text means for a setting with this default. Raises WrongSetting."""
    try:
        if isinstance(default, tuple):
            return tuple(text.split())
        return type(default)(text)  # type: ignore[call-arg]  # str, int, float or Path, all made from a text
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise WrongSetting(f"{flag(name)} is {text!r}, it must be {kind}") from None


def build(value: object) -> str:
    """Return the text from which parse makes the value."""
    return " ".join(value) if isinstance(value, tuple) else str(value)


def flag(name: str) -> str:
    """Return the command line's name of a setting."""
    return "--" + name.replace("_", "-")


def require(right: bool, name: str, value: object, rule: str) -> None:
    """Raise WrongSetting unless right."""
    if not right:
        raise WrongSetting(f"{flag(name)} is {value}, it must be {rule}")


def is_secret(text: str) -> bool:
    """Return whether text is a key in the form of Standard Webhooks."""
    try:
        return 24 <= len(base64.b64decode(text.removeprefix("whsec_"), validate=True)) <= 64
    except (binascii.Error, ValueError):
        return False
