"""The time of a POST, a HEAD and a sweep of nothing when very many uploads are recorded."""

import asyncio
import secrets
import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import redis

from tests.support.processes import running_redis, running_server
from tusd_py.ledger.redis import RedisLedger
from tusd_py.ledger.redis.servers import connect
from tusd_py.ledger.sqlite import SqliteLedger
from tusd_py.ports import Due
from tusd_py.storage.file import FileStorage
from tusd_py.wiring import LEDGER_FILE

from .scenarios import HEAD, Client

REQUESTS = 300
BATCH = 10_000


def fill_sqlite(path: Path, count: int) -> None:
    """Copy the only record until there are count of them."""
    with closing(sqlite3.connect(path)) as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(uploads)")]
        values = ", ".join("lower(hex(randomblob(16)))" if name == "id" else f'"{name}"' for name in names)
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            f" INSERT INTO uploads SELECT {values} FROM (SELECT * FROM uploads LIMIT 1), n",
            (count,),
        )
        db.commit()


def fill_redis(url: str, count: int) -> None:
    """Copy the only record until there are count of them."""
    with redis.Redis.from_url(url) as client:
        [key] = client.scan_iter("tusd:{0}:upload:*", count=BATCH)
        record = client.dump(key)
        [(_, expires)] = client.zrange("tusd:{0}:expires", 0, 0, withscores=True)
        for start in range(1, count, BATCH):
            ids = [secrets.token_hex(16) for _ in range(min(BATCH, count - start))]
            pipe = client.pipeline(transaction=False)
            for one in ids:
                pipe.restore("tusd:{0}:upload:" + one, 0, record)
            pipe.zadd("tusd:{0}:expires", dict.fromkeys(ids, expires))
            pipe.execute()


def sweep_ms(ledger: SqliteLedger | RedisLedger, folder: Path) -> float:
    """Return the time to find that nothing has expired, in milliseconds."""

    async def look() -> float:
        storage = FileStorage(folder, durable=False)
        await ledger.open(storage)
        await ledger.bind()
        began_at = time.perf_counter()
        assert await ledger.due(time.time(), 100) == Due()
        took_s = time.perf_counter() - began_at
        await ledger.close()
        storage.close()
        return took_s * 1000

    return asyncio.run(look())


def median_ms(call: Callable[[], object]) -> float:
    """Return the median time of many calls, in milliseconds."""
    times_s = []
    for _ in range(REQUESTS):
        began_at = time.perf_counter()
        call()
        times_s.append(time.perf_counter() - began_at)
    return statistics.median(times_s) * 1000


def growth(folder: Path, counts: Sequence[int]) -> str:
    """Return the growth table."""
    lines = [
        "## growth\n",
        "Milliseconds of a request (median, one client) and of a sweep, by the number of unfinished uploads.\n",
        "| ledger | uploads | POST | HEAD | sweep |",
        "|---|---:|---:|---:|---:|",
    ]
    for count in counts:
        for name in ("sqlite", "redis"):
            work = folder / f"growth-{name}-{count}"
            work.mkdir()
            with running_redis(work / "redis", options=("--appendonly", "no")) as server_redis:
                flags = ["--redis-url", server_redis.url] if name == "redis" else []
                with running_server(work, "--durability", "none", *flags) as server:
                    client = Client(int(server.url.split(":")[2].split("/")[0]))
                    path = client.create(10)
                    file = work / "uploads" / LEDGER_FILE
                    if name == "redis":
                        fill_redis(server_redis.url, count)
                    else:
                        fill_sqlite(file, count)
                    ask = f"HEAD {path} {HEAD}\r\n".encode()
                    post_ms = median_ms(lambda client=client: client.create(10))  # type: ignore[misc]
                    head_ms = median_ms(lambda client=client, ask=ask: client.ask(ask))  # type: ignore[misc]
                    ledger = RedisLedger(connect(server_redis.url)) if name == "redis" else SqliteLedger(file)
                    swept_ms = sweep_ms(ledger, file.parent)
            lines.append(f"| {name} | {count:,} | {post_ms:.2f} | {head_ms:.2f} | {swept_ms:.2f} |")
            print(lines[-1], flush=True)
    return "\n".join([*lines, ""])
