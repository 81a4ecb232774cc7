"""What all clients share: the stage, the evidence, when all ends, and what may be answered to anybody."""

import threading
import time
from collections.abc import Mapping

from tests.chaos.amnesia import Loss
from tests.chaos.figures import Figures
from tests.chaos.stage import Stage
from tests.chaos.wire import Address, Answer, NoAnswer, Wire, coded
from tests.chaos.witness import Witness

PATH = "/files/"
BUSY = {409, 423}
GONE = {404, 410}
UPGRADE = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA"}


class GaveUp(Exception):
    """All ends, or an answer came that no client can go on from."""


class Vanished(Exception):
    """The upload went with a ledger that lost its record, before it had a byte: the client starts again."""


class Theatre:
    """Sends requests for the clients and judges the answers."""

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
        self,
        wire: Wire,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        rate: float = 1e9,
        *,
        chunked: bool = False,
        upgrade: bool = False,
    ) -> Answer:
        """Return the answer to a whole request. Raises NoAnswer."""
        asked_at = time.monotonic()
        try:
            has_body = bool(body) or method in ("PATCH", "POST")
            if upgrade and body:
                headers = {**headers, **UPGRADE}
            chunked = chunked and bool(body)
            wire.ask(method, path, headers, len(body) if has_body else None, chunked=chunked)
            if body:
                sending = coded(body, is_whole=True) if chunked else body
                sent = wire.send(sending, rate)
                self.figures.count("bytes sent", sent)
                wire.reusable = wire.reusable and sent == len(sending)
                asked_at = time.monotonic()
            answer = wire.answer(bodiless=method == "HEAD")
        except NoAnswer as exc:
            self.figures.answered(method, str(exc), time.monotonic() - asked_at)
            raise
        self._saw(method, answer, time.monotonic() - asked_at)
        return answer

    def _saw(self, method: str, answer: Answer, waited_s: float) -> None:
        """Count an answer, and judge what never may be answered."""
        whose = "" if answer.is_ours else " nginx"
        self.figures.answered(method, f"{answer.status}{whose}", waited_s)
        if answer.status == 500:  # also a bare one of uvicorn's; nginx says 502 or 504 of itself
            self.figures.violated(f"{method} was answered 500")
        if answer.status == 507 and method in ("DELETE", "HEAD"):
            self.figures.violated(f"{method} was answered 507, it needs no room")
        if answer.status == 101:
            self.figures.violated(f"{method} was answered 101, there is nothing to switch to")

    def head(self, witness: Witness, address: Address) -> int:
        """Return the offset that HEAD tells. Raises NoAnswer, also when it cannot tell now; GaveUp, Vanished."""
        terminated, floor, asked_at = witness.terminated_at, witness.acknowledged, time.monotonic()
        wire = Wire(address, self.ending.is_set)
        try:
            answer = self.request(wire, "HEAD", PATH + witness.upload_id, {})
        finally:
            wire.close()
        loss = self.stage.amnesia.since(asked_at)
        if answer.status == 200:
            if terminated is not None and not self.stage.amnesia.since(terminated):
                self.figures.violated(f"upload {witness.upload_id} was terminated, HEAD tells {answer.offset}")
            witness.told(answer.offset, floor, "HEAD", may_be_behind=loss is Loss.NEWEST)
            return answer.offset
        if answer.status in GONE:
            if witness.terminated:
                raise GaveUp
            if self.may_be_unknown(witness, asked_at):
                raise NoAnswer("HEAD does not know it yet")
            if self.may_have_vanished(witness):
                witness.has_vanished = True
                self.figures.count("uploads vanished before their first byte")
                raise Vanished
            self.figures.violated(f"upload {witness.upload_id} is lost: HEAD is {answer.status}")
            raise GaveUp
        # tus-js-client starts over on any answer to HEAD but 2xx and 423; what nginx says of itself is not ours.
        if answer.is_ours and answer.status != 423:
            self.figures.violated(f"HEAD was answered {answer.status}: a browser would start over")
        raise NoAnswer("HEAD cannot tell now")

    def may_be_unknown(self, witness: Witness | None, asked_at: float) -> bool:
        """Return whether a request sent at asked_at may be told that there is no such upload, though there is one.

        Only while an older ledger has come back. One that is empty knows that it knows nothing.
        """
        loss = self.stage.amnesia.since(asked_at)
        return loss is Loss.NEWEST or (loss is not None and witness is not None and not witness.highest)

    def may_have_vanished(self, witness: Witness) -> bool:
        """Return whether a lost record can have been all that there was of the upload."""
        return not witness.highest and self.stage.amnesia.since(witness.created_at) is not None

    def must_be_busy(self, method: str, answer: Answer, witness: Witness | None, asked_at: float) -> None:
        """Note an answer that does not say "try again". Raises GaveUp after it.

        Without a witness the request was about several uploads.
        """
        if answer.status in BUSY or answer.status >= 500:
            return
        if answer.status in GONE and (
            self.may_be_unknown(witness, asked_at) or (witness is not None and self.may_have_vanished(witness))
        ):
            return
        self.figures.violated(f"{method} was answered {answer.status}")
        raise GaveUp
