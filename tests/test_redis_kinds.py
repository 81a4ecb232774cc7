"""Redis as it is run in production, and as it breaks there: real servers and nodes, and a proxy that breaks."""

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
import redis
import trustme

from tests.support import tus
from tests.support.content import sha256, stored
from tests.support.processes import Redis, Server, eventually, running_redis, running_server, valkey_binary
from tests.support.proxy import Mode, Proxy, running_proxy
from tests.support.receiver import receiving
from tests.support.redis_kinds import cluster_url, running_sentinels

MIB = 1024 * 1024
SECRET = ("--webhook-secret", "whsec_" + base64.b64encode(b"k" * 32).decode())
LEASE = ("--lease-ttl", "2")


def status_of(server: Server, path: str) -> int:
    """Return the status of /healthz or /readyz."""
    return httpx.get(urljoin(server.url, path), timeout=tus.TIMEOUT_S).status_code


def resumed(url: str, source: bytes) -> httpx.Response:
    """Go on as clients do until the upload is finished: HEAD, PATCH, and again after what says "later"."""

    def go_on() -> httpx.Response | None:
        told = tus.head(url)
        if told.status_code != 200:
            assert 423 == told.status_code
            return None
        offset = int(told.headers["Upload-Offset"])
        reply = tus.patch(url, offset, source[offset:])
        assert reply.status_code in (204, 409, 423, 503), reply.text
        return reply if reply.status_code == 204 else None

    return eventually(go_on, timeout_s=40, what="the upload is finished")


def test_a_failover_of_sentinels_costs_waiting_and_nothing_else(tmp_path: Path) -> None:
    """kill -9 of the master in mid-upload: 503 meanwhile, then the replica has the record, and the event is told."""
    source = os.urandom(3 * MIB)
    with running_sentinels(tmp_path / "redis") as watched, receiving() as receiver:
        flags = ("--redis-url", watched.url, "--webhook-url", receiver.url, *SECRET, *LEASE)
        with running_server(tmp_path, *flags) as server:
            url = tus.create(server.url, len(source))
            with tus.half_sent(url, 0, len(source), source[:MIB]):
                assert MIB == tus.offset_of(url)

                eventually(lambda: watched.replicas() == 1)
                watched.master.kill()
                away = tus.patch(url, MIB, source[MIB:])

            assert (503, "ERR_LEDGER_UNAVAILABLE") == (away.status_code, away.json()["code"])
            assert int(away.headers["Retry-After"]) > 0

            eventually(lambda: watched.master_port() == watched.replica.port, what="failover")
            resumed(url, source)
            eventually(lambda: receiver.received, what="the callback")

            assert [f"post-finish-{tus.upload_id(url)}"] == [headers["webhook-id"] for headers, _ in receiver.received]
            assert "Traceback" not in server.log.read_text()
    assert sha256(source) == stored(tmp_path, url)


@pytest.mark.parametrize("binary", [None, valkey_binary()], ids=["redis", "valkey"])
def test_a_completion_waits_for_the_replicas_it_was_told_to(tmp_path: Path, binary: Path | None) -> None:
    """--redis-wait-replicas 1: without the replica the last PATCH is 503, with it again the upload is finished once.

    Where the server has WAITAOF, which came with Redis 7.2, the replica has it on its disk by then.
    """
    source = os.urandom(MIB)
    with running_sentinels(tmp_path / "redis", binary) as watched, receiving() as receiver:
        flags = ("--redis-url", watched.url, "--redis-wait-replicas", "1", "--webhook-url", receiver.url)
        with running_server(tmp_path, *flags, *SECRET, *LEASE) as server:
            first = tus.create(server.url, len(source))

            assert 204 == tus.patch(first, 0, source).status_code

            watched.replica.signal(signal.SIGSTOP)
            second = tus.create(server.url, len(source))
            refused = tus.patch(second, 0, source)

            assert 503 == refused.status_code

            watched.replica.signal(signal.SIGCONT)

            assert len(source) == eventually(lambda: tus.offset_of(second))

            eventually(lambda: len(receiver.received) == 2, what="both callbacks")
            with redis.Redis(port=watched.master.port) as client:
                version = client.info("server")["redis_version"].split(".")
                calls = client.info("commandstats")

            assert ([int(part) for part in version] >= [7, 2]) == ("cmdstat_waitaof" in calls)
            assert "cmdstat_wait" in calls
    told = {headers["webhook-id"] for headers, _ in receiver.received}

    assert {f"post-finish-{tus.upload_id(url)}" for url in (first, second)} == told


