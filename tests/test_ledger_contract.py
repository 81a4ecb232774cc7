"""The contract of ports.Ledger and ports.Outbox, on SQLite, fakeredis, Redis and Valkey."""

import asyncio
import dataclasses
import time

import pytest

from tusd_py.ledger.redis import RedisLedger
from tusd_py.ledger.sqlite import SqliteLedger
from tusd_py.ports import OUTBOX, Delivery, Due, Event, Held, LeaseLost, Signal, Tombstone
from tusd_py.protocol.refusals import UploadGone, UploadLocked, UploadNotFound
from tusd_py.protocol.upload import Outcome, State, Upload, Verdict

pytestmark = pytest.mark.anyio

AnyLedger = SqliteLedger | RedisLedger

UPLOAD = Upload(id="a" * 32, length=10, offset=0, metadata="filename YS5tcDQ=", created_at=1000.5, expires_at=5000.25)
EVENT = Event(
    id="post-finish-a",
    kind="post-finish",
    upload_id=UPLOAD.id,
    body='{"Type":"post-finish","Größe":1}',
    created_at=1234.5,
)
DONE = dataclasses.replace(UPLOAD, offset=10).finished(1300.5)
TERMINATED = Tombstone(state=State.CANCELLED, reason="terminated", removed_at=1400.5, forget_at=9000.0)
TTL_S = 30.0


async def heard(ledger: AnyLedger, upload_id: str, signal: Signal) -> "asyncio.Event":
    """Return an event that is set when the signal is told."""
    told = asyncio.Event()
    ledger.watch(upload_id, lambda one: told.set() if one is signal else None)
    await asyncio.sleep(0.1)  # a subscription is on its way when open() returns
    return told


async def test_a_record_comes_back_as_it_was_made(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD)

    assert UPLOAD == (await ledger.inspect(UPLOAD.id, ask=False)).upload
    assert UPLOAD == await ledger.acquire(UPLOAD.id, "t1", TTL_S)


async def test_a_deferred_length_and_no_expiry_come_back(ledger: AnyLedger) -> None:
    upload = dataclasses.replace(UPLOAD, length=None, expires_at=None, metadata="")
    await ledger.create(upload)

    assert upload == (await ledger.inspect(upload.id, ask=False)).upload


async def test_how_it_is_concatenated_comes_back(ledger: AnyLedger) -> None:
    upload = dataclasses.replace(UPLOAD, concat="final;/files/a /files/b")
    await ledger.create(upload)

    assert upload == (await ledger.inspect(upload.id, ask=False)).upload


async def test_every_field_of_an_upload_comes_back(ledger: AnyLedger) -> None:
    refused = Outcome(verdict=Verdict.REFUSED, status=422, reason="No “video”, but text")
    upload = dataclasses.replace(
        UPLOAD,
        offset=10,
        owner="alice@example",
        completed_at=1300.25,
        outcome=refused,
        extra={"assessment_id": "x", "parts": [1, 2.5, None], "ü": "ß"},
    )
    await ledger.create(dataclasses.replace(upload, offset=0, outcome=None, completed_at=None, extra={}))
    await ledger.acquire(UPLOAD.id, "t1", TTL_S)
    await ledger.commit(upload, "t1", TTL_S, release=True)

    assert upload == (await ledger.inspect(UPLOAD.id, ask=False)).upload
    assert upload == await ledger.acquire(UPLOAD.id, "t2", TTL_S)


async def test_a_finish_that_nobody_answered_is_not_a_finish(ledger: AnyLedger) -> None:
    """Whoever reads the record later sees that the question is open, though every byte is there."""
    upload = dataclasses.replace(UPLOAD, offset=10, outcome=Outcome(verdict=Verdict.PENDING))
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    await ledger.commit(upload, "t1", TTL_S, release=True)

    found = (await ledger.inspect(UPLOAD.id, ask=False)).upload

    assert (State.ACTIVE, True, upload) == (found.state, found.is_complete, found)


async def test_an_id_that_is_taken_is_not_created_held(ledger: AnyLedger) -> None:
    """Ids that follow from what is concatenated may be made twice at once."""
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)

    with pytest.raises(UploadLocked):
        await ledger.create(UPLOAD, token="t2", ttl_s=TTL_S)


