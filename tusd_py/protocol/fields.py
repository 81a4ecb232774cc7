"""Header values: parse_x turns text into a value, build_x a value into text. No header name is known here."""

import base64
import binascii
import re
from collections.abc import Mapping
from email.utils import formatdate
from urllib.parse import quote, urlsplit

MAX_INTEGER = 2**63 - 1  # file sizes are signed 64 bits in every kernel and in tusd
# "The Server MUST support at least the SHA1 checksum algorithm identified by `sha1`." (Checksum); names and sizes.
# "The names of the checksum algorithms MUST only consist of ASCII characters with the modification that uppercase
# characters are excluded." (Checksum)
CHECKSUM_ALGORITHMS = {"sha1": 20, "md5": 16, "sha256": 32, "sha512": 64}
MAX_PARTS = 1000  # of one final upload; each is held for as long as the concatenation takes
# Bytes of Upload-Metadata that a client may send; Node refuses to read header blocks over 16 KiB back from HEAD.
MAX_METADATA = 16 * 1024

_DIGITS = re.compile(r"[0-9]{1,19}")  # not \d: that takes full-width digits
_UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # ours are 32 hex digits; the rest is room for folders taken over
_METADATA_KEY = re.compile(r"[!-+\--~]+")  # visible ASCII without the comma


def parse_integer(text: str) -> int:
    """Return the non-negative integer below 2^63 that 1 to 19 ASCII digits spell. Raises ValueError.

    "The value MUST be a non-negative integer." (Core, Upload-Offset and Upload-Length)
    """
    if not _DIGITS.fullmatch(text) or (value := int(text)) > MAX_INTEGER:
        raise ValueError(f"must be 1 to 19 digits and below 2^63, it is {text[:40]!r}")
    return value


def is_upload_id(text: str) -> bool:
    """Return whether text can be the id of an upload, and so the name of a file in the upload folder."""
    return _UPLOAD_ID.fullmatch(text) is not None


def parse_metadata(text: str) -> dict[str, bytes]:
    """Return the keys and decoded values of Upload-Metadata. Raises ValueError.

    "The `Upload-Metadata` request and response header MUST consist of one or more comma-separated key-value pairs."
    (Creation, Upload-Metadata). No pair at all is taken too: tuspy sends an empty header when it has no metadata.
    """
    metadata: dict[str, bytes] = {}
    if not text.strip(" \t"):
        return metadata
    for pair in text.split(","):
        # "The key and value MUST be separated by a space. [...] The value MAY be empty. In these cases, the space
        # [...] MAY be left out."
        key, _, value = pair.strip(" \t").partition(" ")
        # "The key MUST NOT contain spaces and commas and MUST NOT be empty. The key SHOULD be ASCII encoded"
        if not _METADATA_KEY.fullmatch(key):
            raise ValueError(f"has the key {key[:40]!r}, a key is visible ASCII without spaces and commas")
        # "All keys MUST be unique."
        if key in metadata:
            raise ValueError(f"has the key {key[:40]!r} twice")
        try:
            # "the value MUST be Base64 encoded"
            metadata[key] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):  # ValueError: not ASCII
            raise ValueError(f"has a value for {key[:40]!r} that is not Base64") from None
    return metadata


def build_metadata(metadata: Mapping[str, object]) -> tuple[str, list[str]]:
    """Return the Upload-Metadata of these texts, and the keys that it has no spelling or no room for.

    It is never longer than MAX_METADATA, so that a client can read it back.
    """
    pairs: list[str] = []
    left_out: list[str] = []
    room = MAX_METADATA + 1  # the first pair has no comma before it
    for key, value in metadata.items():
        try:
            encoded = base64.b64encode(value.encode()).decode() if isinstance(value, str) else None
        except UnicodeEncodeError:  # half of a surrogate pair
            encoded = None
        pair = f"{key} {encoded}".rstrip()
        if encoded is None or not _METADATA_KEY.fullmatch(key) or len(pair) + 1 > room:
            left_out.append(key)
        else:
            pairs.append(pair)
            room -= len(pair) + 1
    return ",".join(pairs), left_out


