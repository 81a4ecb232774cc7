"""The contents of uploads as digests, which stay short when two of them differ in a test."""

import hashlib
from pathlib import Path

from tests.support.tus import upload_id


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a content."""
    return hashlib.sha256(content).hexdigest()


def stored(folder: Path, url: str) -> str:
    """Return the SHA-256 of the upload's bytes on the disk of a server that runs in the folder."""
    return sha256((folder / "uploads" / upload_id(url)).read_bytes())
