"""An upload as tusd's JSON: the FileInfo of its .info files and the body of its hooks.

Field names from tusd, pkg/handler/datastore.go (FileInfo) and pkg/hooks/hooks.go (HookRequest), so that tools and
receivers made for tusd work unchanged.
"""

import json
from collections.abc import Mapping

from .fields import parse_concat, parse_metadata
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