def test_a_cluster_serves_two_replicas_and_outlives_a_master(cluster: list[Redis], tmp_path: Path) -> None:
    """Uploads in several shards over three masters, POST to one server, PATCH to the other; then kill -9 of a master.

    What lies on the others goes on; what lies on it is 503 and resumes when it is back.
    """
    source = os.urandom(MIB)
    flags = ("--redis-url", cluster_url(cluster), "--redis-shards", "8", *LEASE)
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        a = stack.enter_context(running_server(tmp_path, *flags, "--webhook-url", receiver.url, *SECRET))
        b = stack.enter_context(running_server(tmp_path, *flags))
        urls = [tus.create(a.url, len(source)) for _ in range(24)]
        for url in urls:
            with tus.half_sent(tus.on(url, b.url), 0, len(source), source[: MIB // 2]):
                assert MIB // 2 == eventually(lambda url=url: tus.offset_of(url))  # type: ignore[misc]
        used = [node for node in cluster if keys_of(node)]
        cluster[2].kill()
        eventually(lambda: 503 in {tus.patch(url, 0, b"x").status_code for url in urls}, timeout_s=30)
        cluster[2].start()
        for url in urls:
            resumed(url, source)
        eventually(lambda: len(receiver.received) == len(urls), what="all callbacks")

        assert 3 == len(used)
        assert len(urls) == len({headers["webhook-id"] for headers, _ in receiver.received})
        assert {sha256(source)} == {stored(tmp_path, url) for url in urls}
        assert "Traceback" not in a.log.read_text() + b.log.read_text()


def keys_of(node: Redis) -> int:
    """Return how many keys lie on one node."""
    with redis.Redis(port=node.port) as client:
        return int(client.dbsize())


def test_tls_and_a_user_of_its_own(tmp_path: Path) -> None:
    """rediss:// with the README's user, who may do what the server needs and nothing else."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    [rule] = [line.split(maxsplit=1)[1] for line in readme.splitlines() if line.strip().startswith("user tusd_py ")]
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(pem)
    with (
        running_redis(tmp_path / "redis") as server_redis,
        running_proxy(server_redis.port, context) as proxy,
        receiving() as receiver,
    ):
        with redis.Redis(port=server_redis.port) as client:
            client.execute_command("ACL", "SETUSER", *rule.split())
            client.execute_command("ACL", "SETUSER", "default", "off")
        url = f"rediss://tusd_py:secret@127.0.0.1:{proxy.port}/0?ssl_ca_certs={pem}"
        flags = ("--redis-url", url, "--webhook-url", receiver.url, *SECRET, "--expire-after", "1", *LEASE)
        with running_server(tmp_path, *flags, "--sweep-interval", "0.5") as server:
            upload = tus.create(server.url, 5)
            expiring = tus.create(server.url, 5)
            terminated = tus.create(server.url, 5)

            assert 204 == tus.patch(upload, 0, b"hello").status_code
            assert 204 == httpx.delete(terminated, headers=tus.TUS).status_code

            eventually(lambda: receiver.received, what="the callback")
            eventually(lambda: tus.head(expiring).status_code == 410, what="the sweep")

            assert "NOPERM" not in server.log.read_text()
            assert "secret" not in server.log.read_text()


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with (
        running_redis(tmp_path / "redis", options=("--unixsocket", str(path))),
        running_server(tmp_path, "--redis-url", f"unix://{path}") as server,
    ):
        url = tus.create(server.url, 5)

        assert 204 == tus.patch(url, 0, b"hello").status_code
        assert 5 == tus.offset_of(url)


def test_a_flushed_script_cache_is_filled_again(tmp_path: Path, redis_url: str) -> None:
    with running_server(tmp_path, "--redis-url", redis_url) as server, redis.Redis.from_url(redis_url) as client:
        url = tus.create(server.url, 5)
        client.script_flush()

        assert 204 == tus.patch(url, 0, b"hello").status_code

        client.script_flush()

        assert 5 == tus.offset_of(url)
        assert b"hello" == httpx.get(url).content


@contextmanager
def behind_a_proxy(folder: Path, url: str, *flags: str) -> Iterator[tuple[Server, Proxy]]:
    """A server whose Redis is behind a proxy that can break."""
    with (
        running_proxy(int(url.rpartition(":")[2].partition("/")[0])) as proxy,
        running_server(folder, "--redis-url", f"redis://127.0.0.1:{proxy.port}/0", *LEASE, *flags) as server,
    ):
        yield server, proxy


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.HANG])
def test_a_network_that_is_gone_costs_waiting_and_nothing_else(mode: Mode, tmp_path: Path, redis_url: str) -> None:
    """In mid-PATCH: 503 with Retry-After, HEAD 423, alive but not ready; afterwards it resumes with every byte."""
    source = os.urandom(2 * MIB)
    with behind_a_proxy(tmp_path, redis_url) as (server, proxy):
        url = tus.create(server.url, len(source))
        with tus.half_sent(url, 0, len(source), source[:MIB]) as sock:
            assert MIB == tus.offset_of(url)

            proxy.become(mode)
            asked_at = time.monotonic()
            refused = httpx.post(server.url, headers={**tus.TUS, "Upload-Length": "5"}, timeout=tus.TIMEOUT_S)
            waited_s = time.monotonic() - asked_at

            assert (503, "ERR_LEDGER_UNAVAILABLE") == (refused.status_code, refused.json()["code"])
            assert int(refused.headers["Retry-After"]) > 0
            assert waited_s < 5
            assert 423 == tus.head(url).status_code
            assert (200, 503) == (status_of(server, "/healthz"), status_of(server, "/readyz"))

            status, headers = tus.answer(sock)  # its lease has run out, for whatever reason: either says "later"

            assert status in (423, 503)
            assert "retry-after" in headers

        proxy.become(Mode.PASS)
        resumed(url, source)

        assert 200 == status_of(server, "/readyz")
        assert "Traceback" not in server.log.read_text()
    assert sha256(source) == stored(tmp_path, url)


def test_a_slow_network_is_only_slow(tmp_path: Path, redis_url: str) -> None:
    source = os.urandom(2 * MIB)
    with behind_a_proxy(tmp_path, redis_url) as (server, proxy):
        proxy.become(Mode.SLOW)
        url = tus.create(server.url, len(source))

        assert 204 == tus.patch(url, 0, source[:MIB]).status_code
        assert MIB == tus.offset_of(url)
        assert 204 == tus.patch(url, MIB, source[MIB:]).status_code
    assert sha256(source) == stored(tmp_path, url)


def test_a_wiped_redis_is_made_again_from_the_volume(tmp_path: Path, redis_url: str) -> None:
    """FLUSHALL amid a PATCH: it ends, recover makes the record again, the upload resumes where it was safe."""
    source = os.urandom(2 * MIB)
    with running_server(tmp_path, "--redis-url", redis_url, *LEASE) as server:
        url = tus.create(server.url, len(source))
        with tus.half_sent(url, 0, len(source), source[:MIB]) as sock:
            assert MIB == tus.offset_of(url)

            with redis.Redis.from_url(redis_url) as client:
                client.flushall()
            status, _ = tus.answer(sock)

            assert 423 == status  # the lease is lost: ask for the offset

        assert 423 == tus.head(url).status_code  # not 404: the client would start again from byte 0

        recover = [sys.executable, "-m", "tusd_py", "recover", "--redis-url", redis_url]
        subprocess.run([*recover, "--upload-dir", str(tmp_path / "uploads")], check=True, timeout=30)

        assert MIB == tus.offset_of(url)

        resumed(url, source)
    assert sha256(source) == stored(tmp_path, url)


def test_a_lost_answer_to_the_last_commit_is_one_completion(tmp_path: Path, redis_url: str) -> None:
    """Redis has recorded it and let the lease go, the connection breaks: sent again it is the same completion."""
    with receiving() as receiver:
        flags = ("--webhook-url", receiver.url, *SECRET)
        with behind_a_proxy(tmp_path, redis_url, *flags) as (server, proxy):
            url = tus.create(server.url, 5)
            proxy.lose_answer_to = b'"post-finish"'
            reply = tus.patch(url, 0, b"hello")

            assert (204, "5") == (reply.status_code, reply.headers["Upload-Offset"])
            assert b"" == proxy.lose_answer_to

            eventually(lambda: receiver.received, what="the callback")
            time.sleep(1)
    assert 1 == len(receiver.received)
    assert 5 == json.loads(receiver.received[0][1])["Event"]["Upload"]["Offset"]


SILENT = 20  # half-open PATCHes at a time


def test_uploads_that_wait_cost_redis_little_and_head_finds_each_at_once(tmp_path: Path, redis_url: str) -> None:
    """Silent PATCHes: under 2 Redis operations a second each; HEAD on another replica settles each within 1 s."""
    flags = ("--redis-url", redis_url, "--checkpoint-interval", "1")
    with ExitStack() as stack:
        a = stack.enter_context(running_server(tmp_path, *flags))
        b = stack.enter_context(running_server(tmp_path, *flags))
        client = stack.enter_context(redis.Redis.from_url(redis_url))
        urls = [tus.create(a.url, MIB) for _ in range(SILENT)]
        for url in urls:
            stack.enter_context(tus.half_sent(url, 0, MIB, b"x" * 1000))
        time.sleep(3)  # for the checkpoints of what came
        before, asked_at = commands(client), time.monotonic()
        time.sleep(8)
        rate = (commands(client) - before) / (time.monotonic() - asked_at) / SILENT
        waits = [timed(lambda url=url: tus.offset_of(tus.on(url, b.url))) for url in urls]  # type: ignore[misc]

    assert rate < 2
    assert {1000} == {offset for offset, _ in waits}
    assert max(waited_s for _, waited_s in waits) < 1


def commands(client: "redis.Redis") -> int:
    """Return how many commands the server has run, those inside of scripts too."""
    return sum(one["calls"] for one in client.info("commandstats").values())


def timed(ask: Callable[[], int]) -> tuple[int, float]:
    """Return an answer and how many seconds it took."""
    asked_at = time.monotonic()
    return ask(), time.monotonic() - asked_at