def parse_checksum(text: str) -> tuple[str, bytes]:
    """Return algorithm and digest of Upload-Checksum. Raises ValueError.

    "The header MUST consist of the name of the used checksum algorithm and the Base64 encoded checksum separated by a
    space." (Checksum, Upload-Checksum)
    """
    algorithm, _, encoded = text.partition(" ")
    if algorithm not in CHECKSUM_ALGORITHMS:
        raise ValueError(f"names {algorithm[:40]!r}, this server knows {', '.join(CHECKSUM_ALGORITHMS)}")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("has a digest that is not Base64") from None
    if len(digest) != CHECKSUM_ALGORITHMS[algorithm]:
        raise ValueError(f"has {len(digest)} bytes, {algorithm} has {CHECKSUM_ALGORITHMS[algorithm]}")
    return algorithm, digest


def parse_concat(text: str) -> tuple[str, ...]:
    """Return the ids of the parts that Upload-Concat names, none for a partial upload. Raises ValueError.

    "If the upload is a partial one, the header value MUST be `partial`. In the case of a final upload, its value MUST
    be `final` followed by a semicolon and a space-separated list of partial upload URLs" (Concatenation, Upload-Concat)
    """
    if text == "partial":
        return ()
    kind, _, urls = text.partition(";")
    if kind != "final":
        raise ValueError(f"is {text[:40]!r}, it must be partial, or final; and the URLs of the parts")
    # "The partial uploads URLs MAY be absolute or relative": the last segment is the id in all of them, and a proxy may
    # have changed everything before it.
    ids = tuple(urlsplit(url).path.rpartition("/")[2] for url in urls.split())
    if not ids or not all(map(is_upload_id, ids)):
        raise ValueError("must name at least one part, each by its URL")
    if len(ids) > MAX_PARTS:
        raise ValueError(f"names {len(ids)} parts, at most {MAX_PARTS} are taken")
    return ids


def build_http_date(at: float) -> str:
    """Return Unix seconds as an RFC 9110 date (IMF-fixdate)."""
    return formatdate(at, usegmt=True)


# Types that a browser may show from our origin without running anything; everything else is a download.
INLINE_TYPES = frozenset(
    {
        "audio/mp4",
        "audio/mpeg",
        "audio/ogg",
        "audio/wav",
        "audio/webm",
        "image/avif",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/plain",
        "video/mp4",
        "video/ogg",
        "video/quicktime",
        "video/webm",
    }
)


def build_content_type(metadata: Mapping[str, bytes]) -> str:
    """Return a media type that is safe to serve to a browser: the one the metadata claims, if it runs nothing."""
    claimed = metadata.get("filetype", metadata.get("type", b"")).decode("ascii", "replace").strip().lower()
    return claimed if claimed in INLINE_TYPES else "application/octet-stream"


def build_content_disposition(metadata: Mapping[str, bytes]) -> str:
    """Return Content-Disposition for a download, with the file name from the metadata (RFC 6266, RFC 8187).

    "Servers SHOULD carefully validate metadata values or sanitize them before using them as header values to avoid
    header smuggling." (Creation, Upload-Metadata)
    """
    kind = "attachment" if build_content_type(metadata) == "application/octet-stream" else "inline"
    name = metadata.get("filename", metadata.get("name", b"")).decode("utf-8", "replace")
    # The last part only, and no control characters: a name from the net is never a path or a header.
    name = "".join(c for c in re.split(r"[/\\]", name)[-1] if c.isprintable())[:255]
    if not name:
        return kind
    fallback = re.sub(r"[^ !#-\[\]-~]|%", "_", name)
    return f"{kind}; filename=\"{fallback}\"; filename*=UTF-8''{quote(name, safe='')}"
