"""Helpers for the tests of the storage."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from tusd_py.protocol.fileinfo import build_sidecar
from tusd_py.protocol.upload import Upload
from tusd_py.storage.file import FileStorage

Open = Callable[..., FileStorage]  # the fixture that opens a storage as another replica would
ID = "a" * 32
UPLOAD = Upload(id=ID, length=10, offset=0, metadata="filename YS5tcDQ=", created_at=1.5)


def nothing() -> None:
    """Do nothing: a guard for a writer without a lease."""


async def written(storage: FileStorage, data: bytes, upload: Upload = UPLOAD) -> None:
    """Write data as the first bytes of an upload."""
    writer = await storage.open(upload, nothing)
    await writer.write([data], last=True)
    await writer.finish()
    await writer.close()


def sidecar(**fields: object) -> str:
    """Return the text of UPLOAD's sidecar with some fields replaced or added."""
    return json.dumps(json.loads(build_sidecar(UPLOAD, {})) | fields)


def free(folder: Path) -> int:
    """Return the free bytes of the folder's file system."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill(folder: Path, leave: int) -> Path:
    """Fill the folder's file system until at most leave bytes are free; return the file that takes the space."""
    filler = folder / ".tusd_py.filler"  # a name that no listing of uploads contains
    with filler.open("ab") as file:
        while free(folder) > leave:
            size = free(folder) - leave
            try:
                file.write(b"x" * (size if size < 65536 else size * 3 // 4))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                break
    return filler
