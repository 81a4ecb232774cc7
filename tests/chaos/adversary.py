"""A client that lies: it resumes with other bytes than it has sent, while the holder is frozen over the old ones."""

import threading
import time

from tests.chaos.clients import Client
from tests.chaos.plan import PlannedUpload
from tests.chaos.theatre import PATH
from tests.chaos.wire import Address, NoAnswer, Wire
from tests.chaos.witness import Witness

RUSH_S = 0.1  # as long as this it sends as fast as it can


class Adversary(Client):
    """Every byte must be one writer's in the end, of those who were told that they wrote it."""

    def _upload(self, planned: PlannedUpload, whole: tuple[int, int] | None) -> Witness:
        witness = self.begin(planned)
        variant = self._lie(witness)
        offset = self.ask(witness)
        while offset < planned.length:
            try:
                offset = self.append(witness, offset, variant, [])
            except NoAnswer:
                self._theatre.figures.count("resumes")
                variant = witness.next_variant()  # what the other connection sent may still be on its way
                self._pause()
                offset = self.ask(witness)
        return witness

    def _lost_sight(self, witness: Witness, offset: int, variant: int) -> None:
        if self._wire:
            self._stale.append((self._wire, witness, offset, variant))  # its answer may come yet
            self._wire = None

    def _lie(self, witness: Witness) -> int:
        """Let holders be frozen over old bytes, resume with new ones; return the variant to go on with."""
        planned, stage, figures = witness.planned, self._theatre.stage, self._theatre.figures
        variant = 0
        for one in planned.rounds:
            offset = self.ask(witness)
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
                    offset = self.ask(witness, self._besides(one.replica))
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
        asked_at = time.monotonic()
        try:
            headers = {"Upload-Offset": str(offset)}
            path = PATH + witness.upload_id
            answer = self._theatre.request(wire, "PATCH", path, headers, body, witness.planned.rate)
        except NoAnswer:
            self._stale.append((wire, witness, offset, variant))
            raise
        wire.close()
        return self._judge(witness, answer, offset, variant, end, asked_at)

    def _besides(self, n: int) -> Address:
        others = [replica for at, replica in enumerate(self._theatre.stage.replicas) if at != n]
        return self._chance.choice(others).address


def client_of(uploads: tuple[PlannedUpload, ...]) -> type[Client]:
    """Return the kind of client for these uploads."""
    return Adversary if any(upload.rounds for upload in uploads) else Client
