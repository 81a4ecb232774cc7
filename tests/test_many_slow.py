"""Many slow clients at once on one worker: all get on, none costs much memory, and HEAD is answered at once."""

import os
import re
import socket
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.support import tus
from tests.support.processes import running_server

CLIENTS = int(os.environ.get("TUSD_PY_SLOW_CLIENTS", "300"))  # 2000 is what the README tells of
RATE = 20_000  # bytes a second, each
SECONDS = 10
KIB = 1024
LENGTH = 300_000  # bytes; more than comes in SECONDS, and enough for the kernel to carry it


def memory_of(pid: int) -> int:
    """Return the memory of a process, in bytes."""
    [found] = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found) * KIB


def test_many_slow_clients(tmp_path: Path) -> None:
    """Every client's bytes are there in the end, the process has grown by less than 64 KiB for each."""
    with running_server(tmp_path) as server, ExitStack() as stack, httpx.Client(timeout=tus.TIMEOUT_S) as client:
        address = urlsplit(server.url)
        urls = [tus.create(server.url, LENGTH) for _ in range(CLIENTS)]
        for url in urls[:50]:
            client.head(url, headers=tus.TUS)
        before = memory_of(server.process.pid)
        socks = []
        for url in urls:
            sock = stack.enter_context(socket.create_connection((address.hostname or "", address.port or 0)))
            sock.sendall(
                f"PATCH {urlsplit(url).path} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
                f"Content-Type: application/offset+octet-stream\r\nContent-Length: {LENGTH}\r\n\r\n".encode()
            )
            socks.append(sock)
        waits_s = []
        other = tus.create(server.url, 1)
        begun_at = time.monotonic()
        for second in range(SECONDS):
            for n, sock in enumerate(socks):
                sock.sendall(b"x" * RATE)
                if n % (CLIENTS // 20) == 0:  # spread over the second, as clients are
                    time.sleep(max(0.0, begun_at + second + n / CLIENTS - time.monotonic()))
                    asked_at = time.monotonic()
                    client.head(other, headers=tus.TUS)
                    waits_s.append(time.monotonic() - asked_at)
            time.sleep(max(0.0, begun_at + second + 1 - time.monotonic()))
        grown = memory_of(server.process.pid) - before
        buffered = kernel_memory()
        offsets = {tus.offset_of(url) for url in urls[:: CLIENTS // 20]}
    p50_s, p99_s = statistics.median(waits_s), statistics.quantiles(waits_s, n=100)[-1]
    print(
        f"{CLIENTS} clients: {grown / CLIENTS / KIB:.0f} KiB each in the process,"
        f" {buffered / CLIENTS / KIB:.0f} KiB in the kernel; HEAD p50 {p50_s * 1000:.0f} ms, p99 {p99_s * 1000:.0f} ms"
    )

    assert {RATE * SECONDS} == offsets
    assert grown < 64 * KIB * CLIENTS


def kernel_memory() -> int:
    """Return the memory of all TCP buffers on this machine, in bytes."""
    [pages] = re.findall(r"TCP: .*mem (\d+)", Path("/proc/net/sockstat").read_text())
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
