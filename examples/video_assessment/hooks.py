"""Verifies that a callback is from the upload server, and reads it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


class BadSignature(Exception):
    """The callback is not signed with the shared secret, or its time differs too much from now."""


class BadHook(Exception):
    """The callback is signed, but does not have the form of a tusd hook; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A callback for a finished upload."""

    event_id: str  # the same for every repeat of an event
    upload_id: str
    path: str  # of the file, on the upload server
    filename: str  # from the client's metadata; "" if there is none
    size: int  # bytes


def read_hook(secret: str, headers: Mapping[str, str], body: bytes) -> Hook | None:
    """Verify and read a callback; None if it is not for a finished upload. Raises BadSignature, BadHook."""
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as exc:  # ValueError: not Base64 or not UTF-8
        raise BadSignature(str(exc)) from exc
    try:
        return parse_hook(headers["webhook-id"], json.loads(body))
    except (ValueError, RecursionError) as exc:
        raise BadHook(f"the body is not JSON: {exc}") from exc


def parse_hook(event_id: str, hook: Any) -> Hook | None:
    """Read tusd's hook JSON; None if it is not for a finished upload. Raises BadHook."""
    try:
        if hook["Type"] != "post-finish":  # other types have other fields: pre-create has no Storage
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
        raise BadHook(f"the body is not a tusd hook: {type(exc).__name__} {exc}") from exc
    for text in (found.upload_id, found.path, found.filename):
        if not isinstance(text, str) or not encodable(text):
            raise BadHook("the body is not a tusd hook: ID, Storage.Path and MetaData must be strings")
    if type(found.size) is not int or not 0 <= found.size < 2**63:
        raise BadHook("the body is not a tusd hook: Size must be a number of bytes")
    return found


def encodable(text: str) -> bool:
    """Return whether the text can be stored as UTF-8: JSON may contain single surrogates, UTF-8 may not."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
