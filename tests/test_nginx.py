"""Two replicas behind a real nginx with the configuration of examples/nginx.conf."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import examples
from tests.support import tus
from tests.support.nginx import running_nginx, temporary_paths
from tests.support.processes import Server, eventually, free_port, running_server

MIB = 1024 * 1024


@pytest.fixture
def front(tmp_path: Path, redis_url: str) -> Iterator[tuple[str, Server, Server]]:
    """The root URL of nginx, and the two replicas behind it."""
    flags = ("--redis-url", redis_url, "--lease-ttl", "2")
    root = f"http://127.0.0.1:{free_port()}"
    text = (Path(examples.__file__).parent / "nginx.conf").read_text()
    text = text.replace("listen 8080", f"listen {root.removeprefix('http://')}")
    text = text.replace("http {", f"http {{ access_log off; {temporary_paths(tmp_path)}")
    with running_server(tmp_path, *flags) as a, running_server(tmp_path, *flags) as b:
        for name, server in (("tusd_py_1:1080", a), ("tusd_py_2:1080", b)):
            text = text.replace(name, server.url.removeprefix("http://").partition("/")[0])
        with running_nginx(tmp_path, text, root + "/files/"):
            yield root, a, b


def test_any_replica_takes_any_piece_behind_nginx(front: tuple[str, Server, Server], tmp_path: Path) -> None:
    """Round robin, no stickiness, no 413: 40 MiB in pieces that land on either side."""
    root, _, _ = front
    source = os.urandom(40 * MIB)
    with httpx.Client(timeout=30) as client:
        created = client.post(root + "/files/", headers={**tus.TUS, "Upload-Length": str(len(source))})
        # Relative: nginx forwards headers, and nobody said that it is to be believed.
        url = str(created.url.join(created.headers["Location"]))

        assert url.startswith(root + "/files/")

        for offset in range(0, len(source), 8 * MIB):
            piece = source[offset : offset + 8 * MIB]
            sent = client.patch(url, content=piece, headers={**tus.BYTES, "Upload-Offset": str(offset)})

            assert (204, str(offset + len(piece))) == (sent.status_code, sent.headers["Upload-Offset"])
            assert offset + len(piece) == tus.offset_of(url)
        stored = (tmp_path / "uploads" / tus.upload_id(url)).read_bytes()

        assert hashlib.sha256(source).digest() == hashlib.sha256(stored).digest()
        assert hashlib.sha256(source).digest() == hashlib.sha256(client.get(url).content).digest()


def test_a_replica_that_dies_is_replaced_by_the_other(front: tuple[str, Server, Server], tmp_path: Path) -> None:
    root, a, _ = front
    source = os.urandom(4 * MIB)
    url = root + "/files/" + tus.upload_id(tus.create(a.url, len(source)))
    with tus.half_sent(url, 0, len(source), source[:MIB]):
        eventually(lambda: MIB == tus.offset_of(url))
        a.kill()  # the holder or the bystander: nginx goes to the one that is left
        offset = eventually(lambda: (r := tus.head(url)).status_code == 200 and int(r.headers["Upload-Offset"]))

        assert MIB == offset
    assert (
        204 == eventually(lambda: (r := tus.patch(url, offset, source[offset:])).status_code == 204 and r).status_code
    )
    stored = (tmp_path / "uploads" / tus.upload_id(url)).read_bytes()

    assert hashlib.sha256(source).digest() == hashlib.sha256(stored).digest()


def test_location_is_right_behind_another_path(front: tuple[str, Server, Server], tmp_path: Path) -> None:
    """A second nginx maps /videos/up/ to our path, once as a bare proxy, once telling what it changed."""
    _, a, _ = front
    inner = a.url.removesuffix("/")
    told = "proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Forwarded-Host videos.example;"
    for extra in ("", told, "proxy_set_header Host $http_host;" + told):
        port = free_port()
        text = f"""
            events {{}}
            http {{ access_log off; {temporary_paths(tmp_path)} server {{ listen 127.0.0.1:{port};
                location /videos/up/ {{ proxy_pass {inner}/; {extra} }}
                location = /videos/up {{ proxy_pass {inner}; {extra} }} }} }}
        """
        with running_nginx(tmp_path, text, f"http://127.0.0.1:{port}/videos/up/") as creation_url:
            created = httpx.post(creation_url, headers={**tus.TUS, "Upload-Length": "3"})
            url = str(created.url.join(created.headers["Location"]))

            assert url.startswith(creation_url), (extra, created.headers["Location"])
            assert 204 == tus.patch(url, 0, b"abc").status_code


def test_forwarded_headers_are_believed_of_a_trusted_proxy(tmp_path: Path) -> None:
    with running_server(tmp_path, "--behind-proxy", "127.0.0.1") as server:
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "videos.example"}
        created = httpx.post(server.url, headers={**tus.TUS, "Upload-Length": "1", **headers})

        assert created.headers["Location"].startswith("https://videos.example/files/")