async def test_a_finished_part_still_expires(ledger: AnyLedger) -> None:
    part = dataclasses.replace(UPLOAD, concat="partial")
    await ledger.create(part, token="t1", ttl_s=TTL_S)
    await ledger.commit(part.at(10, expires_at=5000.25).finished(1.0), "t1", TTL_S, release=True)

    assert Due(expired=(part.id,)) == await ledger.due(9999.0, 10)


async def test_offsets_beyond_53_bits_are_exact(ledger: AnyLedger) -> None:
    """A double would round them."""
    upload = dataclasses.replace(UPLOAD, length=2**63 - 1)
    await ledger.create(upload, token="t1", ttl_s=TTL_S)
    await ledger.commit(upload.at(2**63 - 3, expires_at=None), "t1", TTL_S)

    assert 2**63 - 3 == (await ledger.inspect(upload.id, ask=False)).upload.offset


async def test_an_unknown_upload_is_not_found(ledger: AnyLedger) -> None:
    with pytest.raises(UploadNotFound):
        await ledger.inspect("nobody", ask=True)
    with pytest.raises(UploadNotFound):
        await ledger.acquire("nobody", "t1", TTL_S)


async def test_a_held_upload_is_not_given_to_another(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD)
    await ledger.acquire(UPLOAD.id, "t1", TTL_S)

    answer = await ledger.acquire(UPLOAD.id, "t2", TTL_S)

    assert isinstance(answer, Held)
    assert TTL_S - 5 < answer.remaining_s <= TTL_S
    assert (await ledger.inspect(UPLOAD.id, ask=False)).is_held


async def test_taking_the_same_lease_twice_gives_it_twice(ledger: AnyLedger) -> None:
    """The answer to the first try may have been lost."""
    await ledger.create(UPLOAD)
    await ledger.acquire(UPLOAD.id, "t1", TTL_S)

    assert UPLOAD == await ledger.acquire(UPLOAD.id, "t1", TTL_S)


async def test_an_upload_can_be_created_held(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)

    assert isinstance(await ledger.acquire(UPLOAD.id, "t2", TTL_S), Held)
    await ledger.commit(UPLOAD.at(3, expires_at=None), "t1", TTL_S)


async def test_a_lease_that_ran_out_goes_to_who_asks(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD)
    await ledger.acquire(UPLOAD.id, "t1", 0.05)
    await asyncio.sleep(0.1)

    assert not (await ledger.inspect(UPLOAD.id, ask=False)).is_held
    assert UPLOAD == await ledger.acquire(UPLOAD.id, "t2", TTL_S)


async def test_commit_after_losing_the_lease_records_nothing(ledger: AnyLedger) -> None:
    """The fence: neither offset nor event of a former holder gets in, however late it comes."""
    await ledger.create(UPLOAD)
    await ledger.acquire(UPLOAD.id, "t1", 0.05)
    await asyncio.sleep(0.1)
    await ledger.acquire(UPLOAD.id, "t2", TTL_S)

    with pytest.raises(LeaseLost):
        await ledger.commit(UPLOAD.at(10, expires_at=None), "t1", TTL_S, event=EVENT, release=True)

    assert UPLOAD == (await ledger.inspect(UPLOAD.id, ask=False)).upload
    assert [] == await ledger.claim(2000.0, 60.0, 10)


async def test_a_lease_that_ran_out_but_nobody_took_still_commits(ledger: AnyLedger) -> None:
    """Nobody else changed anything; the bytes need not be sent again."""
    await ledger.create(UPLOAD)
    await ledger.acquire(UPLOAD.id, "t1", 0.05)
    await asyncio.sleep(0.1)

    await ledger.commit(UPLOAD.at(5, expires_at=6000.0), "t1", TTL_S)

    sight = await ledger.inspect(UPLOAD.id, ask=False)
    assert (5, 6000.0, True) == (sight.upload.offset, sight.upload.expires_at, sight.is_held)


async def test_a_late_checkpoint_after_the_release_records_nothing(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD)
    await ledger.acquire(UPLOAD.id, "t1", TTL_S)
    await ledger.commit(UPLOAD.at(7, expires_at=None), "t1", TTL_S, release=True)

    with pytest.raises(LeaseLost):
        await ledger.commit(UPLOAD.at(5, expires_at=None), "t1", TTL_S)

    assert 7 == (await ledger.inspect(UPLOAD.id, ask=False)).upload.offset


