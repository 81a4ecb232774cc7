"""`tusd-py upload`: one file to any tus server, resumed by itself after a cut, and after Ctrl-C by the next start.

Built on tuspy, which has no command line. tuspy speaks the protocol; here are patience, the memory of where an
interrupted upload was, and something to look at meanwhile.
"""

import hashlib
import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import urllib3.connection
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError
from tusclient.storage.filestorage import FileStorage

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 30.0
BAR = 30  # characters
PEER_SILENT_S = 60  # a peer whose kernel acknowledges nothing for this long is gone; requests itself waits for ever

GONE = (404, 410)  # expired or removed: begin again


class Refused(Exception):
    """The server said no, and would say so again."""


class GaveUp(Exception):
    """The server could not be reached, or could not serve, for too long."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to upload, where to, and how patiently."""

    file: Path
    url: str  # the creation URL
    metadata: Mapping[str, str]
    headers: Mapping[str, str]
    chunk_size: int  # bytes a request; also what the upload holds in memory
    give_up_after_s: float  # without any progress


class Remembered:
    """The URLs of interrupted uploads, kept in tuspy's file storage; one of them is this job's."""

    def __init__(self, job: Job) -> None:
        stat = job.file.stat()
        # The same file for us: the same path, size, time of change and destination.
        text = json.dumps([str(job.file.resolve()), stat.st_size, stat.st_mtime_ns, job.url])
        self._key = hashlib.sha256(text.encode()).hexdigest()
        path = state_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        storage: Any = FileStorage  # untyped in tuspy
        self._storage = storage(str(path))

    def url(self) -> str | None:
        """Return where an interrupted upload of this file is."""
        url: str | None = self._storage.get_item(self._key)
        return url

    def keep(self, url: str) -> None:
        """Remember where the upload of this file is."""
        self._storage.set_item(self._key, url)

    def forget(self) -> None:
        """The upload is done or gone: the next one of this file is a new one."""
        self._storage.remove_item(self._key)

    def close(self) -> None:
        self._storage.close()


def state_file() -> Path:
    """Return where the URLs of interrupted uploads are kept (XDG Base Directory)."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "tusd-py" / "uploads.json"


def upload(job: Job, at: Callable[[int], None], say: Callable[[str], None]) -> str:
    """Upload the file and return its URL; at is told the offset as it grows, say what happens on the way.

    Raises Refused, GaveUp, OSError.
    """
    notice_dead_peers()
    remembered = Remembered(job)
    try:
        uploader = patiently(job, say, lambda: open_uploader(job, remembered))
        at(uploader.offset)
        while uploader.url is None or uploader.offset < uploader.stop_at:
            patiently(job, say, lambda: advance(uploader, remembered))
            at(uploader.offset)
        remembered.forget()
        return str(uploader.url)
    finally:
        remembered.close()


def open_uploader(job: Job, remembered: Remembered) -> Any:
    """Return tuspy's uploader, at the offset where an interrupted upload of this file stands, or at 0."""
    try:
        return TusClient(job.url, headers=dict(job.headers)).uploader(
            str(job.file), url=remembered.url(), chunk_size=job.chunk_size, metadata=dict(job.metadata)
        )
    except TusCommunicationError as failure:
        if failure.status_code in GONE:
            remembered.forget()
        raise


def advance(uploader: Any, remembered: Remembered) -> None:
    """Make the upload if there is none yet, then send one chunk from where the server says it is."""
    if uploader.url is None:
        url = uploader.create_url()
        remembered.keep(url)
        uploader.set_url(url)
        uploader.offset = 0
        if uploader.stop_at == 0:
            return
    begun_at = uploader.offset
    try:
        uploader.upload_chunk()
    except TusCommunicationError as failure:
        if failure.status_code in GONE:
            remembered.forget()
            uploader.url, uploader.offset = None, 0
            raise
        uploader.offset = uploader.get_offset()
        if uploader.offset <= begun_at:
            raise


