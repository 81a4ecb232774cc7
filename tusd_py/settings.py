"""Every setting once: its default, its unit, what it is for, and the rule for its values.

The flags of the command line, the TUSD_PY_... variables, `--help` and the table in README.md are all made from here.
"""

import base64
import binascii
import ipaddress
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

ENV_PREFIX = "TUSD_PY_"
LONGEST_S = 1_000_000_000  # 31 years: every date that is computed with it can still be written
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
MAX_SLOTS = 16384  # of a Redis Cluster

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class WrongSetting(ValueError):
    """A setting has a value that is not allowed; the text is one line that says what is allowed."""


class Rule(Protocol[T_co]):
    """What the values of a setting can be."""

    @property
    def text(self) -> str:
        """What a value must be, as it ends the sentence "it must be ..."."""

    def parse(self, text: str) -> T_co:
        """Return the value that a text stands for. Raises ValueError when it stands for none."""

    def allows(self, value: object) -> bool:
        """Return whether the value is allowed; it can be of any type."""


@dataclass(frozen=True)
class Whole:
    """Whole numbers."""

    least: int = 0
    most: int | None = None

    @property
    def text(self) -> str:
        to = "or more" if self.most is None else f"to {self.most}"
        return f"a whole number, {self.least} {to}"

    def parse(self, text: str) -> int:
        return int(text)

    def allows(self, value: object) -> bool:
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.least <= value and (self.most is None or value <= self.most)


