"""Redis with Sentinels, and a Redis Cluster, from real processes on 127.0.0.1."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.support.processes import Redis, eventually, free_port, lasting_port, running_redis

SLOTS = 16384
MASTER = "uploads"


@dataclass
class Watched:
    """A master, its replica, and three Sentinels that promote the replica if the master fails."""

    master: Redis
    replica: Redis
    sentinels: list[Redis]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{MASTER}/0"

    def master_port(self) -> int:
        """Return the port of the current master according to the first Sentinel."""
        with redis.Redis(port=self.sentinels[0].port, decode_responses=True) as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])

    def replicas(self) -> int:
        """Return the number of the master's replicas that are in sync."""
        with redis.Redis(port=self.master.port, decode_responses=True) as client:
            info = client.info("replication")
            return sum(info[f"slave{n}"]["state"] == "online" for n in range(info["connected_slaves"]))


@contextmanager
def running_sentinels(folder: Path, binary: Path | None = None) -> Iterator[Watched]:
    """Run a master, a replica and three Sentinels for the length of the with block."""
    with ExitStack() as stack:
        master = stack.enter_context(running_redis(folder / "master", binary))
        options = ("--replicaof", f"127.0.0.1 {master.port}", "--repl-diskless-sync-delay", "0")
        replica = stack.enter_context(running_redis(folder / "replica", binary, options))
        sentinels = []
        for n in range(3):
            config = folder / f"sentinel-{n}.conf"
            config.write_text(
                f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 2\n"
                f"sentinel down-after-milliseconds {MASTER} 1000\n"
                f"sentinel failover-timeout {MASTER} 3000\n"
            )
            sentinel = Sentinel(config, folder / f"sentinel-{n}", binary)
            sentinel.start()
            stack.callback(sentinel.end)
            sentinels.append(sentinel)
        watched = Watched(master, replica, list(sentinels))
        eventually(lambda: watched.replicas() == 1, what="the replica is in sync")
        eventually(lambda: all(sentinel.knows() for sentinel in sentinels), what="the Sentinels know each other")
        yield watched


class Sentinel(Redis):
    """A redis-server --sentinel. It rewrites its configuration file."""

    def __init__(self, config: Path, folder: Path, binary: Path | None) -> None:
        super().__init__(folder, binary)
        self._config = config

    def command(self) -> list[str]:
        address = ("--port", str(self.port), "--bind", "127.0.0.1")
        return [str(self.binary), str(self._config), "--sentinel", *address]

    def knows(self) -> bool:
        """Return whether it has found the two other Sentinels and the replica."""
        with redis.Redis(port=self.port, decode_responses=True) as client:
            seen = client.sentinel_master(MASTER)
            return bool(seen["num-other-sentinels"] == 2 and seen["num-slaves"] == 1)


@contextmanager
def running_cluster(folder: Path) -> Iterator[list[Redis]]:
    """Run a Cluster of three masters for the length of the with block."""
    with ExitStack() as stack:
        nodes = []
        for n in range(3):
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", str(free_port()))
            node = Redis(folder / f"node-{n}", port=lasting_port(), options=options)
            node.start()
            stack.callback(node.end)
            nodes.append(node)
        for n, node in enumerate(nodes):
            with redis.Redis(port=node.port, decode_responses=True) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", SLOTS * n // 3, SLOTS * (n + 1) // 3 - 1)
                bus = int(client.config_get("cluster-port")["cluster-port"])
                with redis.Redis(port=nodes[0].port) as first:
                    first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        eventually(lambda: all(is_ok(node) for node in nodes), what="the cluster is ready")
        yield nodes


def is_ok(node: Redis) -> bool:
    """Return whether a node sees a complete Cluster of three nodes."""
    with redis.Redis(port=node.port, decode_responses=True) as client:
        info = client.execute_command("CLUSTER", "INFO")
    facts = info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.split())
    return ("ok", "3") == (facts["cluster_state"], facts["cluster_known_nodes"])


def cluster_url(nodes: list[Redis]) -> str:
    """Return a URL for --redis-url that names two of the Cluster's nodes."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes[:2])
