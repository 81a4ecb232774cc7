"""What several test modules need: the ledgers, a real redis-server for the session, an anyio back end."""

import itertools
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio
from fakeredis import FakeAsyncRedis
from playwright.sync_api import Browser

from tests.support.browser import running_browser
from tests.support.folder import NewFolder
from tests.support.node import install_clients, program
from tests.support.processes import Redis, redis_binary, running_redis, valkey_binary
from tests.support.redis_kinds import cluster_url, running_cluster
from tusd_py.ledger.redis import RedisLedger
from tusd_py.ledger.redis.servers import Client, connect
from tusd_py.ledger.sqlite import SqliteLedger

names = itertools.count(1)
shards = itertools.cycle((1, 3))


def pytest_report_header() -> list[str]:
    """Say which Redis the tests run on."""
    versions = [
        subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout.strip()
        for binary in (redis_binary(), valkey_binary())
    ]
    return [f"redis: {version}" for version in versions]


@pytest.fixture(autouse=True)
def checkout_stays_clean() -> Iterator[None]:
    """Fail a test that makes the default upload folder: a server that it started had no --upload-dir."""
    folder = Path(__file__).parent.parent / "uploads"
    was_there = folder.exists()  # of a server that was tried out here
    yield

    assert was_there or not folder.exists(), f"the test made {folder}; give its server an --upload-dir"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A real redis-server for the session; whoever kills one starts his own."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The URL of the session's redis-server, emptied."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A real valkey-server for the session."""
    with running_redis(tmp_path_factory.mktemp("valkey"), valkey_binary()) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Redis]]:
    """A real Redis Cluster of three masters for the session; whoever kills one starts it again."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(params=["sqlite", "fakeredis", "redis", "valkey", "cluster"])
async def ledger(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: Redis, valkey_server: Redis, cluster: list[Redis]
) -> AsyncIterator[SqliteLedger | RedisLedger]:
    """Every ledger there is, empty and open."""
    opened: SqliteLedger | RedisLedger
    if request.param == "sqlite":
        opened = SqliteLedger(tmp_path / "ledger.sqlite3")
    else:
        client: Client
        match request.param:
            case "fakeredis":
                client = FakeAsyncRedis(decode_responses=True, version=(7,))
            case "redis":
                client = connect(redis_server.url)
            case "cluster":
                client = connect(cluster_url(cluster))
            case _:
                client = connect(valkey_server.url)
        opened = RedisLedger(client, shards=next(shards), prefix=f"test-{next(names)}")
    await opened.open(NewFolder())
    await opened.bind()
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium. For one module: it keeps an event loop of its own running beside the tests."""
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def node() -> str:
    """The node program, with the JavaScript clients installed."""
    install_clients()
    return program("node")
