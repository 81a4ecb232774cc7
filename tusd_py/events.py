"""Events: what the application hears of a change. They are made here and recorded in the step of the change."""

from collections.abc import Mapping

from .ports import Event
from .protocol.fileinfo import build_hook
from .protocol.messages import Request
from .protocol.upload import Upload


def finish_event(upload: Upload, storage: Mapping[str, str], request: Request | None, now: float) -> Event | None:
    """Return the event of a finish, None for an upload that is not finished, or that is a mere part of one.

    storage says where the bytes are (Storage.describe), request caused the finish (None: it was recovered), now is in
    Unix seconds.
    "The Server SHOULD NOT process these partial uploads until they are concatenated" (Concatenation)
    """
    if not upload.is_finished or upload.is_partial:
        return None
    return Event(
        id=f"post-finish-{upload.id}",
        kind="post-finish",
        upload_id=upload.id,
        body=build_hook("post-finish", upload, storage, request),
        created_at=now,
    )
