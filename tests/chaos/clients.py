"""Clients: each uploads its files one after the other, cuts its own connections, and resumes after a HEAD.

They behave as tus-js-client does: they continue at the offset in a 204; after 409, 423, 5xx and a broken connection
they wait a little and send a HEAD. With chunked bodies they behave as tus-java-client does: a 204 must acknowledge the
whole body. Any other answer is recorded as a fault of the server.
"""

import base64
import hashlib
import random
import time
from collections.abc import Mapping
from contextlib import suppress

from tests.chaos.connection import Address, Answer, Connection, NoAnswer, encode_chunked
from tests.chaos.harness import GONE, PATH, GaveUp, Harness, Vanished
from tests.chaos.losses import Loss
from tests.chaos.plan import Cut, How, Manner, PlannedUpload
from tests.chaos.tracking import TrackedUpload

PAUSE_S = (0.05, 1.0)  # between tries
LATE_ANSWER_S = 2.0  # to wait for an answer on each connection that was left open


class Client:
    """One client with its connections."""

    def __init__(
        self, harness: Harness, uploads: tuple[PlannedUpload, ...], seed: int, address: Address | None = None
    ) -> None:
        """address: of the replica that the first connection goes to; None: nginx."""
        self._harness = harness
        self._uploads = uploads
        self._chance = random.Random(seed)
        self._address = address
        self._connection: Connection | None = None
        # Connections that were left open without an answer: of which upload, the offset of the PATCH, its variant.
        self._silent: list[tuple[Connection, TrackedUpload, int, int]] = []

    def run(self) -> None:
        """Upload everything."""
        for planned in self._uploads:
            if self._harness.ending.is_set():
                break
            self._harness.figures.count("uploads begun")
            try:
                self.upload(planned)
            except GaveUp:
                pass
            except Exception as exc:  # a mistake in the test's own code must not look like success
                self._harness.figures.add_violation(f"the client failed: {type(exc).__name__}: {exc}")
                raise
            finally:
                self.read_late_answers()
        self.close()

    def upload(self, planned: PlannedUpload, whole: tuple[int, int] | None = None) -> TrackedUpload:
        """Upload one file to its end; for whole see TrackedUpload. Raises GaveUp."""
        while True:
            try:
                return self._upload(planned, whole)
            except Vanished:
                continue

    def begin(self, planned: PlannedUpload, whole: tuple[int, int] | None = None) -> TrackedUpload:
        """Create an upload, with its parts if it has some; append_until() sends the rest. Raises GaveUp, Vanished."""
        if planned.parts:
            return self._concatenate(planned)
        return self._create(planned, {"Upload-Concat": "partial"} if whole else {}, whole)

    def append_until(self, upload: TrackedUpload, until: int) -> None:
        """Append until that many bytes are acknowledged, or terminate it as planned. Raises GaveUp, Vanished."""
        planned, offset = upload.planned, upload.acknowledged
        cuts = sorted(planned.cuts, key=lambda cut: cut.at, reverse=True)  # pop() returns the next one
        while offset < until:
            if planned.manner is Manner.TERMINATE and offset >= planned.terminate_at:
                self.terminate(upload)
                return
            try:
                offset = self.append(upload, offset, 0, cuts)
            except NoAnswer:
                self._harness.figures.count("resumes")
                self._pause()
                offset = self.find_offset(upload)

    def find_offset(self, upload: TrackedUpload, address: Address | None = None) -> int:
        """Send HEAD until it answers with an offset, and return that. Raises GaveUp, Vanished."""
        while True:
            try:
                return self._harness.head(upload, address or self._harness.deployment.nginx.address)
            except NoAnswer:
                self._pause()

    def _upload(self, planned: PlannedUpload, whole: tuple[int, int] | None) -> TrackedUpload:
        """Try to upload a file. Raises GaveUp, Vanished."""
        upload = self.begin(planned, whole)
        self.append_until(upload, planned.length)
        return upload

    def _create(
        self, planned: PlannedUpload, headers: Mapping[str, str], whole: tuple[int, int] | None = None
    ) -> TrackedUpload:
        """Create an upload and return it. If the answer is lost, create another: the client does not know the URL."""
        first = planned.piece if planned.manner is Manner.WITH_CREATION and planned.piece < planned.length else 0
        body = self._track(planned, "", whole).bytes_of(0, 0, first)
        headers = {"Upload-Length": str(planned.length), "Upload-Metadata": metadata(planned), **headers}
        while True:
            asked_at = time.monotonic()
            try:
                answer = self._request("POST", PATH, headers, body, planned)
            except NoAnswer as exc:
                if not str(exc).startswith("connect"):
                    self._harness.count_unsure_creation()
            else:
                if answer.status == 201:
                    upload = self._track(planned, answer.headers["location"].rpartition("/")[2], whole)
                    upload.created_at = asked_at
                    self._harness.add_upload(upload)
                    if first:
                        upload.note_written(0, answer.offset, 0, "POST")
                    return upload
                self._harness.count_unsure_creation()
                self._harness.expect_retryable("POST", answer, None, asked_at)
            self._drop()
            self._pause()

    def _concatenate(self, planned: PlannedUpload) -> TrackedUpload:
        """Upload the parts, concatenate them, and return the finished final upload. Raises GaveUp."""
        at, starts = 0, []
        for part in planned.parts:
            starts.append(at)
            at += part.length
        parts = [self.upload(part, (planned.seed, start)) for part, start in zip(planned.parts, starts, strict=True)]
        urls = " ".join(PATH + part.upload_id for part in parts)
        headers = {"Upload-Concat": f"final;{urls}", "Upload-Metadata": metadata(planned)}
        while True:
            asked_at = time.monotonic()
            with suppress(NoAnswer):
                answer = self._request("POST", PATH, headers, b"", planned)
                if answer.status == 201:
                    upload = self._track(planned, answer.headers["location"].rpartition("/")[2], None)
                    upload.created_at = asked_at
                    self._harness.add_upload(upload)
                    upload.note_written(0, planned.length, 0, "POST of a final upload")
                    return upload
                behind = self._harness.deployment.losses.since(asked_at) is Loss.NEWEST
                if not (behind and 400 <= answer.status < 500):  # an older record says that a part is not finished
                    self._harness.expect_retryable("POST of a final upload", answer, None, asked_at)
            self._drop()
            self._pause()
            for one in parts:
                if self.find_offset(one) < one.planned.length:
                    self.append_until(one, one.planned.length)

    def append(self, upload: TrackedUpload, offset: int, variant: int, cuts: list[Cut]) -> int:
        """Send one PATCH and return the offset in the answer.

        Raises NoAnswer if there is no answer, or if the answer asks to try again.
        """
        planned = upload.planned
        end = min(offset + planned.piece, planned.length)
        body = upload.bytes_of(variant, offset, end)
        while cuts and cuts[-1].at < offset:
            cuts.pop()
        cut = cuts.pop() if cuts and cuts[-1].at < end else None
        headers = {"Upload-Offset": str(offset)}
        if planned.manner is Manner.CHECKSUM:
            digest = base64.b64encode(hashlib.sha1(body).digest()).decode()
            headers["Upload-Checksum"] = f"sha1 {digest}"
        if cut:
            self._cut_off(upload, headers, body, offset, variant, cut)
            raise NoAnswer("the client cut the connection")
        asked_at = time.monotonic()
        try:
            answer = self._request("PATCH", PATH + upload.upload_id, headers, body, planned)
        except NoAnswer:
            self._abandon(upload, offset, variant)
            raise
        if self._connection and not self._connection.reusable:
            self._drop()
        return self._check_answer(upload, answer, offset, variant, end, asked_at)

    def _check_answer(
        self, upload: TrackedUpload, answer: Answer, offset: int, variant: int, end: int, asked_at: float
    ) -> int:
        """Check the answer to a PATCH and return its offset. Raises NoAnswer, GaveUp."""
        planned, figures = upload.planned, self._harness.figures
        if answer.status == 204:
            reached = answer.offset
            # tus-java-client treats less than it sent as a failure. A body with a checksum is kept whole or not at all.
            if reached > end or (reached < end and (planned.chunked or planned.manner is Manner.CHECKSUM)):
                figures.add_violation(
                    f"upload {upload.upload_id}: PATCH from {offset} to {end} was acknowledged up to {reached}"
                )
            upload.note_written(offset, reached, variant, "PATCH")
            return reached
        if answer.status == 503 and "upload-offset" in answer.headers:
            figures.count("bodies that had to yield")
            upload.note_written(offset, answer.offset, variant, "503")
        if answer.status == 409 and "upload-offset" in answer.headers:
            behind = self._harness.deployment.losses.since(asked_at) is Loss.NEWEST
            upload.note_offset(answer.offset, offset, "409", may_be_behind=behind)
        self._harness.expect_retryable("PATCH", answer, upload, asked_at)
        raise NoAnswer("try again")

    def _cut_off(
        self, upload: TrackedUpload, headers: Mapping[str, str], body: bytes, offset: int, variant: int, cut: Cut
    ) -> None:
        """Begin a PATCH and cut the connection as planned. Raises NoAnswer if it breaks before that."""
        connection, chunked = self._connect(upload.planned), upload.planned.chunked
        self._connection = None
        self._harness.figures.count(f"client {cut.how}")
        part = body[: cut.at - offset]
        try:
            connection.send_head("PATCH", PATH + upload.upload_id, headers, len(body), chunked=chunked)
            sent = connection.send(encode_chunked(part, is_whole=False) if chunked else part, upload.planned.rate)
        except NoAnswer:
            connection.close()
            raise
        self._harness.figures.count("bytes sent", sent)
        if cut.how is How.SILENT:
            self._silent.append((connection, upload, offset, variant))
        else:
            connection.close(cut.how)

    def terminate(self, upload: TrackedUpload) -> None:
        """Delete the upload and record when. Raises GaveUp."""
        unsure = False
        while True:
            asked_at = time.monotonic()
            try:
                answer = self._request("DELETE", PATH + upload.upload_id, {}, b"", upload.planned)
            except NoAnswer:
                unsure = True
            else:
                is_gone = answer.status in GONE and unsure and not self._harness.may_be_unknown(upload, asked_at)
                if answer.status == 204 or is_gone:
                    upload.terminated_at = asked_at
                    return
                unsure = unsure or answer.status >= 500
                if answer.status in GONE and self._harness.may_have_vanished(upload):
                    unsure = True
                self._harness.expect_retryable("DELETE", answer, upload, asked_at)
            self._drop()
            self._pause()

    def _track(self, planned: PlannedUpload, upload_id: str, whole: tuple[int, int] | None) -> TrackedUpload:
        return TrackedUpload(planned, upload_id, self._harness.deployment.disk.content, self._harness.figures, whole)

    def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, planned: PlannedUpload
    ) -> Answer:
        """Send a request as planned, on the client's connection, and return the answer. Raises NoAnswer."""
        connection = self._connect(planned)
        form = {"chunked": planned.chunked, "upgrade": planned.upgrade}
        return self._harness.request(connection, method, path, headers, body, planned.rate, **form)

    def _connect(self, planned: PlannedUpload) -> Connection:
        """Return a connection, the previous one if it can be reused. Raises NoAnswer."""
        if self._connection is None or not self._connection.reusable:
            self._drop()
            deployment = self._harness.deployment
            address, self._address = self._address, None
            if address is None and planned.upgrade:  # nginx does not pass Upgrade on
                address = self._chance.choice(deployment.replicas).address
            self._connection = Connection(address or deployment.nginx.address, self._harness.ending.is_set)
        return self._connection

    def _abandon(self, upload: TrackedUpload, offset: int, variant: int) -> None:
        """Give up a connection on which a PATCH was not answered."""
        self._drop()

    def _drop(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _pause(self) -> None:
        """Wait a little. Raises GaveUp when the run ends."""
        if self._harness.ending.wait(self._chance.uniform(*PAUSE_S)):
            raise GaveUp

    def close(self) -> None:
        """Close every open connection."""
        self.read_late_answers()
        self._drop()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read_late_answers(self) -> None:
        """Record the answers that still come on the connections that were left open, and close them."""
        for connection, upload, offset, variant in self._silent:
            try:
                answer = connection.read_answer(LATE_ANSWER_S, bodiless=False)
                if answer.status == 204 and not upload.was_rolled_back:
                    upload.note_written(offset, answer.offset, variant, "a late answer to PATCH")
                    self._harness.figures.count("late answers")
            except NoAnswer:
                pass
            finally:
                connection.close()
        self._silent.clear()
        if self._connection and not self._connection.reusable:
            self._drop()


def metadata(planned: PlannedUpload) -> str:
    """Return the Upload-Metadata of a file."""
    return f"filename {base64.b64encode(f'{planned.seed}.bin'.encode()).decode()}"
