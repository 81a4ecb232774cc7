"""The bytes of a body from a socket to a file through a pipe (splice), a turn of a thread at a time."""

import errno
import fcntl
import os
import random
import select
import socket
import threading
import time
from contextlib import suppress

CAN_SPLICE = hasattr(os, "splice")  # Linux
FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE if CAN_SPLICE else 0
PIPE = 1024 * 1024  # bytes; the most that an unprivileged process may ask for
TURN_S = 0.05  # a thread moves bytes for so long before others get their turn and the lease is looked at again
LOW_WATER = (32 * 1024, 96 * 1024)  # bytes; SO_RCVLOWAT: a slow client wakes us once for so many. Another number for
# each, so that many of the same speed do not wake us at the same moment.
SMALLEST_BLOCK = 1024  # bytes, on a disk
SPIN_MS = 2  # how long a thread waits for more before it gives itself back; a fast client's next bytes take less


class Pump:
    """One body on its way from a socket to a file, a turn of a thread at a time."""

    def __init__(self, sock: socket.socket, arrived: bytes, length: int) -> None:
        self.left = length  # bytes
        self.ended = False  # the client went away
        self.failure: OSError | None = None  # why no more could be moved
        self._sock = sock
        self._arrived = arrived  # read already, with the headers
        self._low_water = random.randint(*LOW_WATER)
        self._batch = self._low_water  # bytes; what a thread waits for
        self._most = PIPE  # bytes; of a batch in this turn

    def run(self, out: int, offset: int, at_most: int) -> int:
        """Move what is there to offset in a file, at_most bytes; return how many bytes.

        Raises OSError. When some were moved before, the next call does.
        """
        if self.failure:
            raise self.failure
        begun, self._most = self.left, PIPE
        end = max(0, self.left - at_most)
        try:
            while self._arrived and self.left > end:
                put = os.pwrite(out, self._arrived[: self.left - end], offset + begun - self.left)
                self._arrived = self._arrived[put:]
                self.left -= put
            turn_ends_at = time.monotonic() + TURN_S
            while self.left > end and not self.ended and time.monotonic() < turn_ends_at:
                moved = self._move(out, offset + begun - self.left, min(self.left - end, PIPE))
                if not moved and not self._more_soon():
                    break
        except OSError as exc:
            if self.left == begun:
                raise
            self.failure = exc
        set_low_water(self._sock, min(self._low_water, self.left or 1))  # the event loop waits longer
        return begun - self.left

    def _move(self, out: int, offset: int, at_most: int) -> bool:
        """Move what is there, at_most bytes; return whether that was something. Raises OSError."""
        reader, writer = pipe_of_thread()
        try:
            taken = os.splice(self._sock.fileno(), writer, at_most, flags=FLAGS)
        except BlockingIOError:
            return False
        except ConnectionError:
            taken = 0
        self.ended = taken == 0
        most = taken
        while taken:
            try:
                put = os.splice(reader, out, min(taken, most), offset_dst=offset)
            except BaseException as exc:
                # A run of pages is refused as a whole, though the first of them may find room.
                if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT) and most > SMALLEST_BLOCK:
                    most //= 2
                    continue
                drop_pipe()  # with what is in it: those bytes were never acknowledged
                raise
            taken -= put
            offset += put
            self.left -= put
        return True

    def _more_soon(self) -> bool:
        """Return whether there is more within SPIN_MS.

        As long as a fast client fills the batch in time, the next one is twice as large: to wake up for 1 MiB costs no
        more than for 64 KiB, and one big PATCH takes a fifth less of the processor.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        set_low_water(self._sock, min(self._batch, self.left))
        if poll.poll(SPIN_MS):
            self._batch = min(2 * self._batch, self._most)
            return True
        # The client is slower, or the receive window was shut before so much was there.
        self._batch = self._most = max(self._batch // 2, self._low_water)
        set_low_water(self._sock, min(self._low_water, self.left))
        return bool(poll.poll(0))


def set_low_water(sock: socket.socket, count: int) -> None:
    """Let the socket count as readable from that many bytes on."""
    with suppress(OSError):  # unix sockets have no such mark
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


pipes = threading.local()  # one for each thread: a pump leaves it empty


def pipe_of_thread() -> tuple[int, int]:
    """Return this thread's empty pipe of PIPE bytes, read end and write end."""
    if not hasattr(pipes, "ends"):
        ends = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):  # less is slower, and works
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE)
        pipes.ends = ends
    return pipes.ends[0], pipes.ends[1]


def drop_pipe() -> None:
    """Close this thread's pipe and forget it."""
    for fd in pipes.ends:
        os.close(fd)
    del pipes.ends
