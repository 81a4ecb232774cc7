"""A client for the Redis that a URL names: one server, the master that Sentinels know, or a Cluster.

    redis://user:password@host:6379/0          one server; rediss:// with TLS, unix:///path for a socket
    redis+sentinel://host:26379,host:26379/NAME/0   the master that they call NAME; rediss+sentinel:// with TLS
    redis+cluster://host:6379,host:6379        the Cluster that these belong to; rediss+cluster:// with TLS

Options of redis-py may follow as a query, as ?ssl_ca_certs=/path. User and password are those of the servers;
?sentinel_username= and ?sentinel_password= those of the Sentinels.
"""

from typing import Any, TypeAlias
from urllib.parse import urlsplit

import redis.asyncio
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as Disconnected

from .connections import TIMEOUT_S

Client: TypeAlias = "redis.asyncio.Redis | redis.asyncio.RedisCluster"

RETRIES = 3  # of a connection that broke; with RETRY_CAP_S under a second: no request hangs on a server that is away
RETRY_BASE_S, RETRY_CAP_S = 0.05, 0.5


def connect(url: str) -> Client:
    """Return a client that sends a command again when the connection broke, not when it was silent.

    Resending is safe: every script gives the same result when it runs twice. Raises ValueError for another URL.
    """
    scheme, plus, kind = urlsplit(url).scheme.partition("+")
    if not plus:
        pool = redis.asyncio.ConnectionPool.from_url(url, **options(), retry=retry())
        return redis.asyncio.Redis.from_pool(pool)  # the client closes it
    addresses, shared, path = read(url.replace(plus + kind, "", 1))
    if kind == "sentinel":
        name, _, db = path.partition("/")
        if not name:
            raise ValueError("the URL of Sentinels ends with the name of the master, as /mymaster")
        sentinel_options = {
            "username": shared.pop("sentinel_username", None),
            "password": shared.pop("sentinel_password", None),
            **{option: value for option, value in shared.items() if option.startswith("ssl")},
        }
        sentinel = Sentinel(addresses, sentinel_kwargs=options() | sentinel_options)  # type: ignore[no-untyped-call]
        master = sentinel.master_for(name, db=int(db or 0), retry=retry(), **options(), **shared)
        return master  # type: ignore[no-any-return]  # redis-py says Any
    if kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in addresses]
        return redis.asyncio.RedisCluster(startup_nodes=nodes, retry=retry(), **options(), **shared)
    raise ValueError(f"{scheme}+{kind}:// is no Redis")


def options() -> dict[str, Any]:
    """Return how every connection is used."""
    return {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "protocol": 2,  # the shapes of answers depend on it
        "decode_responses": True,
    }


def retry() -> Retry:
    """Return when a command is sent again."""
    return Retry(ExponentialBackoff(cap=RETRY_CAP_S, base=RETRY_BASE_S), RETRIES, supported_errors=(Disconnected,))


def read(url: str) -> tuple[list[tuple[str, int]], dict[str, Any], str]:
    """Return addresses, the options they share, and the path, of a URL with several hosts. Raises ValueError."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    shared: dict[str, Any] = {}
    addresses = []
    for host in hosts.split(","):
        shared = dict(parse_url(parts._replace(netloc=credentials + at + host, path="").geturl()))
        addresses.append((shared.pop("host", "localhost"), shared.pop("port", 6379)))
    if shared.pop("connection_class", None) is SSLConnection:
        shared["ssl"] = True
    return addresses, shared, parts.path.strip("/")