async def test_an_overtaken_checkpoint_does_not_take_the_offset_back(ledger: AnyLedger) -> None:
    """Sent again after a time-out while the first of the two was stuck on its way. Only on purpose it goes back."""
    await ledger.create(UPLOAD)
    await ledger.acquire(UPLOAD.id, "t1", TTL_S)
    await ledger.commit(UPLOAD.at(7, expires_at=None), "t1", TTL_S)
    await ledger.commit(UPLOAD.at(5, expires_at=None), "t1", TTL_S)

    assert 7 == (await ledger.inspect(UPLOAD.id, ask=False)).upload.offset

    await ledger.commit(UPLOAD.at(5, expires_at=None), "t1", TTL_S, take_back=True)

    assert 5 == (await ledger.inspect(UPLOAD.id, ask=False)).upload.offset


async def test_renew_keeps_and_tells_what_is_wanted(ledger: AnyLedger) -> None:
    """The signal may be lost; the wish is not."""
    await ledger.create(UPLOAD)
    await ledger.acquire(UPLOAD.id, "t1", 0.5)

    assert await ledger.renew(UPLOAD.id, "t1", TTL_S) is None

    await ledger.inspect(UPLOAD.id, ask=True)

    assert Signal.CHECKPOINT is await ledger.renew(UPLOAD.id, "t1", TTL_S)

    answer = await ledger.acquire(UPLOAD.id, "t2", TTL_S)

    assert isinstance(answer, Held)
    assert answer.remaining_s > 1
    assert Signal.YIELD is await ledger.renew(UPLOAD.id, "t1", TTL_S)

    await ledger.inspect(UPLOAD.id, ask=True)

    assert Signal.YIELD is await ledger.renew(UPLOAD.id, "t1", TTL_S)


async def test_renew_of_a_lost_lease_fails(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD)

    with pytest.raises(LeaseLost):
        await ledger.renew(UPLOAD.id, "t1", TTL_S)


async def test_a_checkpoint_answers_the_wish_for_one_and_leaves_the_wish_to_yield(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD)
    await ledger.acquire(UPLOAD.id, "t1", TTL_S)
    await ledger.inspect(UPLOAD.id, ask=True)
    await ledger.commit(UPLOAD.at(1, expires_at=None), "t1", TTL_S)

    assert await ledger.renew(UPLOAD.id, "t1", TTL_S) is None

    await ledger.acquire(UPLOAD.id, "t2", TTL_S)
    await ledger.commit(UPLOAD.at(2, expires_at=None), "t1", TTL_S)

    assert Signal.YIELD is await ledger.renew(UPLOAD.id, "t1", TTL_S)


async def test_every_commit_is_counted(ledger: AnyLedger) -> None:
    """Who waits for a fresh offset sees that it is fresh though it may be the same."""
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    before = await ledger.inspect(UPLOAD.id, ask=False)
    await ledger.commit(UPLOAD, "t1", TTL_S)
    after = await ledger.inspect(UPLOAD.id, ask=False)

    assert 1 == after.commits - before.commits


