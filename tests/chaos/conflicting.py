"""A client that sends conflicting bytes: it freezes a replica in mid-write and resumes with different bytes elsewhere.

A frozen replica that wakes up must not write its old bytes over those of its successor.
"""

import threading
import time

from tests.chaos.clients import Client
from tests.chaos.connection import Address, Connection, NoAnswer
from tests.chaos.harness import PATH
from tests.chaos.plan import PlannedUpload
from tests.chaos.tracking import TrackedUpload

RUSH_S = 0.1  # how long the client sends as fast as it can


class ConflictingClient(Client):
    """Sends several variants of a file. Each acknowledged range must end up with the bytes of a single variant."""

    def _upload(self, planned: PlannedUpload, whole: tuple[int, int] | None) -> TrackedUpload:
        upload = self.begin(planned)
        variant = self._send_conflicting(upload)
        offset = self.find_offset(upload)
        while offset < planned.length:
            try:
                offset = self.append(upload, offset, variant, [])
            except NoAnswer:
                self._harness.figures.count("resumes")
                variant = upload.next_variant()  # bytes of the old variant may still be on their way
                self._pause()
                offset = self.find_offset(upload)
        return upload

    def _abandon(self, upload: TrackedUpload, offset: int, variant: int) -> None:
        if self._connection:
            self._silent.append((self._connection, upload, offset, variant))  # an answer may still come
            self._connection = None

    def _send_conflicting(self, upload: TrackedUpload) -> int:
        """Freeze replicas in mid-write, resume with other bytes elsewhere; return the variant to continue with."""
        planned, deployment, figures = upload.planned, self._harness.deployment, self._harness.figures
        variant = 0
        for one in planned.rounds:
            offset = self.find_offset(upload)
            replica = deployment.replicas[one.replica]
            body = upload.bytes_of(variant, offset, planned.length)
            if len(body) <= one.send:
                break
            try:
                connection = Connection(replica.address, self._harness.ending.is_set)
                self._silent.append((connection, upload, offset, variant))
                connection.send_head("PATCH", PATH + upload.upload_id, {"Upload-Offset": str(offset)}, len(body))
                figures.count("bytes sent", connection.send(body[: one.send], planned.rate))
            except NoAnswer:
                continue
            freezing = threading.Thread(target=self._freeze, args=(one.replica, one.frozen_s, one.rush_s))
            freezing.start()
            rushed, rush_ends_at = one.send, time.monotonic() + RUSH_S
            while rushed < one.send + one.push and time.monotonic() < rush_ends_at:
                rushed += connection.send_nowait(body[rushed : one.send + one.push])
            figures.count("bytes sent", rushed - one.send)
            variant = upload.next_variant()
            self._harness.ending.wait(one.wait_s)
            for _ in range(3):  # some tries find the file locked, some find the lease held, some find neither
                try:
                    offset = self.find_offset(upload, self._other_than(one.replica))
                    self._append_to(self._other_than(one.replica), upload, offset, variant)
                    break
                except NoAnswer:
                    variant = upload.next_variant()
                    self._pause()
            freezing.join()
        return variant

    def _freeze(self, n: int, seconds: float, rush_s: float) -> None:
        """Freeze a replica after rush_s, in the middle of a write, unless another fault happens to it now."""
        replica = self._harness.deployment.replicas[n]
        if replica.busy.acquire(blocking=False):
            try:
                time.sleep(rush_s)
                self._harness.figures.count_fault(
                    "replica frozen by a client", f"replica {n} frozen for {seconds:.1f} s"
                )
                replica.freeze_for(seconds, self._harness.ending)
            finally:
                replica.busy.release()

    def _append_to(self, address: Address, upload: TrackedUpload, offset: int, variant: int) -> int:
        """Send one PATCH directly to a replica and return the offset in the answer. Raises NoAnswer, GaveUp."""
        end = min(offset + upload.planned.piece, upload.planned.length)
        body = upload.bytes_of(variant, offset, end)
        connection = Connection(address, self._harness.ending.is_set)
        asked_at = time.monotonic()
        try:
            headers = {"Upload-Offset": str(offset)}
            path = PATH + upload.upload_id
            answer = self._harness.request(connection, "PATCH", path, headers, body, upload.planned.rate)
        except NoAnswer:
            self._silent.append((connection, upload, offset, variant))
            raise
        connection.close()
        return self._check_answer(upload, answer, offset, variant, end, asked_at)

    def _other_than(self, n: int) -> Address:
        """Return the address of a replica that is not number n."""
        others = [replica for at, replica in enumerate(self._harness.deployment.replicas) if at != n]
        return self._chance.choice(others).address


def client_of(uploads: tuple[PlannedUpload, ...]) -> type[Client]:
    """Return the class of the client for these uploads."""
    return ConflictingClient if any(upload.rounds for upload in uploads) else Client
