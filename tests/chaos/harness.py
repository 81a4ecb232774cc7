"""What all clients share: the deployment, the uploads and their figures, and the checks of every answer."""

import threading
import time
from collections.abc import Mapping

from tests.chaos.connection import Address, Answer, Connection, NoAnswer, encode_chunked
from tests.chaos.deployment import Deployment
from tests.chaos.figures import Figures
from tests.chaos.losses import Loss
from tests.chaos.tracking import TrackedUpload

PATH = "/files/"
BUSY = {409, 423}
GONE = {404, 410}
UPGRADE = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA"}


class GaveUp(Exception):
    """The run ends, or an answer came after which no client can continue."""


class Vanished(Exception):
    """The upload had no bytes yet when the ledger lost its record: the client must start again."""


class Harness:
    """Sends requests for the clients and checks the answers. `ending` is set when the run ends."""

    def __init__(self, deployment: Deployment, figures: Figures) -> None:
        self.deployment = deployment
        self.figures = figures
        self.ending = threading.Event()
        self.uploads: list[TrackedUpload] = []
        self.unsure_creations = 0  # POSTs without an answer: each may have created an upload that no client knows
        self._lock = threading.Lock()

    def add_upload(self, upload: TrackedUpload) -> None:
        with self._lock:
            self.uploads.append(upload)

    def count_unsure_creation(self) -> None:
        with self._lock:
            self.unsure_creations += 1

    def unfinished(self) -> list[TrackedUpload]:
        with self._lock:
            return [upload for upload in self.uploads if not upload.over]

    def request(
        self,
        connection: Connection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        rate: float = 1e9,
        *,
        chunked: bool = False,
        upgrade: bool = False,
    ) -> Answer:
        """Send a whole request and return the answer. Raises NoAnswer."""
        asked_at = time.monotonic()
        try:
            has_body = bool(body) or method in ("PATCH", "POST")
            if upgrade and body:
                headers = {**headers, **UPGRADE}
            chunked = chunked and bool(body)
            connection.send_head(method, path, headers, len(body) if has_body else None, chunked=chunked)
            if body:
                sending = encode_chunked(body, is_whole=True) if chunked else body
                sent = connection.send(sending, rate)
                self.figures.count("bytes sent", sent)
                connection.reusable = connection.reusable and sent == len(sending)
                asked_at = time.monotonic()
            answer = connection.read_answer(bodiless=method == "HEAD")
        except NoAnswer as exc:
            self.figures.count_answer(method, str(exc), time.monotonic() - asked_at)
            raise
        self._check(method, answer, time.monotonic() - asked_at)
        return answer

    def _check(self, method: str, answer: Answer, waited_s: float) -> None:
        """Count an answer; record a violation if its status is never allowed for the method."""
        origin = "" if answer.is_ours else " nginx"
        self.figures.count_answer(method, f"{answer.status}{origin}", waited_s)
        if answer.status == 500:  # from the server or from uvicorn; nginx's own statuses are 502 and 504
            self.figures.add_violation(f"{method} was answered 500")
        if answer.status == 507 and method in ("DELETE", "HEAD"):
            self.figures.add_violation(f"{method} was answered 507, but it needs no disk space")
        if answer.status == 101:
            self.figures.add_violation(f"{method} was answered 101, but the server has no other protocol")

    def head(self, upload: TrackedUpload, address: Address) -> int:
        """Send HEAD and return the offset. Raises NoAnswer, also for an answer without offset; GaveUp, Vanished."""
        terminated, floor, asked_at = upload.terminated_at, upload.acknowledged, time.monotonic()
        connection = Connection(address, self.ending.is_set)
        try:
            answer = self.request(connection, "HEAD", PATH + upload.upload_id, {})
        finally:
            connection.close()
        loss = self.deployment.losses.since(asked_at)
        if answer.status == 200:
            if terminated is not None and not self.deployment.losses.since(terminated):
                self.figures.add_violation(
                    f"upload {upload.upload_id} was terminated, HEAD answers with offset {answer.offset}"
                )
            upload.note_offset(answer.offset, floor, "HEAD", may_be_behind=loss is Loss.NEWEST)
            return answer.offset
        if answer.status in GONE:
            if upload.terminated:
                raise GaveUp
            if self.may_be_unknown(upload, asked_at):
                raise NoAnswer("HEAD: the upload is not known yet")
            if self.may_have_vanished(upload):
                upload.has_vanished = True
                self.figures.count("uploads vanished before their first byte")
                raise Vanished
            self.figures.add_violation(f"upload {upload.upload_id} is lost: HEAD is {answer.status}")
            raise GaveUp
        # tus-js-client starts over after any answer to HEAD but 2xx and 423. nginx's own answers are not checked.
        if answer.is_ours and answer.status != 423:
            self.figures.add_violation(f"HEAD was answered {answer.status}: a browser would start over")
        raise NoAnswer("HEAD: no offset now")

    def may_be_unknown(self, upload: TrackedUpload | None, asked_at: float) -> bool:
        """Return whether an existing upload may be reported as not found to a request sent at asked_at.

        That is allowed after an older ledger was restored. For an emptied ledger, which the server detects, it is
        allowed only if the upload has no acknowledged bytes.
        """
        loss = self.deployment.losses.since(asked_at)
        return loss is Loss.NEWEST or (loss is not None and upload is not None and not upload.highest)

    def may_have_vanished(self, upload: TrackedUpload) -> bool:
        """Return whether the ledger may have lost the upload's record before any byte was acknowledged."""
        return not upload.highest and self.deployment.losses.since(upload.created_at) is not None

    def expect_retryable(self, method: str, answer: Answer, upload: TrackedUpload | None, asked_at: float) -> None:
        """Record a violation and raise GaveUp, unless the answer allows the client to try again.

        upload is None for a request about no upload or about several.
        """
        if answer.status in BUSY or answer.status >= 500:
            return
        if answer.status in GONE and (
            self.may_be_unknown(upload, asked_at) or (upload is not None and self.may_have_vanished(upload))
        ):
            return
        self.figures.add_violation(f"{method} was answered {answer.status}")
        raise GaveUp
