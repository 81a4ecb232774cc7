"""Clients: each uploads its files one after the other, resumes by HEAD, cuts itself off, and some lie.

They behave as tus-js-client does: a 204 tells where to go on; after 409, 423, 5xx and broken connections they wait a
little and ask with HEAD. Any other answer is written down as the server's fault.
"""

import base64
import hashlib
import random
import threading
import time
from collections.abc import Mapping

from tests.chaos.plan import Cut, How, Manner, PlannedUpload
from tests.chaos.stage import Stage
from tests.chaos.wire import Address, Answer, NoAnswer, Wire
from tests.chaos.witness import Figures, Witness

PATH = "/files/"
PAUSE_S = (0.05, 1.0)  # between tries
LAST_WORDS_S = 2.0  # for answers on connections that were left silent
RUSH_S = 0.1  # as long as this a liar sends as fast as it can
BUSY = {409, 423}


class GaveUp(Exception):
    """All ends, or an answer came that no client can go on from."""


class Theatre:
    """What all clients share: the stage, the evidence, and when all ends."""

    def __init__(self, stage: Stage, figures: Figures) -> None:
        self.stage = stage
        self.figures = figures
        self.ending = threading.Event()
        self.witnesses: list[Witness] = []
        self.unsure_creations = 0  # POSTs without an answer: there may be an upload that nobody has heard of
        self._lock = threading.Lock()

    def appeared(self, witness: Witness) -> None:
        with self._lock:
            self.witnesses.append(witness)

    def unsure(self) -> None:
        with self._lock:
            self.unsure_creations += 1

    def unfinished(self) -> list[Witness]:
        with self._lock:
            return [witness for witness in self.witnesses if not witness.over]

    def request(
        self, wire: Wire, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", rate: float = 1e9
    ) -> Answer:
        """Return the answer to a whole request. Raises NoAnswer."""
        asked_at = time.monotonic()
        try:
            wire.ask(method, path, headers, len(body) if body or method in ("PATCH", "POST") else None)
            if body:
                sent = wire.send(body, rate)
                self.figures.count("bytes sent", sent)
                wire.reusable = wire.reusable and sent == len(body)
                asked_at = time.monotonic()
            answer = wire.answer(bodiless=method == "HEAD")
        except NoAnswer as exc:
            self.figures.answered(method, str(exc), time.monotonic() - asked_at)
            raise
        self.saw(method, answer, time.monotonic() - asked_at)
        return answer

    def saw(self, method: str, answer: Answer, waited_s: float) -> None:
        """Count an answer, and judge what never may be answered."""
        whose = "" if answer.is_ours else " nginx"
        self.figures.answered(method, f"{answer.status}{whose}", waited_s)
        if answer.is_ours and answer.status == 500:
            self.figures.violated(f"{method} was answered 500")

    def head(self, witness: Witness, address: Address) -> int:
        """Return the offset that HEAD tells. Raises NoAnswer, also when it cannot tell now; GaveUp."""
        terminated, floor = witness.terminated, witness.acknowledged
        wire = Wire(address, self.ending.is_set)
        try:
            answer = self.request(wire, "HEAD", PATH + witness.upload_id, {})
        finally:
            wire.close()
        if answer.status == 200:
            offset = int(answer.headers["upload-offset"])
            if terminated:
                self.figures.violated(f"upload {witness.upload_id} was terminated, HEAD tells {offset}")
            witness.told(offset, floor, "HEAD")
            return offset
        if answer.status in (404, 410):
            if not witness.terminated:
                self.figures.violated(f"upload {witness.upload_id} is lost: HEAD is {answer.status}")
            raise GaveUp
        # tus-js-client starts over on any answer to HEAD but 2xx and 423; what nginx says of itself is not ours.
        if answer.is_ours and answer.status != 423:
            self.figures.violated(f"HEAD was answered {answer.status}: a browser would start over")
        raise NoAnswer("HEAD cannot tell now")


