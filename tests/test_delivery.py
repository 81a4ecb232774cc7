"""Callbacks: signed as the standard says, told until they are heard, by whoever is alive."""

import base64
import json
import os
from pathlib import Path

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from tests.support import tus
from tests.support.processes import eventually, free_port, running_server
from tests.support.receiver import receiving
from tusd_py.delivery import retry_after, sign

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def test_sign_gives_the_standards_own_example() -> None:
    """From the specification's symmetric example: same secret, id, timestamp and body, same signature."""
    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}'
    )


@pytest.mark.parametrize(
    ("attempt", "least", "most"), [(1, 1, 2), (2, 2, 4), (5, 16, 32), (12, 1800, 3600), (1000, 1800, 3600)]
)
def test_pauses_grow_to_an_hour_and_never_fall_together(attempt: int, least: float, most: float) -> None:
    assert (least, most) == (retry_after(attempt, 0.0), retry_after(attempt, 1.0))


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
def test_a_finished_upload_is_told_once_signed_as_tusds_hook(backend: str, tmp_path: Path, redis_url: str) -> None:
    with receiving() as receiver:
        flags = ["--webhook-url", receiver.url, "--webhook-secret", SECRET]
        if backend == "redis":
            flags += ["--redis-url", redis_url]
        with running_server(tmp_path, *flags) as server:
            url = tus.create(server.url, 5, filename="a.mp4")
            tus.patch(url, 0, b"01234")
            eventually(lambda: receiver.received)
        headers, body = receiver.received[0]
        told = Webhook(SECRET).verify(body, headers)

        assert "application/json" == headers["content-type"]
        assert f"post-finish-{tus.upload_id(url)}" == headers["webhook-id"]
        assert "post-finish" == told["Type"]

        upload = told["Event"]["Upload"]

        assert (tus.upload_id(url), 5, 5, {"filename": "a.mp4"}) == (
            upload["ID"],
            upload["Size"],
            upload["Offset"],
            upload["MetaData"],
        )
        assert b"01234" == Path(upload["Storage"]["Path"]).read_bytes()

        request = told["Event"]["HTTPRequest"]

        assert ("PATCH", f"/files/{tus.upload_id(url)}") == (request["Method"], request["URI"])
        assert ["5"] == request["Header"]["Content-Length"]
        assert 1 == len(receiver.received)


def test_an_event_is_told_again_until_it_is_heard_under_the_same_id(tmp_path: Path) -> None:
    with receiving() as receiver:
        receiver.answers = [500, 302]
        with running_server(tmp_path, "--webhook-url", receiver.url, "--webhook-secret", SECRET) as server:
            tus.create(server.url, 0)
            eventually(lambda: len(receiver.received) == 3)

        assert 1 == len(set(receiver.ids()))


def test_only_who_has_not_heard_is_told_again(tmp_path: Path) -> None:
    with receiving() as good, receiving() as bad:
        bad.answers = [503]
        urls = ("--webhook-url", good.url, "--webhook-url", bad.url)
        with running_server(tmp_path, *urls, "--webhook-secret", SECRET) as server:
            tus.create(server.url, 0)
            eventually(lambda: len(bad.received) == 2)

        assert (1, good.ids()[0]) == (len(good.received), bad.ids()[0])


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
def test_an_event_survives_the_death_of_server_and_receiver(backend: str, tmp_path: Path, redis_url: str) -> None:
    """Born with the last byte: kill -9 between "complete" and "told" loses nothing."""
    nowhere = f"http://127.0.0.1:{free_port()}/hooks"
    flags = ["--redis-url", redis_url] if backend == "redis" else []
    secret = ("--webhook-secret", SECRET, "--webhook-timeout", "1")
    with running_server(tmp_path, *flags, "--webhook-url", nowhere, *secret) as server:
        url = tus.create(server.url, 3)
        tus.patch(url, 0, b"abc")
        server.kill()
    with receiving() as receiver, running_server(tmp_path, *flags, "--webhook-url", receiver.url, *secret):
        # The first worker's claim has to run out before another tells it, unless it was postponed already.
        eventually(lambda: receiver.received, timeout_s=60)

    assert {f"post-finish-{tus.upload_id(url)}"} == set(receiver.ids())


def test_what_cannot_be_told_is_buried_with_its_reason(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/hooks"
    flags = ("--webhook-url", nowhere, "--webhook-secret", SECRET, "--webhook-give-up-after", "0.1")
    with running_server(tmp_path, *flags) as server:
        tus.create(server.url, 0)
        eventually(lambda: "buried" in server.log.read_text())

        assert "ConnectError" in server.log.read_text()


def test_many_uploads_at_once_are_all_told(tmp_path: Path) -> None:
    with receiving() as receiver:
        flags = ("--webhook-url", receiver.url, "--webhook-secret", SECRET, "--workers", "2")
        with running_server(tmp_path, *flags) as server:
            with httpx.Client() as client:
                made = {
                    client.post(server.url, content=os.urandom(9), headers={**tus.BYTES, "Upload-Length": "9"}).headers[
                        "Location"
                    ]
                    for _ in range(60)
                }
            eventually(lambda: len(set(receiver.ids())) == 60)

        assert {f"post-finish-{tus.upload_id(url)}" for url in made} == set(receiver.ids())
        assert all(json.loads(body)["Type"] == "post-finish" for _, body in receiver.received)


def test_a_concatenation_is_told_its_parts_are_not(tmp_path: Path) -> None:
    with receiving() as receiver:
        with running_server(tmp_path, "--webhook-url", receiver.url, "--webhook-secret", SECRET) as server:
            headers = {**tus.BYTES, "Upload-Concat": "partial", "Upload-Length": "5"}
            parts = [httpx.post(server.url, content=b"01234", headers=headers).headers["Location"] for _ in range(2)]
            final = httpx.post(server.url, headers={**tus.TUS, "Upload-Concat": f"final;{' '.join(parts)}"})
            eventually(lambda: receiver.received)
        told = json.loads(receiver.received[0][1])["Event"]["Upload"]

        assert [f"post-finish-{tus.upload_id(final.headers['Location'])}"] == receiver.ids()
        assert (10, True, [tus.upload_id(part) for part in parts]) == (
            told["Size"],
            told["IsFinal"],
            told["PartialUploads"],
        )
