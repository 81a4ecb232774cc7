"""Files as tusd's file store writes them."""

import json
from pathlib import Path


def tusds_upload(
    folder: Path, name: str, size: int, metadata: dict[str, str] | None = None, path: str | None = None
) -> None:
    """Write the files of an upload of 10 bytes that has received size bytes; path: the path in the .info file."""
    storage = {"Type": "filestore", "Path": path or str(folder / name), "InfoPath": str(folder / f"{name}.info")}
    info = {
        "ID": name,
        "Size": 10,
        "SizeIsDeferred": False,
        "Offset": 0,
        "MetaData": {"filename": "a.mp4"} if metadata is None else metadata,
        "IsPartial": False,
        "IsFinal": False,
        "PartialUploads": None,
        "Storage": storage,
    }
    (folder / f"{name}.info").write_text(json.dumps(info))
    (folder / name).write_bytes(b"0123456789"[:size])
