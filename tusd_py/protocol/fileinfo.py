"""An upload as tusd's JSON: the FileInfo of its .info files, ours and tusd's own, and the body of its hooks.

Field names from tusd, pkg/handler/datastore.go (FileInfo) and pkg/hooks/hooks.go (HookRequest), so that tools and
receivers made for tusd work unchanged.
"""

import json
from collections.abc import Mapping
from typing import Any

from .fields import build_metadata, is_upload_id, parse_concat, parse_metadata
from .messages import Request
from .upload import Upload

# Credentials of the uploader do not go into the outbox, which is kept on disk and sent to others for hours.
PRIVATE_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})


def build_fileinfo(upload: Upload, storage: Mapping[str, str]) -> dict[str, object]:
    """Return the upload as tusd's FileInfo; storage says where its bytes lie (Type, Path, InfoPath)."""
    metadata = parse_metadata(upload.metadata)
    return {
        "ID": upload.id,
        "Size": upload.length or 0,
        "SizeIsDeferred": upload.length is None,
        "Offset": upload.offset,
        "MetaData": {key: value.decode("utf-8", "replace") for key, value in metadata.items()},
        "IsPartial": upload.is_partial,
        "IsFinal": upload.is_final,
        "PartialUploads": list(parse_concat(upload.concat)) if upload.is_final else None,
        "Storage": dict(storage),
    }


def build_sidecar(upload: Upload, storage: Mapping[str, str]) -> str:
    """Return the text of an .info file: tusd's FileInfo, and under "TusdPy" what tusd has no field for."""
    own = {"CreatedAt": upload.created_at, "UploadMetadata": upload.metadata, "UploadConcat": upload.concat}
    return json.dumps(build_fileinfo(upload, storage) | {"TusdPy": own})


def parse_sidecar(text: str, size: int, created_at: float) -> Upload:
    """Return the upload that an .info file tells, with the offset that is safe though no record is left of it.

    size is that of the file with the bytes; created_at, in Unix seconds, is for files that do not tell. In a folder of
    tusd's the size is the offset. In ours the sidecar tells what was recorded: behind that may lie bytes that were
    never acknowledged, a chunk with a wrong checksum for example. Raises ValueError.
    """
    try:
        info = json.loads(text)
        own = info.get("TusdPy")
        length = None if info["SizeIsDeferred"] else int(info["Size"])
        if own is None:
            own = {"UploadMetadata": build_metadata(info["MetaData"] or {}), "UploadConcat": build_concat(info)}
            offset = size
        else:
            offset = min(int(info["Offset"]), size)
        created_at = float(own.get("CreatedAt", created_at))
        upload = Upload(info["ID"], length, offset, own["UploadMetadata"], created_at, None, own["UploadConcat"])
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"no FileInfo: {type(exc).__name__} {exc}") from exc
    if not is_upload_id(upload.id) or (length is not None and not 0 <= offset <= length):
        raise ValueError(f"no FileInfo: {upload.id} has {offset} of {length} bytes")
    return upload


def build_concat(info: Mapping[str, Any]) -> str:
    """Return the Upload-Concat that tusd was sent, near enough."""
    if info.get("IsFinal"):
        return "final;" + " ".join(info["PartialUploads"])
    return "partial" if info.get("IsPartial") else ""


def build_hook(kind: str, upload: Upload, storage: Mapping[str, str], request: Request) -> str:
    """Return the JSON that tusd posts for a hook of this kind ("post-finish"), caused by this request."""
    header = {
        # Go's canonical form: Upload-Offset, X-Request-Id.
        "-".join(word.capitalize() for word in name.split("-")): list(values)
        for name, values in request.headers.items()
        if name not in PRIVATE_HEADERS
    }
    http_request = {
        "Method": request.method,
        "URI": request.uri,
        "RemoteAddr": request.remote_addr,
        "Header": header,
    }
    event = {"Upload": build_fileinfo(upload, storage), "HTTPRequest": http_request}
    return json.dumps({"Type": kind, "Event": event}, separators=(",", ":"))
