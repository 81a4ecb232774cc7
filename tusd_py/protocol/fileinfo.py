"""An upload as tusd's JSON: the FileInfo of its .info files, ours and tusd's own, and the body of its hooks.

Field names from tusd, pkg/handler/datastore.go (FileInfo) and pkg/hooks/hooks.go (HookRequest), so that tools and
receivers made for tusd work unchanged.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from .fields import MAX_INTEGER, MAX_PARTS, build_metadata, is_upload_id, parse_concat, parse_metadata
from .messages import Request
from .upload import Upload

LAST_SECOND = 253402300799  # of the year 9999, behind which no date can be written

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """What an .info file says."""

    upload: Upload  # with the offset that is safe though no record is left of it
    changed_at: float  # Unix seconds; when it was written last
    is_ours: bool  # it has our mark; otherwise tusd wrote it
    acknowledged: int  # bytes that were recorded when it was written, whatever the file has now; 0 in tusd's
    left_out: tuple[str, ...] = ()  # of what tusd wrote, as text to print: nobody could send it in a header

    def is_ahead_of(self, recorded: Upload) -> bool:
        """Return whether the files prove more than the record says: the ledger is older than the volume.

        Bytes behind the offset of tusd's files may be ours, and never acknowledged; such files prove something only
        when every byte is there.
        """
        if recorded.outcome is not None:
            return False
        return self.upload.is_complete or (self.is_ours and self.upload.offset > recorded.offset)


def parse_sidecar(text: str, size: int, changed_at: float) -> Sidecar:
    """Return what an .info file says of an upload that can be resumed or is complete.

    size is that of the file with the bytes, changed_at when the .info file was written, in Unix seconds. In a folder of
    tusd's the size is the offset. In ours the sidecar says what was recorded: behind that may lie bytes that were never
    acknowledged, a chunk with a wrong checksum for example. Raises ValueError.
    """
    try:
        info = json.loads(text, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("no FileInfo: nested too deep") from None
    if not isinstance(info, dict):
        raise ValueError("no FileInfo: not a JSON object")
    upload_id = typed(info, "ID", str, None)
    length = None if typed(info, "SizeIsDeferred", bool, None) else number(info, "Size")
    is_ours = "TusdPy" in info
    left_out: list[str] = []
    if is_ours:
        own = typed(info, "TusdPy", dict, None)
        metadata, concat = typed(own, "UploadMetadata", str, None), typed(own, "UploadConcat", str, "")
        parse_metadata(metadata)
        if concat:
            parse_concat(concat)
        created_at = moment(own, "CreatedAt", changed_at)
        acknowledged = number(info, "Offset")
        offset = min(acknowledged, size)
    else:
        check_path(typed(info, "Storage", dict, {}), upload_id)
        metadata, left_out = build_metadata(typed(info, "MetaData", dict, {}))
        concat, parts = build_concat(info)
        left_out += parts
        created_at, acknowledged, offset = changed_at, 0, size
    if not is_upload_id(upload_id) or (length is not None and max(offset, acknowledged) > length):
        raise ValueError(f"no FileInfo: {upload_id[:40]!r} has {max(offset, acknowledged)} of {length} bytes")
    upload = Upload(id=upload_id, length=length, offset=offset, metadata=metadata, created_at=created_at, concat=concat)
    return Sidecar(
        upload=upload,
        changed_at=changed_at,
        is_ours=is_ours,
        acknowledged=acknowledged,
        left_out=tuple(repr(key[:40]) for key in left_out),
    )


def typed(info: Mapping[str, Any], key: str, kind: type[T], default: T | None) -> T:
    """Return a value of this kind, the default for none and for null if there is a default. Raises ValueError."""
    value = info.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not kind:  # not isinstance: True is an int
        raise ValueError(f"no FileInfo: {key} is {ascii(value)[:40]}, it must be of the type {kind.__name__}")
    return value


def number(info: Mapping[str, Any], key: str) -> int:
    """Return a number of bytes. Raises ValueError."""
    value = typed(info, key, int, None)
    if not 0 <= value <= MAX_INTEGER:
        raise ValueError(f"no FileInfo: {key} is {str(value)[:40]}, it must be from 0 to {MAX_INTEGER}")
    return value


def moment(info: Mapping[str, Any], key: str, default: float) -> float:
    """Return a time in Unix seconds, the default for none. Raises ValueError."""
    value = info.get(key, default)
    if type(value) not in (int, float) or not 0 <= value <= LAST_SECOND:
        raise ValueError(f"no FileInfo: {key} is {ascii(value)[:40]}, it must be a time in Unix seconds")
    return float(value)


def refuse_constant(text: str) -> object:
    """Raise ValueError: NaN and Infinity are in no JSON."""
    raise ValueError(f"no FileInfo: {text} is no number")


def check_path(storage: Mapping[str, Any], upload_id: str) -> None:
    """Raise ValueError when tusd's Storage says that the bytes are not beside the .info file.

    A hook of tusd's may put them anywhere. The folder may have been moved or mounted elsewhere since, so what counts is
    that the file has the name of the upload, and is in the same folder as the .info file was.
    """
    path = typed(storage, "Path", str, "")
    folder, name = split_path(path)
    info_path = typed(storage, "InfoPath", str, "")
    if path and (name != upload_id or (info_path and split_path(info_path)[0] != folder)):
        raise ValueError(f"the bytes are elsewhere: Storage.Path is {path[:200]!r}")


def split_path(path: str) -> tuple[str, str]:
    """Return folder and name, as tusd spells them on Unix or on Windows."""
    folder, _, name = path.replace("\\", "/").rpartition("/")
    return folder.removeprefix("./").removesuffix("/."), name


def build_concat(info: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the Upload-Concat that tusd was sent, near enough, and what of it could not be spelled.

    Raises ValueError.
    """
    if not typed(info, "IsFinal", bool, False):
        return ("partial" if typed(info, "IsPartial", bool, False) else ""), []
    parts = typed(info, "PartialUploads", list, [])
    if 0 < len(parts) <= MAX_PARTS and all(isinstance(part, str) and is_upload_id(part) for part in parts):
        return "final;" + " ".join(parts), []
    # It has its bytes, whatever the parts were called: an upload like any other, then.
    return "", ["PartialUploads"]


def build_hook(kind: str, upload: Upload, storage: Mapping[str, str], request: Request | None) -> str:
    """Return the JSON that tusd posts for a hook of this kind ("post-finish"), caused by this request.

    Without a request `tusd-py recover` found the upload finished; "Recovered", which tusd does not know, says so.
    """
    event: dict[str, object] = {"Upload": build_fileinfo(upload, storage), "HTTPRequest": build_request(request)}
    hook = {"Type": kind, "Event": event} | ({} if request else {"Recovered": True})
    return json.dumps(hook, separators=(",", ":"))


def build_request(request: Request | None) -> dict[str, object]:
    """Return a request as tusd's HTTPRequest; without one it is empty."""
    if request is None:
        return {"Method": "", "URI": "", "RemoteAddr": "", "Header": {}}
    header = {
        # Go's canonical form: Upload-Offset, X-Request-Id.
        "-".join(word.capitalize() for word in name.split("-")): list(values)
        for name, values in request.headers.items()
        if name not in PRIVATE_HEADERS
    }
    return {"Method": request.method, "URI": request.uri, "RemoteAddr": request.remote_addr, "Header": header}
