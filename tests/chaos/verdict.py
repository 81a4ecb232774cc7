"""Whether all is as it was told, when everything works again and nobody uploads any more."""

import time
from collections.abc import Callable, Iterator

import httpx
import redis

from tests.chaos.ledger import PREFIX
from tests.chaos.stage import Stage
from tests.chaos.theatre import PATH, Theatre
from tests.chaos.witness import Witness
from tests.support.processes import eventually
from tests.support.tus import TUS

QUIET_S = 60.0  # for callbacks that wait for their next try, leases to run out and traces to be tidied away


def judge(theatre: Theatre) -> None:
    """Note everything that is wrong in the end, and what became of the uploads."""
    figures, witnesses = theatre.figures, theatre.witnesses
    for wrong in verdict(theatre):
        figures.violated(wrong)
    figures.count("uploads finished", sum(one.finished and not one.is_partial for one in witnesses))
    figures.count("partial uploads finished", sum(one.finished and one.is_partial for one in witnesses))
    figures.count("uploads terminated", sum(one.terminated for one in witnesses))
    figures.count("bytes kept", sum(one.acknowledged for one in witnesses))
    for log in theatre.stage.tracebacks():
        figures.violated(f"a traceback in {log}")


def verdict(theatre: Theatre) -> Iterator[str]:
    """Yield what is wrong, each as a sentence; nothing if all is well."""
    for witness in theatre.unfinished():
        yield f"upload {witness.upload_id} is stuck at {witness.acknowledged} of {witness.planned.length} bytes"
    with httpx.Client(headers=TUS, timeout=30) as http:
        for witness in theatre.witnesses:
            yield from wrong_with(witness, theatre.stage, http)
    yield from eventually_none(lambda: list(wrong_callbacks(theatre)))
    yield from eventually_none(lambda: list(left_over(theatre)))


def eventually_none(look: Callable[[], list[str]]) -> list[str]:
    """Return what is still wrong after QUIET_S, nothing as soon as nothing is."""
    try:
        eventually(lambda: not look(), timeout_s=QUIET_S)
    except AssertionError:
        return look()
    return []


def wrong_with(witness: Witness, stage: Stage, http: httpx.Client) -> Iterator[str]:
    """Yield what is wrong with one upload's bytes and its answers, on every replica."""
    # A ledger that came back with older records knows of no termination since then; the files are gone all the same.
    is_known_again = witness.terminated_at is not None and stage.amnesia.since(witness.terminated_at) is not None
    for replica in stage.replicas:
        host, port = replica.address
        answer = http.head(f"http://{host}:{port}{PATH}{witness.upload_id}")
        if witness.terminated and not is_known_again and answer.status_code not in (404, 410):
            yield f"upload {witness.upload_id} was terminated, HEAD is {answer.status_code}"
        if witness.finished and answer.headers.get("Upload-Offset") != str(witness.planned.length):
            told = answer.headers.get("Upload-Offset")
            yield f"upload {witness.upload_id} was finished, HEAD is {answer.status_code} with offset {told}"
    if witness.finished:
        for wrong in witness.wrong_ranges():
            yield f"upload {witness.upload_id} ({witness.planned.manner}): {wrong}"
    if witness.terminated and witness.path.exists():
        yield f"upload {witness.upload_id} was terminated, its file is there"


def wrong_callbacks(theatre: Theatre) -> Iterator[str]:
    """Yield which finished uploads were not told as exactly one event, and which others were told."""
    heard = theatre.stage.receiver.heard()
    for witness in theatre.witnesses:
        due = int(witness.finished and not witness.is_partial)
        if due != heard[witness.upload_id]:
            yield f"upload {witness.upload_id}: {heard[witness.upload_id]} events instead of {due}"
    strangers = heard.keys() - {witness.upload_id for witness in theatre.witnesses}
    if strangers:
        yield f"events of uploads that no client has: {sorted(strangers)}"


def left_over(theatre: Theatre) -> Iterator[str]:
    """Yield which leases, events, files and descriptors are there that nobody needs."""
    stage = theatre.stage
    with redis.Redis.from_url(stage.redis.url, decode_responses=True) as client:
        for kind, count in (("events", client.xlen), ("due", client.zcard), ("deliveries", client.hlen)):
            if count(PREFIX + kind):
                yield f"{count(PREFIX + kind)} entries of {PREFIX}{kind}"
        if client.zcard(PREFIX + "buried"):
            yield f"{client.zcard(PREFIX + 'buried')} events were given up"
        for key in client.scan_iter(PREFIX + "upload:*"):
            if (left_ms := float(client.hget(key, "lease_until") or 0) - time.time() * 1000) > 0:
                yield f"{key} is held for another {left_ms:.0f} ms"
    for n, replica in enumerate(stage.replicas):
        if files := replica.uploads_open(stage.disk.folder):
            yield f"replica {n} has open {files}"
    kept = {one.upload_id for one in theatre.witnesses if not one.terminated and not one.has_vanished}
    ids = {file.name.partition(".")[0] for file in stage.disk.content.iterdir() if not file.name.startswith(".")}
    if missing := kept - ids:
        yield f"no files of {sorted(missing)}"
    if len(ids - kept) > theatre.unsure_creations:
        # Of an upload whose creation was not answered nobody knows the URL: it lies there until it expires.
        yield f"{len(ids - kept)} uploads of nobody, {theatre.unsure_creations} creations without an answer"
