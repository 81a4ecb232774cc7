"""Digests of the contents of uploads. In a failed comparison they are shorter than the contents."""

import hashlib
from pathlib import Path

from tests.support.tus import upload_id


def sha256(content: bytes) -> str:
    """Return the SHA-256 of content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def stored(folder: Path, url: str) -> str:
    """Return the SHA-256 of an upload's file; folder: of start_server()."""
    return sha256((folder / "uploads" / upload_id(url)).read_bytes())
