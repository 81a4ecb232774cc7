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
    kind: str  # "post-finish"
    upload_id: str
    path: str  # of the bytes, as the upload server sees them
    filename: str  # as the uploader calls it; "" when he does not say
    size: int  # bytes


def read_hook(secret: str, headers: Mapping[str, str], body: bytes) -> Hook:
    """Return what a signed callback tells. Raises BadSignature, BadHook."""
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as exc:  # ValueError: a signature that is no Base64, no UTF-8
        raise BadSignature(str(exc)) from exc
    try:
        return parse_hook(headers["webhook-id"], json.loads(body))
    except ValueError as exc:
        raise BadHook(f"the body is no JSON: {exc}") from exc


def parse_hook(event_id: str, hook: Any) -> Hook:
    """Return what tusd's hook JSON tells. Raises BadHook."""
    try:
        upload = hook["Event"]["Upload"]
        metadata = upload.get("MetaData") or {}
        found = Hook(
            event_id,
            hook["Type"],
            upload["ID"],
            upload["Storage"]["Path"],
            metadata.get("filename") or metadata.get("name") or "",
            upload["Size"],
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise BadHook(f"the body is no tusd hook: {type(exc).__name__} {exc}") from exc
    texts = (found.kind, found.upload_id, found.path, found.filename)
    if not all(isinstance(text, str) for text in texts) or not isinstance(found.size, int):
        raise BadHook("the body is no tusd hook: a field has another type")
    return found
