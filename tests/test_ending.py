"""The end of a server: in bounded time whatever hangs, with exit status 0, without its socket's file or its workers."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import tus
from tests.support.processes import eventually, running_redis, running_server, start_server
from tests.support.stuck_disk import Disk, is_in_a_write, patch, stuck_disk

SOURCE = os.urandom(2 * 1024 * 1024)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with stuck_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_was_asked_to_end_has_ended_well(tmp_path: Path, workers: str, number: signal.Signals) -> None:
    path = tmp_path / "s"
    with running_server(tmp_path, "--unix-socket", str(path), "--workers", workers) as server:
        server.process.send_signal(number)

        assert 0 == server.process.wait(20)
    assert not path.exists()
    assert "Traceback" not in server.log.read_text()


def test_the_socket_of_a_successor_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running_server(tmp_path, "--unix-socket", str(path)) as server:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
            server.process.terminate()
            server.process.wait(20)

            assert path.exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_disk_that_hangs_keeps_no_server_from_ending(disk: Disk, tmp_path: Path, workers: str) -> None:
    """The process that was asked to end has run all of its code and let its port go; the kernel has the rest."""
    with running_server(tmp_path, "--shutdown-timeout", "1", "--grace", "0", "--workers", workers) as server:
        stuck, file = tus.create(server.url, len(SOURCE)), disk.folder / "stuck"
        file.touch()
        (tmp_path / "uploads" / tus.upload_id(stuck)).symlink_to(file)
        disk.freeze()
        patching = threading.Thread(target=lambda: patch_and_be_cut(stuck))
        patching.start()
        processes = [server.process.pid, *children(server.process.pid)]
        try:
            eventually(lambda: any(map(is_in_a_write, processes)), what="a thread hangs in the disk")
            server.process.terminate()
            eventually(lambda: all(map(has_ended, processes)), what="every process has ended")
        finally:
            disk.thaw()
            patching.join(30)

        assert 0 == server.process.wait(20)


def patch_and_be_cut(url: str) -> None:
    try:
        patch(url, SOURCE)
    except Exception:
        return


def children(pid: int) -> list[int]:
    """Return the workers that a server has started; multiprocessing has a process of its own beside them."""
    started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in started if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def has_ended(pid: int) -> bool:
    """Return whether the process is gone, or its main thread is and the kernel waits for one that hangs in a disk."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    server = start_server(tmp_path, "--workers", "2", "--grace", "0")
    address = ("127.0.0.1", int(server.url.split(":")[2].partition("/")[0]))
    workers: list[int] = []

    def have_started() -> bool:
        workers[:] = children(server.process.pid)
        return len(workers) == 2

    def is_free() -> bool:
        with socket.socket() as sock, suppress(OSError):
            sock.bind(address)
            return True
        return False

    try:
        eventually(have_started, what="both workers have started")
        server.kill()
        eventually(lambda: all(map(has_ended, workers)), what="the workers have ended")
        eventually(is_free, what="the port is free")
    finally:
        for pid in workers:
            subprocess.run(["kill", "-9", str(pid)], check=False, stderr=subprocess.DEVNULL)


def test_a_redis_that_hangs_keeps_no_server_from_ending(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis") as redis:
        flags = ("--redis-url", redis.url, "--shutdown-timeout", "1", "--grace", "0")
        with running_server(tmp_path, *flags) as server:
            url = tus.create(server.url, len(SOURCE))
            with tus.half_sent(url, 0, len(SOURCE), SOURCE[:1000]):
                redis.signal(signal.SIGSTOP)
                try:
                    server.process.terminate()

                    assert 0 == server.process.wait(20)
                finally:
                    redis.signal(signal.SIGCONT)


def test_whoever_has_connected_is_served(tmp_path: Path) -> None:
    """A proxy cannot send a POST a second time: a reset after it has connected is a 502 to somebody."""
    request = b"POST /files/ HTTP/1.1\r\nHost: a\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 1\r\n\r\n"
    with running_server(tmp_path) as server:
        address = ("127.0.0.1", int(server.url.split(":")[2].partition("/")[0]))
        idle = [socket.create_connection(address, timeout=10) for _ in range(5)]
        tus.create(server.url, 1)  # they have been accepted by then
        server.freeze()
        waiting = [socket.create_connection(address, timeout=10) for _ in range(20)]
        for sock in waiting:
            sock.sendall(request)
        server.process.terminate()
        server.thaw()
        for sock in waiting:
            assert 201 == tus.answer(sock)[0]
        eventually(lambda: "Shutting down" in server.log.read_text())
        for sock in idle:
            sock.sendall(request)

            assert 201 == tus.answer(sock)[0]
        for sock in (*idle, *waiting):
            sock.close()

        assert 0 == server.process.wait(20)
