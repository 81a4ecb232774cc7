"""The practical limit: a blocking splice loop in a process of its own, for one client, without stored offsets.

python bare.py FOLDER PORT
"""

import fcntl
import os
import re
import socket
import sys
from contextlib import suppress
from pathlib import Path

PIPE = 1024 * 1024  # bytes


def serve(sock: socket.socket, folder: Path) -> None:
    """Answer creations and PATCHes, one upload after the other, until the client disconnects."""
    upload = 0
    while head := read_head(sock):
        upload += head.startswith(b"POST")
        if head.startswith(b"POST"):
            sock.sendall(b"HTTP/1.1 201 Created\r\nLocation: /files/%d\r\nContent-Length: 0\r\n\r\n" % upload)
        else:
            [length] = re.findall(rb"Content-Length: (\d+)", head)
            receive(sock, folder / str(upload), int(length))
            sock.sendall(b"HTTP/1.1 204 No Content\r\nUpload-Offset: %s\r\n\r\n" % length)


def read_head(sock: socket.socket) -> bytes:
    """Return the head of the next request, b"" at the end of the connection.

    It is read byte by byte, so that the whole body is left in the socket for splice.
    """
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def receive(sock: socket.socket, path: Path, length: int) -> None:
    """Move the body into the file."""
    out = os.open(path, os.O_CREAT | os.O_WRONLY)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    moved = 0
    while moved < length and (taken := os.splice(sock.fileno(), writer, min(PIPE, length - moved))):
        while taken:
            put = os.splice(reader, out, taken, offset_dst=moved)
            taken -= put
            moved += put
    for fd in (out, reader, writer):
        os.close(fd)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as listener:
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                serve(connection, Path(sys.argv[1]))
