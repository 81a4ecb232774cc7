"""One callback: whether it is really from the upload server, and what it says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


class BadSignature(Exception):
    """Not signed with our secret, or too long ago."""


class BadHook(Exception):
    """Signed, but not what tusd's hooks look like; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Hook:
    """What a callback tells."""

    event_id: str  # the same for every repeat of the same event
    upload_id: str
    path: str  # of the bytes, as the upload server sees them
    filename: str  # as the uploader calls it; "" when he does not say
    size: int  # bytes


def read_hook(secret: str, headers: Mapping[str, str], body: bytes) -> Hook | None:
    """Return what a signed callback tells, None when no upload is finished. Raises BadSignature, BadHook."""
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as exc:  # ValueError: a signature that is no Base64, no UTF-8
        raise BadSignature(str(exc)) from exc
    try:
        return parse_hook(headers["webhook-id"], json.loads(body))
    except (ValueError, RecursionError) as exc:
        raise BadHook(f"the body is no JSON: {exc}") from exc


def parse_hook(event_id: str, hook: Any) -> Hook | None:
    """Return what tusd's hook JSON tells, None when no upload is finished. Raises BadHook."""
    try:
        if hook["Type"] != "post-finish":  # the others have other fields: before creation there is no Storage
            return None
        upload = hook["Event"]["Upload"]
        metadata = upload.get("MetaData") or {}
        found = Hook(
            event_id,
            upload["ID"],
            upload["Storage"]["Path"],
            metadata.get("filename") or metadata.get("name") or "",
            upload["Size"],
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise BadHook(f"the body is no tusd hook: {type(exc).__name__} {exc}") from exc
    for text in (found.upload_id, found.path, found.filename):
        if not isinstance(text, str) or not encodable(text):
            raise BadHook("the body is no tusd hook: ID, Storage.Path and MetaData are texts")
    if type(found.size) is not int or not 0 <= found.size < 2**63:
        raise BadHook("the body is no tusd hook: Size is a number of bytes")
    return found


def encodable(text: str) -> bool:
    """Return whether the text can be stored: JSON can hold halves of characters, UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
