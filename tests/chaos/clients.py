"""Clients: each uploads its files one after the other, resumes by HEAD, and cuts itself off.

They behave as tus-js-client does: a 204 tells where to go on; after 409, 423, 5xx and broken connections they wait a
little and ask with HEAD. With chunked bodies they behave as tus-java-client does: a 204 means that all was taken. Any
other answer is written down as the server's fault.
"""

import base64
import hashlib
import random
import time
from collections.abc import Mapping
from contextlib import suppress

from tests.chaos.amnesia import Loss
from tests.chaos.plan import Cut, How, Manner, PlannedUpload
from tests.chaos.theatre import GONE, PATH, GaveUp, Theatre, Vanished
from tests.chaos.wire import Address, Answer, NoAnswer, Wire, coded
from tests.chaos.witness import Witness

PAUSE_S = (0.05, 1.0)  # between tries
LAST_WORDS_S = 2.0  # for answers on connections that were left silent


class Client:
    """One client, and the connections that it has."""

    def __init__(
        self, theatre: Theatre, uploads: tuple[PlannedUpload, ...], seed: int, address: Address | None = None
    ) -> None:
        """address is where its first connection goes, past nginx."""
        self._theatre = theatre
        self._uploads = uploads
        self._chance = random.Random(seed)
        self._address = address
        self._wire: Wire | None = None
        self._stale: list[tuple[Wire, Witness, int, int]] = []  # left silent: whose, where it began, variant

    def run(self) -> None:
        """Upload everything."""
        for planned in self._uploads:
            if self._theatre.ending.is_set():
                break
            self._theatre.figures.count("uploads begun")
            try:
                self.upload(planned)
            except GaveUp:
                pass
            except Exception as exc:  # a mistake of the harness must not look like success
                self._theatre.figures.violated(f"the client failed: {type(exc).__name__}: {exc}")
                raise
            finally:
                self.leave()
        self.close()

    def upload(self, planned: PlannedUpload, whole: tuple[int, int] | None = None) -> Witness:
        """Upload one file to its end; whole see Witness. Raises GaveUp."""
        while True:
            try:
                return self._upload(planned, whole)
            except Vanished:
                continue

    def begin(self, planned: PlannedUpload, whole: tuple[int, int] | None = None) -> Witness:
        """Create an upload, with what it is made of; what remains is for carry(). Raises GaveUp, Vanished."""
        if planned.parts:
            return self._concatenate(planned)
        return self._create(planned, {"Upload-Concat": "partial"} if whole else {}, whole)

    def carry(self, witness: Witness, until: int) -> None:
        """Append until so many bytes are acknowledged, or it is terminated as planned. Raises GaveUp, Vanished."""
        planned, offset = witness.planned, witness.acknowledged
        cuts = sorted(planned.cuts, key=lambda cut: cut.at, reverse=True)  # the next one is the last
        while offset < until:
            if planned.manner is Manner.TERMINATE and offset >= planned.terminate_at:
                self.terminate(witness)
                return
            try:
                offset = self.append(witness, offset, 0, cuts)
            except NoAnswer:
                self._theatre.figures.count("resumes")
                self._pause()
                offset = self.ask(witness)

    def ask(self, witness: Witness, address: Address | None = None) -> int:
        """Return the offset that HEAD tells, however often it takes. Raises GaveUp, Vanished."""
        while True:
            try:
                return self._theatre.head(witness, address or self._theatre.stage.nginx.address)
            except NoAnswer:
                self._pause()

    def _upload(self, planned: PlannedUpload, whole: tuple[int, int] | None) -> Witness:
        """Try to upload a file. Raises GaveUp, Vanished."""
        witness = self.begin(planned, whole)
        self.carry(witness, planned.length)
        return witness

    def _create(
        self, planned: PlannedUpload, headers: Mapping[str, str], whole: tuple[int, int] | None = None
    ) -> Witness:
        """Return the new upload. A creation whose answer was lost is made again: nobody knows the first one's URL."""
        first = planned.piece if planned.manner is Manner.WITH_CREATION and planned.piece < planned.length else 0
        body = self._witness(planned, "", whole).bytes_of(0, 0, first)
        headers = {"Upload-Length": str(planned.length), "Upload-Metadata": metadata(planned), **headers}
        while True:
            asked_at = time.monotonic()
            try:
                answer = self._request("POST", PATH, headers, body, planned)
            except NoAnswer as exc:
                if not str(exc).startswith("connect"):
                    self._theatre.unsure()
            else:
                if answer.status == 201:
                    witness = self._witness(planned, answer.headers["location"].rpartition("/")[2], whole)
                    witness.created_at = asked_at
                    self._theatre.appeared(witness)
                    if first:
                        witness.claimed(0, answer.offset, 0, "POST")
                    return witness
                self._theatre.unsure()
                self._theatre.must_be_busy("POST", answer, None, asked_at)
            self._drop()
            self._pause()

    def _concatenate(self, planned: PlannedUpload) -> Witness:
        """Return a final upload, finished, once its parts are. Raises GaveUp."""
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
                    witness = self._witness(planned, answer.headers["location"].rpartition("/")[2], None)
                    witness.created_at = asked_at
                    self._theatre.appeared(witness)
                    witness.claimed(0, planned.length, 0, "POST of a final upload")
                    return witness
                behind = self._theatre.stage.amnesia.since(asked_at) is Loss.NEWEST
                if not (behind and 400 <= answer.status < 500):  # a part is not finished, by a record of then
                    self._theatre.must_be_busy("POST of a final upload", answer, None, asked_at)
            self._drop()
            self._pause()
            for one in parts:
                if self.ask(one) < one.planned.length:
                    self.carry(one, one.planned.length)

    def append(self, witness: Witness, offset: int, variant: int, cuts: list[Cut]) -> int:
        """Send one PATCH and return the offset that its answer tells.

        Raises NoAnswer when there is none, or one that says try again.
        """
        planned = witness.planned
        end = min(offset + planned.piece, planned.length)
        body = witness.bytes_of(variant, offset, end)
        while cuts and cuts[-1].at < offset:
            cuts.pop()
        cut = cuts.pop() if cuts and cuts[-1].at < end else None
        headers = {"Upload-Offset": str(offset)}
        if planned.manner is Manner.CHECKSUM:
            digest = base64.b64encode(hashlib.sha1(body).digest()).decode()
            headers["Upload-Checksum"] = f"sha1 {digest}"
        if cut:
            self._cut_off(witness, headers, body, offset, variant, cut)
            raise NoAnswer("cut off by itself")
        asked_at = time.monotonic()
        try:
            answer = self._request("PATCH", PATH + witness.upload_id, headers, body, planned)
        except NoAnswer:
            self._lost_sight(witness, offset, variant)
            raise
        if self._wire and not self._wire.reusable:
            self._drop()
        return self._judge(witness, answer, offset, variant, end, asked_at)

    def _judge(self, witness: Witness, answer: Answer, offset: int, variant: int, end: int, asked_at: float) -> int:
        """Return the offset that the answer to a PATCH tells. Raises NoAnswer, GaveUp."""
        planned, figures = witness.planned, self._theatre.figures
        if answer.status == 204:
            reached = answer.offset
            # tus-java-client takes less than it sent for a failure; a body with a checksum counts whole or not at all.
            if reached > end or (reached < end and (planned.chunked or planned.manner is Manner.CHECKSUM)):
                figures.violated(f"upload {witness.upload_id}: PATCH from {offset} to {end} was told {reached}")
            witness.claimed(offset, reached, variant, "PATCH")
            return reached
        if answer.status == 503 and "upload-offset" in answer.headers:
            figures.count("bodies that had to yield")
            witness.claimed(offset, answer.offset, variant, "503")
        if answer.status == 409 and "upload-offset" in answer.headers:
            behind = self._theatre.stage.amnesia.since(asked_at) is Loss.NEWEST
            witness.told(answer.offset, offset, "409", may_be_behind=behind)
        self._theatre.must_be_busy("PATCH", answer, witness, asked_at)
        raise NoAnswer("try again")

    def _cut_off(
        self, witness: Witness, headers: Mapping[str, str], body: bytes, offset: int, variant: int, cut: Cut
    ) -> None:
        """Begin a PATCH and leave it as planned. Raises NoAnswer when it broke before."""
        wire, chunked = self._connected(witness.planned), witness.planned.chunked
        self._wire = None
        self._theatre.figures.count(f"client {cut.how}")
        part = body[: cut.at - offset]
        try:
            wire.ask("PATCH", PATH + witness.upload_id, headers, len(body), chunked=chunked)
            sent = wire.send(coded(part, is_whole=False) if chunked else part, witness.planned.rate)
        except NoAnswer:
            wire.close()
            raise
        self._theatre.figures.count("bytes sent", sent)
        if cut.how is How.SILENT:
            self._stale.append((wire, witness, offset, variant))
        else:
            wire.close(cut.how)

    def terminate(self, witness: Witness) -> None:
        """Delete the upload; from its success on it is gone. Raises GaveUp."""
        unsure = False
        while True:
            asked_at = time.monotonic()
            try:
                answer = self._request("DELETE", PATH + witness.upload_id, {}, b"", witness.planned)
            except NoAnswer:
                unsure = True
            else:
                is_gone = answer.status in GONE and unsure and not self._theatre.may_be_unknown(witness, asked_at)
                if answer.status == 204 or is_gone:
                    witness.terminated_at = asked_at
                    return
                unsure = unsure or answer.status >= 500
                if answer.status in GONE and self._theatre.may_have_vanished(witness):
                    unsure = True
                self._theatre.must_be_busy("DELETE", answer, witness, asked_at)
            self._drop()
            self._pause()

    def _witness(self, planned: PlannedUpload, upload_id: str, whole: tuple[int, int] | None) -> Witness:
        return Witness(planned, upload_id, self._theatre.stage.disk.content, self._theatre.figures, whole)

    def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, planned: PlannedUpload
    ) -> Answer:
        """Return the answer to a request in the form that is planned, on the client's connection. Raises NoAnswer."""
        wire = self._connected(planned)
        form = {"chunked": planned.chunked, "upgrade": planned.upgrade}
        return self._theatre.request(wire, method, path, headers, body, planned.rate, **form)

    def _connected(self, planned: PlannedUpload) -> Wire:
        """Return the connection, the old one if it can be used. Raises NoAnswer."""
        if self._wire is None or not self._wire.reusable:
            self._drop()
            stage = self._theatre.stage
            address, self._address = self._address, None
            if address is None and planned.upgrade:  # nginx would not pass it on
                address = self._chance.choice(stage.replicas).address
            self._wire = Wire(address or stage.nginx.address, self._theatre.ending.is_set)
        return self._wire

    def _lost_sight(self, witness: Witness, offset: int, variant: int) -> None:
        """Give up a connection on which the answer to a PATCH did not come."""
        self._drop()

    def _drop(self) -> None:
        if self._wire:
            self._wire.close()
            self._wire = None

    def _pause(self) -> None:
        """Wait a little. Raises GaveUp when all ends."""
        if self._theatre.ending.wait(self._chance.uniform(*PAUSE_S)):
            raise GaveUp

    def close(self) -> None:
        """Close every connection that is open."""
        self.leave()
        self._drop()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def leave(self) -> None:
        """Hear what was said on the connections that were left silent, and close them."""
        for wire, witness, offset, variant in self._stale:
            try:
                answer = wire.answer(LAST_WORDS_S, bodiless=False)
                if answer.status == 204 and not witness.was_taken_back:
                    witness.claimed(offset, answer.offset, variant, "a late answer to PATCH")
                    self._theatre.figures.count("late answers")
            except NoAnswer:
                pass
            finally:
                wire.close()
        self._stale.clear()
        if self._wire and not self._wire.reusable:
            self._drop()


def metadata(planned: PlannedUpload) -> str:
    """Return the Upload-Metadata of a file."""
    return f"filename {base64.b64encode(f'{planned.seed}.bin'.encode()).decode()}"