def patiently(job: Job, say: Callable[[str], None], step: Callable[[], Any]) -> Any:
    """Return what step returns, tried again while the trouble may pass. Raises Refused, GaveUp."""
    give_up_at = time.monotonic() + job.give_up_after_s
    pause_s = FIRST_RETRY_S
    while True:
        try:
            return step()
        except TusCommunicationError as failure:
            if failure.status_code is not None and not is_passing(failure.status_code):
                raise Refused(reason_of(failure)) from failure
            if time.monotonic() >= give_up_at:
                raise GaveUp(reason_of(failure)) from failure
            say(f"{reason_of(failure)}; trying again in {pause_s:.1f} s")
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, LONGEST_RETRY_S)


def is_passing(status: int) -> bool:
    """Return whether the same request, or a new start, may well succeed after this answer."""
    return status >= 500 or status in (409, 423, 429, *GONE)


def reason_of(failure: TusCommunicationError) -> str:
    """Return why, in one line: the server's own sentence if it gave one."""
    if failure.status_code is None:
        return f"no connection ({type(failure.args[0]).__name__ if failure.args else 'unknown'})"
    try:
        detail = json.loads(failure.response_content or b"{}").get("detail", "")
    except (ValueError, AttributeError):
        detail = ""
    return f"status {failure.status_code}" + (f": {detail}" if detail else "")


def notice_dead_peers() -> None:
    """Let the kernel end connections whose peer is gone; tuspy sets no time-out."""
    options = [*urllib3.connection.HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        options += [
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_SILENT_S * 1000),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PEER_SILENT_S // 3),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PEER_SILENT_S // 6),
        ]
    urllib3.connection.HTTPConnection.default_socket_options = options


def run(job: Job, *, quiet: bool) -> int:
    """Upload with a progress bar on standard error and the URL on standard output; return the exit status."""
    progress = Progress(job.file.name, job.file.stat().st_size, quiet=quiet)
    try:
        url = upload(job, progress.at, progress.say)
    except KeyboardInterrupt:
        progress.say(f"interrupted at {progress.offset} of {progress.length} bytes; the same command resumes")
        return 130
    except Refused as exc:
        progress.say(f"tusd-py: the server refuses: {exc}", always=True)
        return 1
    except GaveUp as exc:
        progress.say(f"tusd-py: gave up: {exc}; the same command resumes", always=True)
        return 75  # EX_TEMPFAIL of sysexits.h
    progress.end()
    click.echo(url)
    return 0


class Progress:
    """One line on standard error: how far, how fast, how long still. Nothing but messages where nobody looks on."""

    def __init__(self, label: str, length: int, *, quiet: bool) -> None:
        self.offset = 0  # bytes
        self.length = length  # bytes
        self._label = label
        self._quiet = quiet
        self._draws = not quiet and sys.stderr.isatty()
        self._begun: tuple[float, int] | None = None  # when, and at which offset: what was there before is not speed

    def at(self, offset: int) -> None:
        """Draw the offset, in bytes."""
        self.offset = offset
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, offset)
            if offset:
                self.say(f"resuming at {offset} of {self.length} bytes")
        if self._draws:
            sys.stderr.write(f"\r{self._line(now, *self._begun)}\x1b[K")
            sys.stderr.flush()

    def _line(self, now: float, begun_at: float, first: int) -> str:
        done = self.offset / self.length if self.length else 1.0
        bar = "#" * round(done * BAR) + "." * (BAR - round(done * BAR))
        speed = (self.offset - first) / (now - begun_at) if now > begun_at else 0.0  # bytes a second
        left = f"{(self.length - self.offset) / speed:.0f} s left" if speed else ""
        return f"{self._label[:30]} [{bar}] {done:4.0%} {speed / 2**20:.1f} MiB/s {left}"

    def say(self, text: str, *, always: bool = False) -> None:
        """Print a line of its own."""
        if always or not self._quiet:
            print(("\r\x1b[K" if self._draws else "") + text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the finished bar on the screen."""
        if self._draws:
            print(file=sys.stderr)