@dataclass(frozen=True)
class Seconds:
    """Lengths of time in seconds."""

    least: int = 0
    is_open: bool = False  # whether the least itself is not allowed

    @property
    def text(self) -> str:
        return f"a number of seconds, {'more than ' if self.is_open else ''}{self.least} to {LONGEST_S}"

    def parse(self, text: str) -> float:
        return float(text)

    def allows(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        # Not a number (nan) is neither less nor more than anything.
        return self.least <= value <= LONGEST_S and not (self.is_open and value == self.least)


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " or ".join(self.words)

    def parse(self, text: str) -> str:
        return text

    def allows(self, value: object) -> bool:
        return isinstance(value, str) and value in self.words


@dataclass(frozen=True)
class Text:
    """Texts; which ones, a function says. It may raise ValueError for those that are not allowed."""

    text: str = "a text without NUL"
    is_right: Callable[[str], object] = lambda text: True

    def parse(self, text: str) -> str:
        return text

    def allows(self, value: object) -> bool:
        try:
            return isinstance(value, str) and "\0" not in value and bool(self.is_right(value))
        except ValueError:
            return False


@dataclass(frozen=True)
class Texts:
    """Tuples of texts without white space, which separates them in a variable."""

    each: Text

    @property
    def text(self) -> str:
        return f"a tuple of texts, each {self.each.text}"

    def parse(self, text: str) -> tuple[str, ...]:
        return tuple(text.split())

    def allows(self, value: object) -> bool:
        return isinstance(value, tuple) and all(map(self.allows_one, value))

    def allows_one(self, value: object) -> bool:
        """Return whether the value may be one of them."""
        return self.each.allows(value) and [value] == str(value).split()


@dataclass(frozen=True)
class Folder:
    """Paths of folders; a text stands for a path."""

    text: str = "a path"

    def parse(self, text: str) -> Path:
        return Path(text)

    def allows(self, value: object) -> bool:
        return isinstance(value, str | Path) and "\0" not in str(value)


@dataclass(frozen=True, kw_only=True)
class Setting(Generic[T_co]):
    """What is known of one setting."""

    default: T_co
    metavar: str  # the unit or kind of its values
    help: str
    rule: Rule[T_co]
    is_secret: bool  # whether no value of it is ever printed

    def fault(self, value: object) -> str | None:
        """Return what is wrong with a value, as the predicate of a sentence; None if it is allowed."""
        rule = self.rule
        if rule.allows(value):
            return None
        if self.is_secret:
            return f"must be {rule.text}"
        if isinstance(rule, Texts) and isinstance(value, tuple):
            wrong = next(one for one in value if not rule.allows_one(one))
            return f"is {shown(wrong)}, it must be {rule.each.text}"
        return f"is {shown(value)}, it must be {rule.text}"

    def read(self, text: str, name: str) -> T_co:
        """Return the value that a text stands for. Raises WrongSetting, with this name of the setting."""
        try:
            value = self.rule.parse(text)
        except ValueError:
            fault: str | None = f"is {shown(text)}, it must be {self.rule.text}"
        else:
            fault = self.fault(value)
        if fault:
            raise WrongSetting(f"{name} {fault}")
        return value


def setting(default: T, metavar: str, text: str, rule: Rule[T], *, is_secret: bool = False) -> T:
    """Return the field of a setting."""
    described = Setting(default=default, metavar=metavar, help=text, rule=rule, is_secret=is_secret)
    return field(default=default, repr=not is_secret, metadata={"setting": described})


def networks(peers: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks among the peers: all but the words unix and *. Raises ValueError."""
    return tuple(ipaddress.ip_network(one, strict=False) for one in peers if one not in ("unix", "*"))


def is_base_path(text: str) -> bool:
    """Return whether text is a path that begins and ends with a slash and has no empty or special part."""
    return re.fullmatch(r"/([^/\s?#{}]+/)*", text) is not None


def is_redis_url(text: str) -> bool:
    """Return whether text is empty or names a Redis, with ports that are numbers. Raises ValueError too."""
    parts = urlsplit(text)
    if not text or parts.scheme == "unix":
        return True
    _, _, kind = parts.scheme.partition("+")
    credentials, at, hosts = parts.netloc.rpartition("@")
    for host in hosts.split(",") if kind else [hosts]:
        _ = parts._replace(netloc=credentials + at + host).port  # urlsplit looks at it only now
    *names, db = parts.path.strip("/").split("/")
    if kind == "sentinel" and not names:
        names, db = [db], ""
    is_path = db == "" or db.isdigit()
    return parts.scheme in REDIS_SCHEMES and is_path and (len(names), all(names)) == (int(kind == "sentinel"), True)


def is_http_url(text: str) -> bool:
    """Return whether text is the URL of an HTTP server. Raises ValueError too."""
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0


def is_origin(text: str) -> bool:
    """Return whether text is an origin as browsers send it, or the word for all of them."""
    return text in ("*", "null") or re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", text) is not None


def is_key(text: str) -> bool:
    """Return whether text is empty or a key in the form of Standard Webhooks."""
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        return False
    return not text or 24 <= len(key) <= 64


KEY = "whsec_ and 24 to 64 bytes in Base64"
ANY_TEXT = Text()
ANY_SECONDS = Seconds()
SOME_SECONDS = Seconds(is_open=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the server runs. Raises WrongSetting."""

    host: str = setting("127.0.0.1", "ADDRESS", "Address to listen on.", Text("an address or a host name", bool))
    port: int = setting(1080, "PORT", "Port to listen on; 0 picks a free one and prints it.", Whole(most=65535))
    unix_socket: str = setting("", "PATH", "Listen on this unix socket instead.", ANY_TEXT)
    base_path: str = setting(
        "/files/", "PATH", "Path of the URL at which uploads are created.", Text("a path like /files/", is_base_path)
    )
    upload_dir: Path = setting(
        Path("uploads"),
        "DIRECTORY",
        "Folder of the uploads, shared by all replicas: the bytes (ID) and a sidecar in tusd's form (ID.info).",
        Folder(),
    )
    redis_url: str = setting(
        "",
        "URL",
        "Ledger for several hosts: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://. Without it: "
        "SQLite inside the upload folder, for one host.",
        Text(
            "like redis://HOST:6379/0, unix:///PATH, redis+sentinel://HOST/NAME or redis+cluster://HOST", is_redis_url
        ),
        is_secret=True,  # it can have a password in it
    )
    redis_prefix: str = setting(
        "tusd",
        "TEXT",
        "Begins every key in Redis; give each deployment in one Redis its own.",
        Text("1 to 64 letters, digits and _ . : -", lambda text: re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text)),
    )
    redis_shards: int = setting(
        1,
        "N",
        "Slots of a Redis Cluster that the uploads are spread over; another number than before is refused.",
        Whole(1, MAX_SLOTS),
    )
    redis_wait_replicas: int = setting(
        0, "N", "Replicas of Redis that must have a completion before the client gets its answer.", Whole()
    )
    workers: int = setting(1, "N", "Processes.", Whole(1))
    max_size: int = setting(0, "BYTES", "Largest upload; 0: no limit.", Whole())
    expire_after: float = setting(
        604800.0,
        "SECONDS",
        "An unfinished upload is removed this long after its last byte; 0: never.",
        ANY_SECONDS,
    )
    min_free: int = setting(
        16777216,
        "BYTES",
        "Uploads leave this much of the volume free: the ledger's log, the sidecars and the tombstones with which a "
        "DELETE begins need it. 0: nothing is kept free.",
        Whole(),
    )
    sweep_interval: float = setting(60.0, "SECONDS", "Time between two searches for expired uploads.", SOME_SECONDS)
    tidy_interval: float = setting(
        21600.0, "SECONDS", "Time between two searches for files that a crash left behind.", SOME_SECONDS
    )
    webhook_url: tuple[str, ...] = setting(
        (),
        "URL",
        "Receiver of an event for each finished upload; may repeat.",
        Texts(Text("an http(s) URL", is_http_url)),
        is_secret=True,  # it can have a password or a token in it
    )
    webhook_secret: str = setting(
        "", "SECRET", f"Key that signs the callbacks: {KEY}.", Text(KEY, is_key), is_secret=True
    )
    webhook_timeout: float = setting(10.0, "SECONDS", "How long a receiver may take to answer.", SOME_SECONDS)
    webhook_give_up_after: float = setting(
        259200.0,
        "SECONDS",
        "A callback is retried for this long; then its event is buried, with the reason.",
        SOME_SECONDS,
    )
    durability: str = setting(
        "fsync",
        "fsync|none",
        "Whether an acknowledged byte survives a crash of the host (fsync) or only one of the process (none).",
        OneOf(("fsync", "none")),
    )
    file_locks: str = setting(
        "required",
        "required|none",
        "Whether a file system must have locks on open files (OFD locks); without them the lease alone keeps writers "
        "apart.",
        OneOf(("required", "none")),
    )
    splice: str = setting(
        "auto",
        "auto|off",
        "Whether the kernel carries bodies from the socket to the file where it can (auto), or never (off).",
        OneOf(("auto", "off")),
    )
    lease_ttl: float = setting(10.0, "SECONDS", "How long a crash of a replica blocks its uploads.", Seconds(1))
    lease_wait: float = setting(
        15.0, "SECONDS", "How long a request waits for an upload that is in use before it is answered with 423.",
        SOME_SECONDS,
    )  # fmt: skip
    checkpoint_bytes: int = setting(
        16777216, "BYTES", "While a body arrives, its offset is recorded at least every so many bytes.", Whole(65536)
    )
    checkpoint_interval: float = setting(
        10.0,
        "SECONDS",
        "While a body arrives, its offset is recorded at least this often; more often in its first seconds.",
        SOME_SECONDS,
    )
    read_timeout: float = setting(
        60.0, "SECONDS", "A client that sends nothing for this long counts as gone.", SOME_SECONDS
    )
    grace: float = setting(
        5.0,
        "SECONDS",
        "After SIGTERM, request bodies go on for this long; then they yield at a safe offset.",
        ANY_SECONDS,
    )
    shutdown_timeout: float = setting(
        20.0,
        "SECONDS",
        "How long requests may go on after SIGTERM; the process ends a few seconds later at most.",
        ANY_SECONDS,
    )
    cors_origin: tuple[str, ...] = setting(
        ("*",),
        "ORIGIN",
        "Pages of this origin may upload; may repeat; * is every origin.",
        Texts(Text("an origin like https://example.org, or *", is_origin)),
    )
    behind_proxy: tuple[str, ...] = setting(
        (),
        "ADDRESS",
        "Believe X-Forwarded-* and Forwarded from this address, network, unix (peers on the unix socket) or * (all); "
        "may repeat.",
        Texts(Text("an address, a network, unix or *", lambda text: networks([text]) or text in ("unix", "*"))),
    )

    def __post_init__(self) -> None:
        for name, one in SETTINGS.items():
            fault = one.fault(getattr(self, name))
            if fault:
                raise WrongSetting(f"{flag(name)} {fault}")
        object.__setattr__(self, "upload_dir", Path(self.upload_dir))  # callers of the library give texts too
        if self.webhook_url and not self.webhook_secret:
            example = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
            raise WrongSetting(f"--webhook-secret is missing, it must be {KEY}, for example {example}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Return the settings that the TUSD_PY_... variables give. Raises WrongSetting."""
        texts = {name: environ.get(variable(name)) for name in SETTINGS}
        return cls.of({name: SETTINGS[name].read(text, variable(name)) for name, text in texts.items() if text})

    @classmethod
    def of(cls, values: Mapping[str, object]) -> "Settings":
        """Return the settings with these values, by name. Raises WrongSetting."""
        by_name: dict[str, Any] = dict(values)  # each is checked by its rule
        return cls(**by_name)

    def to_env(self) -> dict[str, str]:
        """Return the variables from which from_env makes these settings: how worker processes get them."""
        values = {name: getattr(self, name) for name in SETTINGS}
        # A blank stands for an empty tuple: an empty variable counts as a missing one.
        return {variable(name): " " if value == () else build(value) for name, value in values.items()}


SETTINGS: Mapping[str, Setting[object]] = {one.name: one.metadata["setting"] for one in fields(Settings)}


def flag(name: str) -> str:
    """Return the name of a setting on the command line."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return the name of a setting in the environment."""
    return ENV_PREFIX + name.upper()


def build(value: object) -> str:
    """Return the text that stands for a value, as Rule.parse reads it."""
    if isinstance(value, tuple):
        return " ".join(value)
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def shown(value: object) -> str:
    """Return the value as one line of an error."""
    known = isinstance(value, str | int | float | None)
    return repr(value) if known else f"of the type {type(value).__name__}"
