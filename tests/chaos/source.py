"""The content of the uploaded files. It is not stored: any range of it is generated from a seed."""

import random
from functools import lru_cache

BLOCK = 64 * 1024  # bytes; all blocks differ, so that bytes at a wrong place are found


@lru_cache(maxsize=256)
def block(seed: int, variant: int, index: int) -> bytes:
    """Return one block of a file. Each variant of a file has other bytes at the same place."""
    return random.Random((seed << 64) | (variant << 48) | index).randbytes(BLOCK)


def span(seed: int, variant: int, start: int, end: int) -> bytes:
    """Return the bytes of a file from start to end."""
    if start >= end:
        return b""
    first = start // BLOCK
    blocks = b"".join(block(seed, variant, index) for index in range(first, (end - 1) // BLOCK + 1))
    return blocks[start - first * BLOCK : end - first * BLOCK]


def first_difference(ours: bytes, theirs: bytes) -> int:
    """Return the first index at which they differ, or the length of the shorter one if they differ only in length."""
    low, high = 0, min(len(ours), len(theirs))
    while low < high:
        middle = (low + high + 1) // 2
        if ours[low:middle] == theirs[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
