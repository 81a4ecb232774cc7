"""The rules of one upload."""

import dataclasses

import pytest

from tusd_py.protocol.fields import is_upload_id
from tusd_py.protocol.messages import Append, Limits
from tusd_py.protocol.refusals import (
    BadHeader,
    ModifyFinal,
    NotFinished,
    OffsetMismatch,
    Refusal,
    TooLarge,
    UploadGone,
)
from tusd_py.protocol.upload import Outcome, State, Upload, Verdict, final_id, length_of_parts

NOW = 1000.0
UPLOAD = Upload(id="a" * 32, length=10, offset=4, metadata="", created_at=0.0, expires_at=2000.0)
APPEND = Append(UPLOAD.id, offset=4, body_length=6)


def test_a_patch_at_the_offset_is_admitted_with_the_room_that_is_left() -> None:
    assert (UPLOAD, 6) == UPLOAD.admit(APPEND, NOW, Limits())


@pytest.mark.parametrize("offset", [0, 3, 5, 10])
def test_a_patch_at_another_offset_is_409_with_the_true_one(offset: int) -> None:
    with pytest.raises(OffsetMismatch, match=f"Upload-Offset is {offset}, the upload is at 4") as refusal:
        UPLOAD.admit(dataclasses.replace(APPEND, offset=offset), NOW, Limits())

    assert (("Upload-Offset", "4"),) == refusal.value.headers
    assert 409 == refusal.value.status


def test_a_body_longer_than_the_room_is_413() -> None:
    with pytest.raises(TooLarge, match="brings 7 bytes, the upload at 4 has room for 6"):
        UPLOAD.admit(dataclasses.replace(APPEND, body_length=7), NOW, Limits())


def test_a_body_of_unknown_length_is_admitted() -> None:
    assert (UPLOAD, 6) == UPLOAD.admit(dataclasses.replace(APPEND, body_length=None), NOW, Limits())


def test_an_expired_upload_is_410() -> None:
    with pytest.raises(UploadGone, match="start a new upload") as refusal:
        UPLOAD.admit(APPEND, 2000.0, Limits())

    assert "restart" == refusal.value.action


def test_a_finished_upload_does_not_expire() -> None:
    finished = dataclasses.replace(UPLOAD, offset=10).finished(NOW)

    assert (State.COMPLETED, NOW) == (finished.state, finished.completed_at)
    assert not finished.has_expired(9999.0)
    assert (finished, 0) == finished.admit(Append(UPLOAD.id, 10), 9999.0, Limits())


def test_only_an_upload_with_all_its_bytes_can_finish() -> None:
    assert UPLOAD == UPLOAD.finished(NOW)
    assert State.ACTIVE is UPLOAD.state


@pytest.mark.parametrize(("verdict", "state"), [(Verdict.PENDING, State.ACTIVE), (Verdict.REFUSED, State.REFUSED)])
def test_all_bytes_are_not_a_finish(verdict: Verdict, state: State) -> None:
    """A finish that was refused, or not answered yet, is none; and it is decided once."""
    upload = dataclasses.replace(UPLOAD, offset=10, outcome=Outcome(verdict=verdict, status=422, reason="no video"))

    assert (state, True, False) == (upload.state, upload.is_complete, upload.is_finished)
    assert upload == upload.finished(NOW)
    assert upload.has_expired(2000.0)


def test_an_upload_without_expiry_does_not_expire() -> None:
    assert not dataclasses.replace(UPLOAD, expires_at=None).has_expired(1e12)


def test_the_length_can_be_declared_later() -> None:
    deferred = dataclasses.replace(UPLOAD, length=None)

    assert (deferred, None) == deferred.admit(APPEND, NOW, Limits())
    assert (UPLOAD, 6) == deferred.admit(dataclasses.replace(APPEND, length=10), NOW, Limits())
    assert not deferred.is_complete


def test_an_upload_of_unknown_length_has_room_up_to_the_maximum() -> None:
    deferred = dataclasses.replace(UPLOAD, length=None)

    assert (deferred, 96) == deferred.admit(APPEND, NOW, Limits(max_size=100))


@pytest.mark.parametrize(
    ("upload", "length", "limits", "refusal", "text"),
    [
        (UPLOAD, 11, Limits(), BadHeader, "is 11, the length of the upload was set to 10"),
        (dataclasses.replace(UPLOAD, length=None), 3, Limits(), BadHeader, "is 3, the upload is already at 4"),
        (dataclasses.replace(UPLOAD, length=None), 101, Limits(max_size=100), TooLarge, "101 bytes, .* at most 100"),
    ],
)
def test_a_length_that_cannot_be_is_refused(
    upload: Upload, length: int, limits: Limits, refusal: type[Refusal], text: str
) -> None:
    """Once set the length does not change, it is not below the offset, and not above the maximum."""
    with pytest.raises(refusal, match=text):
        upload.admit(dataclasses.replace(APPEND, length=length), NOW, limits)


def test_saying_the_same_length_again_is_fine() -> None:
    assert UPLOAD == UPLOAD.with_length(10, Limits())


def test_at_moves_offset_and_expiry() -> None:
    assert dataclasses.replace(UPLOAD, offset=7, expires_at=3.0) == UPLOAD.at(7, expires_at=3.0)


PART = dataclasses.replace(UPLOAD, offset=10, concat="partial").finished(NOW)


def test_a_final_upload_takes_no_bytes() -> None:
    final = dataclasses.replace(UPLOAD, concat="final;/files/a /files/b")
    with pytest.raises(ModifyFinal, match="nothing can be added"):
        final.admit(APPEND, NOW, Limits())

    assert (True, False) == (final.is_final, final.is_partial)


def test_a_finished_part_expires_all_the_same() -> None:
    """It is of no interest alone; one that is never concatenated would lie there for ever."""
    assert PART.is_complete
    assert PART.has_expired(2000.0)


def test_the_id_of_a_final_upload_follows_from_its_parts() -> None:
    """The same parts in the same order, with the same metadata, are the same upload; anything else is another."""
    final = final_id(("a", "b"), "filename YQ==", 0)

    assert is_upload_id(final)
    assert final == final_id(("a", "b"), "filename YQ==", 0)

    others = [final_id(("b", "a"), "filename YQ==", 0), final_id(("a", "b"), "", 0), final_id(("a", "b"), "", 1)]

    assert 4 == len({final, *others})


def test_the_length_of_the_final_upload_is_that_of_its_parts_together() -> None:
    assert 30 == length_of_parts([PART, PART, PART], Limits())


@pytest.mark.parametrize(
    ("part", "limits", "refusal"),
    [
        (dataclasses.replace(PART, offset=9, outcome=None), Limits(), NotFinished),
        (dataclasses.replace(PART, length=None, outcome=None), Limits(), NotFinished),
        (dataclasses.replace(PART, concat=""), Limits(), BadHeader),
        (PART, Limits(max_size=19), TooLarge),
    ],
)
def test_parts_that_make_no_upload_are_refused(part: Upload, limits: Limits, refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        length_of_parts([PART, part], limits)