class Client:
    """One client, and the connections that it has."""

    def __init__(self, theatre: Theatre, uploads: tuple[PlannedUpload, ...], seed: int) -> None:
        self._theatre = theatre
        self._uploads = uploads
        self._chance = random.Random(seed)
        self._wire: Wire | None = None
        self._stale: list[tuple[Wire, Witness, int, int]] = []  # left silent: whose, where it began, variant

    def run(self) -> None:
        """Upload everything."""
        for planned in self._uploads:
            if self._theatre.ending.is_set():
                break
            try:
                self._upload(planned)
            except GaveUp:
                pass
            except Exception as exc:  # a mistake of the harness must not look like success
                self._theatre.figures.violated(f"the client failed: {type(exc).__name__}: {exc}")
                raise
            finally:
                self._leave()
        if self._wire:
            self._wire.close()

    def _upload(self, planned: PlannedUpload) -> None:
        self._theatre.figures.count("uploads begun")
        witness = self._create(planned)
        cuts = sorted(planned.cuts, key=lambda cut: cut.at, reverse=True)  # the next one is the last
        variant = self._lie(witness) if planned.manner is Manner.ADVERSARY else 0
        offset = self._ask(witness) if planned.manner is Manner.ADVERSARY else witness.acknowledged
        while offset < planned.length:
            if planned.manner is Manner.TERMINATE and offset >= planned.terminate_at:
                self._terminate(witness)
                return
            try:
                offset = self._append(witness, offset, variant, cuts)
            except NoAnswer:
                self._theatre.figures.count("resumes")
                if planned.manner is Manner.ADVERSARY:
                    variant = witness.next_variant()  # what the other connection sent may still be on its way
                self._pause()
                offset = self._ask(witness)

    def _create(self, planned: PlannedUpload) -> Witness:
        """Return the new upload. A creation whose answer was lost is made again: nobody knows the first one's URL."""
        first = planned.piece if planned.manner is Manner.WITH_CREATION and planned.piece < planned.length else 0
        body = Witness(planned, "", self._theatre.stage.disk.folder, self._theatre.figures).bytes_of(0, 0, first)
        name = base64.b64encode(f"{planned.seed}.bin".encode()).decode()
        headers = {"Upload-Length": str(planned.length), "Upload-Metadata": f"filename {name}"}
        while True:
            try:
                answer = self._theatre.request(self._connected(), "POST", PATH, headers, body, planned.rate)
            except NoAnswer as exc:
                if not str(exc).startswith("connect"):
                    self._theatre.unsure()
            else:
                if answer.status == 201:
                    upload_id = answer.headers["location"].rpartition("/")[2]
                    folder = self._theatre.stage.disk.folder
                    witness = Witness(planned, upload_id, folder, self._theatre.figures)
                    self._theatre.appeared(witness)
                    if first:
                        witness.claimed(0, int(answer.headers["upload-offset"]), 0, "POST")
                    return witness
                self._theatre.unsure()
                self._must_be_busy("POST", answer)
            self._drop()
            self._pause()

    def _append(self, witness: Witness, offset: int, variant: int, cuts: list[Cut]) -> int:
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
        path = PATH + witness.upload_id
        if cut:
            self._cut_off(witness, headers, body, offset, variant, cut)
            raise NoAnswer("cut off by itself")
        wire = self._connected()
        try:
            answer = self._theatre.request(wire, "PATCH", path, headers, body, planned.rate)
        except NoAnswer:
            if planned.manner is Manner.ADVERSARY and self._wire:
                self._stale.append((self._wire, witness, offset, variant))  # its answer may come yet
                self._wire = None
            self._drop()
            raise
        if not wire.reusable:
            self._drop()
        return self._judge(witness, answer, offset, variant, end)

    def _judge(self, witness: Witness, answer: Answer, offset: int, variant: int, end: int) -> int:
        """Return the offset that the answer to a PATCH tells. Raises NoAnswer, GaveUp."""
        if answer.status == 204:
            reached = int(answer.headers["upload-offset"])
            if reached > end:
                self._theatre.figures.violated(
                    f"upload {witness.upload_id}: PATCH from {offset} to {end} was told {reached}"
                )
            witness.claimed(offset, reached, variant, "PATCH")
            return reached
        if answer.status == 409 and "upload-offset" in answer.headers:
            witness.told(int(answer.headers["upload-offset"]), offset, "409")
        self._must_be_busy("PATCH", answer)
        raise NoAnswer("try again")

    def _cut_off(
        self, witness: Witness, headers: Mapping[str, str], body: bytes, offset: int, variant: int, cut: Cut
    ) -> None:
        """Begin a PATCH and leave it as planned. Raises NoAnswer when it broke before."""
        wire = self._connected()
        self._wire = None
        self._theatre.figures.count(f"client {cut.how}")
        try:
            wire.ask("PATCH", PATH + witness.upload_id, headers, len(body))
            sent = wire.send(body[: cut.at - offset], witness.planned.rate)
        except NoAnswer:
            wire.close()
            raise
        self._theatre.figures.count("bytes sent", sent)
        if cut.how is How.SILENT:
            self._stale.append((wire, witness, offset, variant))
        else:
            wire.close(cut.how)

    def _lie(self, witness: Witness) -> int:
        """Let holders be frozen over old bytes, resume with new ones; return the variant to go on with."""
        planned, stage, figures = witness.planned, self._theatre.stage, self._theatre.figures
        variant = 0
        for one in planned.rounds:
            offset = self._ask(witness)
            replica = stage.replicas[one.replica]
            body = witness.bytes_of(variant, offset, planned.length)
            if len(body) <= one.send:
                break
            try:
                wire = Wire(replica.address, self._theatre.ending.is_set)
                self._stale.append((wire, witness, offset, variant))
                wire.ask("PATCH", PATH + witness.upload_id, {"Upload-Offset": str(offset)}, len(body))
                figures.count("bytes sent", wire.send(body[: one.send], planned.rate))
            except NoAnswer:
                continue
            freezing = threading.Thread(target=self._freeze, args=(one.replica, one.frozen_s, one.rush_s))
            freezing.start()
            rushed, calm_at = one.send, time.monotonic() + RUSH_S
            while rushed < one.send + one.push and time.monotonic() < calm_at:
                rushed += wire.push(body[rushed : one.send + one.push])
            figures.count("bytes sent", rushed - one.send)
            variant = witness.next_variant()
            self._theatre.ending.wait(one.wait_s)
            for _ in range(3):  # some meet the frozen holder's lock, some its lease, some find it gone
                try:
                    offset = self._ask(witness, besides=one.replica)
                    self._append_to(self._besides(one.replica), witness, offset, variant)
                    break
                except NoAnswer:
                    variant = witness.next_variant()
                    self._pause()
            freezing.join()
        return variant

    def _freeze(self, n: int, seconds: float, rush_s: float) -> None:
        """Freeze a replica in rush_s, in the middle of a write, unless something else happens to it just now."""
        replica = self._theatre.stage.replicas[n]
        if replica.busy.acquire(blocking=False):
            try:
                time.sleep(rush_s)
                self._theatre.figures.happened("replica frozen by a liar", f"replica {n} frozen for {seconds:.1f} s")
                replica.freeze_for(seconds, self._theatre.ending)
            finally:
                replica.busy.release()

    def _append_to(self, address: Address, witness: Witness, offset: int, variant: int) -> int:
        """Send one PATCH past nginx and return the offset that its answer tells. Raises NoAnswer, GaveUp."""
        end = min(offset + witness.planned.piece, witness.planned.length)
        body = witness.bytes_of(variant, offset, end)
        wire = Wire(address, self._theatre.ending.is_set)
        try:
            headers = {"Upload-Offset": str(offset)}
            path = PATH + witness.upload_id
            answer = self._theatre.request(wire, "PATCH", path, headers, body, witness.planned.rate)
        except NoAnswer:
            self._stale.append((wire, witness, offset, variant))
            raise
        wire.close()
        return self._judge(witness, answer, offset, variant, end)

    def _ask(self, witness: Witness, besides: int | None = None) -> int:
        """Return the offset that HEAD tells, however often it takes. Raises GaveUp."""
        while True:
            address = self._theatre.stage.nginx.address if besides is None else self._besides(besides)
            try:
                return self._theatre.head(witness, address)
            except NoAnswer:
                self._pause()

    def _terminate(self, witness: Witness) -> None:
        """Delete the upload; from its success on it is gone. Raises GaveUp."""
        unsure = False
        while True:
            try:
                answer = self._theatre.request(self._connected(), "DELETE", PATH + witness.upload_id, {})
            except NoAnswer:
                unsure = True
            else:
                if answer.status == 204 or (answer.status in (404, 410) and unsure):
                    witness.terminated = True
                    return
                unsure = unsure or answer.status >= 500
                self._must_be_busy("DELETE", answer)
            self._drop()
            self._pause()

    def _must_be_busy(self, method: str, answer: Answer) -> None:
        """Note an answer that does not say "try again". Raises GaveUp after it."""
        if answer.status in BUSY or answer.status >= 500:
            return
        self._theatre.figures.violated(f"{method} was answered {answer.status}")
        raise GaveUp

    def _besides(self, n: int) -> Address:
        others = [replica for at, replica in enumerate(self._theatre.stage.replicas) if at != n]
        return self._chance.choice(others).address

    def _connected(self) -> Wire:
        """Return the connection to nginx, the old one if it can be used. Raises NoAnswer."""
        if self._wire is None or not self._wire.reusable:
            self._drop()
            self._wire = Wire(self._theatre.stage.nginx.address, self._theatre.ending.is_set)
        return self._wire

    def _drop(self) -> None:
        if self._wire:
            self._wire.close()
            self._wire = None

    def _pause(self) -> None:
        """Wait a little. Raises GaveUp when all ends."""
        if self._theatre.ending.wait(self._chance.uniform(*PAUSE_S)):
            raise GaveUp

    def _leave(self) -> None:
        """Hear what was said on the connections that were left silent, and close them."""
        for wire, witness, offset, variant in self._stale:
            try:
                answer = wire.answer(LAST_WORDS_S, bodiless=False)
                if answer.status == 204:
                    witness.claimed(offset, int(answer.headers["upload-offset"]), variant, "a late answer to PATCH")
                    self._theatre.figures.count("late answers")
            except NoAnswer:
                pass
            finally:
                wire.close()
        self._stale.clear()
