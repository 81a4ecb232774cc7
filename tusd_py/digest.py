"""A sink that knows the digest of what went through it. The bytes pass Python's hands for that."""

import asyncio
import hashlib

from .ports import Sink


class Digesting:
    """ports.Sink in front of another one."""

    def __init__(self, sink: Sink, algorithm: str) -> None:
        self._sink = sink
        self._hash = hashlib.new(algorithm, usedforsecurity=False)

    async def write(self, pieces: list[bytes], *, last: bool = False) -> None:
        await asyncio.to_thread(self._update, pieces)  # a megabyte takes a millisecond, without the interpreter's lock
        await self._sink.write(pieces, last=last)

    def _update(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._hash.update(piece)

    def digest(self) -> bytes:
        """Return the digest of what was written so far."""
        return self._hash.digest()