async def test_the_holder_is_told_that_it_is_wanted(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    told = await heard(ledger, UPLOAD.id, Signal.YIELD)
    await ledger.acquire(UPLOAD.id, "t2", TTL_S)

    await asyncio.wait_for(told.wait(), 2)


async def test_the_holder_is_told_that_its_offset_is_asked_for(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    told = await heard(ledger, UPLOAD.id, Signal.CHECKPOINT)
    await ledger.inspect(UPLOAD.id, ask=True)

    await asyncio.wait_for(told.wait(), 2)


@pytest.mark.parametrize("how", ["commit", "release", "remove", "checkpoint"])
async def test_who_waits_is_told_when_the_upload_is_settled(ledger: AnyLedger, how: str) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    told = await heard(ledger, UPLOAD.id, Signal.SETTLED)
    await ledger.acquire(UPLOAD.id, "t2", TTL_S)
    match how:
        case "commit":
            await ledger.commit(UPLOAD.at(1, expires_at=None), "t1", TTL_S, release=True)
        case "checkpoint":
            await ledger.commit(UPLOAD.at(1, expires_at=None), "t1", TTL_S)
        case "release":
            await ledger.release(UPLOAD.id, "t1")
        case _:
            await ledger.remove(UPLOAD.id, "t1", TERMINATED)

    await asyncio.wait_for(told.wait(), 2)


async def test_who_does_not_watch_any_more_is_not_told(ledger: AnyLedger) -> None:
    calls: list[Signal] = []
    unwatch = ledger.watch(UPLOAD.id, calls.append)
    unwatch()
    unwatch()
    told = await heard(ledger, UPLOAD.id, Signal.YIELD)
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    await ledger.acquire(UPLOAD.id, "t2", TTL_S)
    await asyncio.wait_for(told.wait(), 2)

    assert [] == calls


async def test_a_released_upload_is_free(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    await ledger.release(UPLOAD.id, "t1")

    assert UPLOAD == await ledger.acquire(UPLOAD.id, "t2", TTL_S)


async def test_only_the_holder_can_release(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    await ledger.release(UPLOAD.id, "t2")

    assert isinstance(await ledger.acquire(UPLOAD.id, "t3", TTL_S), Held)


async def test_a_removed_upload_is_gone_and_says_why(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    await ledger.remove(UPLOAD.id, "t1", TERMINATED)

    with pytest.raises(UploadGone, match="terminated"):
        await ledger.inspect(UPLOAD.id, ask=True)
    with pytest.raises(UploadGone, match="terminated"):
        await ledger.acquire(UPLOAD.id, "t2", TTL_S)


async def test_only_the_holder_can_remove_or_commit_after_it(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)

    with pytest.raises(LeaseLost):
        await ledger.remove(UPLOAD.id, "t2", TERMINATED)

    await ledger.remove(UPLOAD.id, "t1", TERMINATED)

    with pytest.raises(LeaseLost):
        await ledger.commit(UPLOAD.at(5, expires_at=None), "t1", TTL_S)


async def test_expired_tells_unfinished_uploads_that_are_due(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD)
    await ledger.create(dataclasses.replace(UPLOAD, id="b" * 32, expires_at=6000.0))
    await ledger.create(dataclasses.replace(UPLOAD, id="c" * 32, expires_at=None))

    assert Due() == await ledger.due(4999.0, 10)
    assert Due(expired=(UPLOAD.id,)) == await ledger.due(5500.0, 10)
    assert {UPLOAD.id, "b" * 32} == set((await ledger.due(9999.0, 10)).expired)
    assert 1 == len((await ledger.due(9999.0, 1)).expired)


async def test_a_commit_moves_the_expiry_and_completion_ends_it(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    await ledger.commit(UPLOAD.at(5, expires_at=7000.0), "t1", TTL_S)

    assert Due() == await ledger.due(6999.0, 10)
    assert Due(expired=(UPLOAD.id,)) == await ledger.due(7000.0, 10)

    await ledger.commit(DONE, "t1", TTL_S, event=EVENT, release=True)

    assert Due() == await ledger.due(9999.0, 10)


async def test_a_tombstone_stays_until_it_is_forgotten(ledger: AnyLedger) -> None:
    """When it is due it is shown; it goes when no file of the upload is left."""
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    await ledger.remove(UPLOAD.id, "t1", TERMINATED)

    assert Due() == await ledger.due(8999.0, 10)
    assert Due(forgettable=(UPLOAD.id,)) == await ledger.due(9001.0, 10)
    with pytest.raises(UploadGone):
        await ledger.inspect(UPLOAD.id, ask=False)

    await ledger.forget(UPLOAD.id)

    assert Due() == await ledger.due(9001.0, 10)
    with pytest.raises(UploadNotFound):
        await ledger.inspect(UPLOAD.id, ask=False)


async def test_only_a_tombstone_can_be_forgotten(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD)
    await ledger.forget(UPLOAD.id)

    assert UPLOAD == (await ledger.inspect(UPLOAD.id, ask=False)).upload


async def test_a_turn_is_taken_by_one(ledger: AnyLedger) -> None:
    assert [True, False] == [await ledger.take_turn("sweep", 0.3), await ledger.take_turn("sweep", 0.3)]
    assert await ledger.take_turn("other", 30.0)

    await asyncio.sleep(0.4)

    assert await ledger.take_turn("sweep", 30.0)


async def test_the_event_is_born_with_the_last_byte(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD, token="t1", ttl_s=TTL_S)
    told = await heard(ledger, OUTBOX, Signal.EVENT)
    await ledger.commit(UPLOAD.at(10, expires_at=None), "t1", TTL_S, event=EVENT, release=True)

    await asyncio.wait_for(told.wait(), 2)
    assert [Delivery(event=EVENT, attempt=1)] == await ledger.claim(2000.0, 60.0, 10)


async def test_an_upload_born_complete_has_its_event(ledger: AnyLedger) -> None:
    await ledger.create(dataclasses.replace(UPLOAD, length=0), event=EVENT)

    assert [Delivery(event=EVENT, attempt=1)] == await ledger.claim(2000.0, 60.0, 10)


async def test_creating_twice_is_creating_once(ledger: AnyLedger) -> None:
    """The answer to the first try may have been lost; a holder that came between is not thrown out."""
    await ledger.create(UPLOAD, event=EVENT)
    await ledger.acquire(UPLOAD.id, "t1", TTL_S)
    await ledger.create(UPLOAD, event=EVENT)

    assert 1 == len(await ledger.claim(2000.0, 60.0, 10))
    assert (await ledger.inspect(UPLOAD.id, ask=False)).is_held


async def test_a_claimed_event_is_kept_from_others_until_the_claim_runs_out(ledger: AnyLedger) -> None:
    await ledger.create(dataclasses.replace(UPLOAD, length=0), event=EVENT)
    await ledger.claim(2000.0, 60.0, 10)

    assert [] == await ledger.claim(2059.0, 60.0, 10)
    assert [Delivery(event=EVENT, attempt=2)] == await ledger.claim(2061.0, 60.0, 10)


async def test_claims_are_limited(ledger: AnyLedger) -> None:
    for n in range(3):
        event = dataclasses.replace(EVENT, id=f"e{n}")
        await ledger.create(dataclasses.replace(UPLOAD, id=f"u{n}", length=0), event=event)

    assert [2, 1, 0] == [len(await ledger.claim(2000.0, 60.0, 2)) for _ in range(3)]


async def test_a_confirmed_event_is_forgotten(ledger: AnyLedger) -> None:
    await ledger.create(dataclasses.replace(UPLOAD, length=0), event=EVENT)
    [delivery] = await ledger.claim(2000.0, 60.0, 10)
    await ledger.confirm(EVENT)
    await ledger.postpone(delivery, 2001.0, "too late")

    assert [] == await ledger.claim(9000.0, 60.0, 10)


async def test_a_postponed_event_is_due_later_for_those_who_have_not_heard(ledger: AnyLedger) -> None:
    await ledger.create(dataclasses.replace(UPLOAD, length=0), event=EVENT)
    [delivery] = await ledger.claim(2000.0, 60.0, 10)
    await ledger.postpone(
        dataclasses.replace(delivery, confirmed_by=frozenset({"http://a/"})), 3000.0, "http://b/: 500"
    )

    assert [] == await ledger.claim(2999.0, 60.0, 10)
    assert [Delivery(event=EVENT, attempt=2, confirmed_by=frozenset({"http://a/"}))] == await ledger.claim(
        3000.0, 60.0, 10
    )


async def test_a_buried_event_is_not_tried_again(ledger: AnyLedger) -> None:
    await ledger.create(dataclasses.replace(UPLOAD, length=0), event=EVENT)
    [delivery] = await ledger.claim(2000.0, 60.0, 10)
    await ledger.bury(delivery, "gone for good")

    assert [] == await ledger.claim(99999999999.0, 60.0, 10)


async def test_one_of_many_takers_gets_the_lease(ledger: AnyLedger) -> None:
    await ledger.create(UPLOAD)
    answers = await asyncio.gather(*(ledger.acquire(UPLOAD.id, f"t{n}", TTL_S) for n in range(20)))

    assert 1 == sum(answer == UPLOAD for answer in answers)


async def test_a_living_ledger_answers(ledger: AnyLedger) -> None:
    before = time.monotonic()
    await ledger.ping()

    assert time.monotonic() - before < 2
