"""Clients that ask for an upgrade to HTTP/2 with every request: curl --http2, Java's HttpClient, both through nginx."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import tus
from tests.support.nginx import running_nginx, temporary_paths
from tests.support.processes import free_port, running_server

KIB = 1024
UPLOADS = int(os.environ.get("TUSD_PY_UPGRADE_UPLOADS", "20"))  # of each client; 500 is a long run
AT_ONCE = 4
JAVA = Path(__file__).parent / "clients" / "Upload.java"

WEBSOCKET_LINES = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where to upload, where it arrives, and what to send."""

    url: str
    uploads: Path
    source: Path

    def check(self, urls: list[str]) -> None:
        """Compare what is stored with the source."""
        wanted = hashlib.sha256(self.source.read_bytes()).hexdigest()
        for url in urls:
            assert self.source.stat().st_size == tus.offset_of(url)
            assert wanted == hashlib.sha256((self.uploads / tus.upload_id(url)).read_bytes()).hexdigest()


@pytest.fixture(params=["direct", "nginx"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(400 * KIB + 13))
    with running_server(tmp_path) as server:
        if request.param == "direct":
            yield Stage(url=server.url, uploads=tmp_path / "uploads", source=source)
            return
        port = free_port()
        text = f"""
            events {{}}
            http {{ access_log off; {temporary_paths(tmp_path)} server {{ listen 127.0.0.1:{port};
                client_max_body_size 0; proxy_request_buffering off; proxy_buffering off;
                location /files {{ proxy_pass {server.url.removesuffix("/files/")}; {WEBSOCKET_LINES} }} }} }}
        """
        with running_nginx(tmp_path, text, f"http://127.0.0.1:{port}/files/") as url:
            yield Stage(url=url, uploads=tmp_path / "uploads", source=source)


@pytest.mark.parametrize("extra", [(), ("-H", "Transfer-Encoding: chunked")], ids=["length", "chunked"])
def test_curl_http2(stage: Stage, extra: tuple[str, ...]) -> None:
    def upload(_: int) -> str:
        path = tus.upload_id(tus.create(stage.url, stage.source.stat().st_size))
        subprocess.run(
            [
                *("curl", "-sS", "--fail", "--http2", "-X", "PATCH", stage.url + path, *extra),
                *("-H", "Tus-Resumable: 1.0.0", "-H", "Content-Type: application/offset+octet-stream"),
                *("-H", "Upload-Offset: 0", "--data-binary", f"@{stage.source}"),
            ],
            check=True,
            timeout=60,
        )
        return stage.url + path

    with ThreadPoolExecutor(AT_ONCE) as pool:
        urls = list(pool.map(upload, range(UPLOADS)))

    assert UPLOADS == len(set(urls))
    stage.check(urls)


def test_java_http_client(stage: Stage) -> None:
    """Half of each upload with a Content-Length, half of it chunked."""
    ran = subprocess.run(
        ["java", str(JAVA), stage.url, str(stage.source), str(UPLOADS), str(AT_ONCE)],
        check=True,
        timeout=110,
        capture_output=True,
        text=True,
    )
    urls = ran.stdout.split()

    assert UPLOADS == len(set(urls))
    stage.check(urls)
