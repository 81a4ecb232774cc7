"""What the tests of the storage share."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from tusd_py.protocol.fileinfo import build_sidecar
from tusd_py.protocol.upload import Upload
from tusd_py.storage.file import FileStorage

Open = Callable[..., FileStorage]  # the fixture that opens one like a replica of its own
ID = "a" * 32
UPLOAD = Upload(id=ID, length=10, offset=0, metadata="filename YS5tcDQ=", created_at=1.5)


def nothing() -> None:
    """No guard."""


async def written(storage: FileStorage, data: bytes, upload: Upload = UPLOAD) -> None:
    """Write the first bytes of an upload."""
    writer = await storage.open(upload, nothing)
    await writer.write([data], last=True)
    await writer.finish()
    await writer.close()


def sidecar(**fields: object) -> str:
    """Return the text of one of ours, with other fields."""
    return json.dumps(json.loads(build_sidecar(UPLOAD, {})) | fields)


def free(folder: Path) -> int:
    """Return the free bytes of the file system that has the folder."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill(folder: Path, leave: int) -> Path:
    """Fill the file system until only leave bytes are free; return the file that does it."""
    filler = folder / ".tusd_py.filler"  # in no listing
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
