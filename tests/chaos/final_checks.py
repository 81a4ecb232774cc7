"""Compares what was acknowledged with what is stored, after everything is repaired and all clients are done."""

import time
from collections.abc import Callable, Iterator

import httpx
import redis

from tests.chaos.deployment import Deployment
from tests.chaos.harness import PATH, Harness
from tests.chaos.ledger import PREFIX
from tests.chaos.tracking import TrackedUpload
from tests.support.processes import eventually
from tests.support.tus import TUS

QUIET_S = 60.0  # for callbacks to be tried again, leases to expire and left-over files to be removed


def check_all(harness: Harness) -> None:
    """Record every problem that is left at the end, and count the uploads by their outcome."""
    figures, uploads = harness.figures, harness.uploads
    for problem in find_problems(harness):
        figures.add_violation(problem)
    figures.count("uploads finished", sum(one.finished and not one.is_partial for one in uploads))
    figures.count("partial uploads finished", sum(one.finished and one.is_partial for one in uploads))
    figures.count("uploads terminated", sum(one.terminated for one in uploads))
    figures.count("bytes kept", sum(one.acknowledged for one in uploads))
    for log in harness.deployment.tracebacks():
        figures.add_violation(f"a traceback in {log}")


def find_problems(harness: Harness) -> Iterator[str]:
    """Yield every problem as a sentence."""
    for upload in harness.unfinished():
        yield f"upload {upload.upload_id} is stuck at {upload.acknowledged} of {upload.planned.length} bytes"
    with httpx.Client(headers=TUS, timeout=30) as http:
        for upload in harness.uploads:
            yield from upload_problems(upload, harness.deployment, http)
    yield from problems_that_stay(lambda: list(callback_problems(harness)))
    yield from problems_that_stay(lambda: list(leftovers(harness)))


def problems_that_stay(find: Callable[[], list[str]]) -> list[str]:
    """Return the problems that are left after QUIET_S; return early once there are none."""
    try:
        eventually(lambda: not find(), timeout_s=QUIET_S)
    except AssertionError:
        return find()
    return []


def upload_problems(upload: TrackedUpload, deployment: Deployment, http: httpx.Client) -> Iterator[str]:
    """Yield the problems of one upload: the answers of every replica, and its bytes."""
    # A ledger that was restored from an older copy has lost a later termination; the files are removed all the same.
    is_known_again = upload.terminated_at is not None and deployment.losses.since(upload.terminated_at) is not None
    for replica in deployment.replicas:
        host, port = replica.address
        answer = http.head(f"http://{host}:{port}{PATH}{upload.upload_id}")
        if upload.terminated and not is_known_again and answer.status_code not in (404, 410):
            yield f"upload {upload.upload_id} was terminated, HEAD is {answer.status_code}"
        if upload.finished and answer.headers.get("Upload-Offset") != str(upload.planned.length):
            offset = answer.headers.get("Upload-Offset")
            yield f"upload {upload.upload_id} was finished, HEAD is {answer.status_code} with offset {offset}"
    if upload.finished:
        for problem in upload.wrong_ranges():
            yield f"upload {upload.upload_id} ({upload.planned.manner}): {problem}"
    if upload.terminated and upload.path.exists():
        yield f"upload {upload.upload_id} was terminated, but its file is still there"


def callback_problems(harness: Harness) -> Iterator[str]:
    """Yield the uploads with another number of events than expected: one if finished and not partial, else none."""
    events = harness.deployment.receiver.events()
    for upload in harness.uploads:
        due = int(upload.finished and not upload.is_partial)
        if due != events[upload.upload_id]:
            yield f"upload {upload.upload_id}: {events[upload.upload_id]} events instead of {due}"
    unknown = events.keys() - {upload.upload_id for upload in harness.uploads}
    if unknown:
        yield f"events of uploads that no client has: {sorted(unknown)}"


def leftovers(harness: Harness) -> Iterator[str]:
    """Yield the leases, events, files and descriptors that are left but not needed."""
    deployment = harness.deployment
    with redis.Redis.from_url(deployment.redis.url, decode_responses=True) as client:
        for kind, count in (("events", client.xlen), ("due", client.zcard), ("deliveries", client.hlen)):
            if count(PREFIX + kind):
                yield f"{count(PREFIX + kind)} entries of {PREFIX}{kind}"
        if client.zcard(PREFIX + "buried"):
            yield f"{client.zcard(PREFIX + 'buried')} events are buried"
        for key in client.scan_iter(PREFIX + "upload:*"):
            if (left_ms := float(client.hget(key, "lease_until") or 0) - time.time() * 1000) > 0:
                yield f"{key} is held for another {left_ms:.0f} ms"
    for n, replica in enumerate(deployment.replicas):
        if files := replica.open_files(deployment.disk.folder):
            yield f"replica {n} has open {files}"
    kept = {one.upload_id for one in harness.uploads if not one.terminated and not one.has_vanished}
    ids = {file.name.partition(".")[0] for file in deployment.disk.content.iterdir() if not file.name.startswith(".")}
    if missing := kept - ids:
        yield f"no files of {sorted(missing)}"
    if len(ids - kept) > harness.unsure_creations:
        # No client knows the URL of an upload whose creation was not answered: its files stay until it expires.
        yield f"{len(ids - kept)} uploads that no client has, {harness.unsure_creations} creations without an answer"
