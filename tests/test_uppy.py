"""Uppy as it is: its Dashboard in Chromium uploads to a real server, through pauses, kills and reloads."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser

from tests.support.browser import MIB, Person, at_page, serving
from tests.support.content import sha256, stored
from tests.support.node import CLIENTS
from tests.support.processes import Server, eventually, running_server
from tests.support.receiver import receiving
from tests.support.tus import head, offset_of, upload_id

SHORT_LEASE = ("--lease-ttl", "2")  # seconds that a killed server's upload stays locked
SECRET = ("--webhook-secret", "whsec_" + base64.b64encode(b"k" * 32).decode())
RETRY_DELAYS = [100, *[1000] * 30]  # milliseconds; Uppy's own end after 9 s, a server restart may take longer here


@pytest.fixture(scope="module")
def page_url(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the bundled page is served: another origin than the uploads."""
    site = tmp_path_factory.mktemp("uppy")
    shutil.copy(CLIENTS / "uppy" / "index.html", site)
    bundler = CLIENTS / "node_modules" / "esbuild" / "bin" / "esbuild"
    command = [
        node,
        str(bundler),
        "uppy/page.js",
        "--bundle",
        "--format=esm",
        f"--outdir={site}",
        "--log-level=warning",
    ]
    done = subprocess.run(command, cwd=CLIENTS, capture_output=True, text=True, timeout=100)
    assert (0, "") == (done.returncode, done.stderr), done.stderr
    with serving(site) as url:
        yield url


class Uploader(Person):
    """A person in front of the Dashboard."""

    def upload(self, *files: Path) -> None:
        """Choose the files in the file dialogue and press the button."""
        with self.page.expect_file_chooser() as dialogue:
            self.press("browse files")
        dialogue.value.set_files(list(files))
        self.press(f"Upload {len(files)} file{'s' * (len(files) > 1)}")

    def wait_for(self, title: str) -> None:
        """Wait until the status bar says this."""
        self.page.locator(f".uppy-StatusBar-content[title='{title}']").wait_for()

    def wait_for_some(self, count: int = 1) -> dict[str, int]:
        """Wait until the server has something of that many uploads and return the offsets by URL."""

        def some() -> dict[str, int] | None:
            offsets = {url: offset_of(url) for url in self.patched()}
            return offsets if count == len(offsets) and all(offsets.values()) else None

        return self.eventually(some)

    def finish(self, *files: Path) -> list[str]:
        """Wait for the end of the uploads, unhindered, and return the links of the files."""
        self.limit(-1)
        self.wait_for("Complete")
        links = [self.page.get_by_role("link", name=file.name) for file in files]
        return [link.get_attribute("href") or "" for link in links]


def at_the_dashboard(
    browser: Browser, page_url: str, server: Server, **options: object
) -> AbstractContextManager[Uploader]:
    """A person at the page for the length of the block."""
    query = urlencode({"endpoint": server.url, "options": json.dumps(options)})
    return at_page(browser, f"{page_url}?{query}", Uploader)


def make_files(folder: Path, *lengths: int) -> list[Path]:
    """Return new files of that many random bytes each."""
    files = [folder / f"lecture-{number}.bin" for number in range(1, len(lengths) + 1)]
    for file, length in zip(files, lengths, strict=True):
        file.write_bytes(os.urandom(length))
    return files


def test_two_files_arrive_whole(browser: Browser, page_url: str, tmp_path: Path) -> None:
    """Chosen together, uploaded at the same time; the Dashboard's links bring them, under their names."""
    files = make_files(tmp_path, 3 * MIB, 2 * MIB + 1)
    with running_server(tmp_path) as server, at_the_dashboard(browser, page_url, server) as person:
        person.upload(*files)
        urls = person.finish(*files)
        fetched = [httpx.get(url).raise_for_status() for url in urls]
    names = [reply.headers["Content-Disposition"] for reply in fetched]

    assert ["PATCH", "PATCH", "POST", "POST"] == sorted(person.methods())
    assert set(person.patched()) == set(urls)
    assert [sha256(file.read_bytes()) for file in files] == [stored(tmp_path, url) for url in urls]
    assert [file.read_bytes() for file in files] == [reply.content for reply in fetched]
    assert all(f'filename="{file.name}"' in name for file, name in zip(files, names, strict=True))


@pytest.mark.parametrize(("options", "parts"), [({}, 1), ({"parallelUploads": 3}, 3)], ids=["whole", "in parts"])
def test_pause_and_resume(options: dict[str, int], parts: int, browser: Browser, page_url: str, tmp_path: Path) -> None:
    """Pause stops the PATCHes; Resume asks where they were and goes on there."""
    files = make_files(tmp_path, 12 * MIB)
    with running_server(tmp_path) as server, at_the_dashboard(browser, page_url, server, **options) as person:
        person.upload(*files)
        person.wait_for_some(parts)
        person.press("Pause")
        person.wait_for("Paused")
        paused_at = {url: offset_of(url) for url in person.patched()}
        before = len(person.requests)
        person.press("Resume")
        [url] = person.finish(*files)
    after = person.requests[before:]
    resumed_at = {url: offset for method, url, offset in after if method == "PATCH"}

    assert ["HEAD"] * parts + ["PATCH"] * parts + ["POST"] * (parts > 1) == sorted(method for method, _, _ in after)
    assert set(paused_at) == set(resumed_at)
    assert all(0 < paused_at[url] <= resumed_at[url] < 12 * MIB // parts for url in paused_at)
    assert sha256(files[0].read_bytes()) == stored(tmp_path, url)


def test_a_killed_server_is_outlived(browser: Browser, page_url: str, tmp_path: Path) -> None:
    """kill -9 amid two uploads: Uppy tries again by itself, and both go on when a server is back."""
    files = make_files(tmp_path, 8 * MIB, 8 * MIB)
    with (
        running_server(tmp_path, *SHORT_LEASE) as server,
        at_the_dashboard(browser, page_url, server, retryDelays=RETRY_DELAYS) as person,
    ):
        person.upload(*files)
        cut_at = person.wait_for_some(2)
        server.kill()
        person.eventually(lambda: "HEAD" in person.methods())
        with running_server(tmp_path, *SHORT_LEASE, port=urlsplit(server.url).port or 0):
            urls = person.finish(*files)
    resumed_at = {url: offset for method, url, offset in person.requests if method == "PATCH"}

    assert 2 == person.methods().count("POST")
    assert set(cut_at) == set(urls)
    assert all(0 < cut_at[url] <= resumed_at[url] < 8 * MIB for url in urls)
    assert [sha256(file.read_bytes()) for file in files] == [stored(tmp_path, url) for url in urls]


def test_an_upload_goes_on_after_a_reload(browser: Browser, page_url: str, tmp_path: Path) -> None:
    """The same file, chosen again after a reload of the page, continues the upload."""
    files = make_files(tmp_path, 12 * MIB)
    with running_server(tmp_path) as server, at_the_dashboard(browser, page_url, server) as person:
        person.upload(*files)
        cut_at = person.wait_for_some()
        person.page.reload()
        before = len(person.requests)
        person.upload(*files)
        [url] = person.finish(*files)

    assert [url] == list(cut_at)
    assert ["HEAD", "PATCH"] == person.methods()[before:]
    assert 0 < cut_at[url] <= person.requests[-1][2] < 12 * MIB
    assert sha256(files[0].read_bytes()) == stored(tmp_path, url)


def test_cancel_removes_the_uploads(browser: Browser, page_url: str, tmp_path: Path) -> None:
    """Cancel amid two uploads leaves nothing of them on the server."""
    files = make_files(tmp_path, 8 * MIB, 8 * MIB)
    with running_server(tmp_path) as server, at_the_dashboard(browser, page_url, server) as person:
        person.upload(*files)
        urls = list(person.wait_for_some(2))
        person.page.get_by_title("Cancel", exact=True).click()
        person.eventually(lambda: [410, 410] == [head(url).status_code for url in urls])

    assert 2 == person.methods().count("DELETE")
    assert [] == [url for url in urls if (tmp_path / "uploads" / upload_id(url)).exists()]


def test_the_chunk_size_is_kept(browser: Browser, page_url: str, tmp_path: Path) -> None:
    """With chunkSize there is a PATCH for each chunk, one after the other."""
    files = make_files(tmp_path, 3 * MIB + 1)
    with running_server(tmp_path) as server, at_the_dashboard(browser, page_url, server, chunkSize=MIB) as person:
        person.upload(*files)
        [url] = person.finish(*files)

    assert [("POST", 0), *[("PATCH", number * MIB) for number in range(4)]] == [
        (method, offset) for method, _, offset in person.requests
    ]
    assert sha256(files[0].read_bytes()) == stored(tmp_path, url)


def test_a_file_in_parts_arrives_whole(browser: Browser, page_url: str, tmp_path: Path) -> None:
    """With parallelUploads the parts are uploaded at the same time, then concatenated."""
    files = make_files(tmp_path, 3 * MIB + 1)
    options = {"parallelUploads": 3, "chunkSize": MIB // 2}
    with running_server(tmp_path) as server, at_the_dashboard(browser, page_url, server, **options) as person:
        person.upload(*files)
        [url] = person.finish(*files)
        fetched = httpx.get(url).raise_for_status()
        concat = head(url).headers["Upload-Concat"]

    assert ["PATCH"] * 7 + ["POST"] * 4 == sorted(person.methods())
    assert "POST" == person.methods()[-1]
    assert {"final;", *person.patched()} == set(concat.replace(";", "; ").split())
    assert files[0].read_bytes() == fetched.content
    assert sha256(files[0].read_bytes()) == stored(tmp_path, url)


def test_headers_of_the_pages_own_pass_the_preflight(browser: Browser, page_url: str, tmp_path: Path) -> None:
    """What the headers option and addRequestId send from another origin arrives, as far as the callback."""
    files = make_files(tmp_path, 1000)
    options = {"headers": {"X-Course": "algebra"}, "addRequestId": True}
    with receiving() as receiver:
        with (
            running_server(tmp_path, "--webhook-url", receiver.url, *SECRET) as server,
            at_the_dashboard(browser, page_url, server, **options) as person,
        ):
            person.upload(*files)
            person.finish(*files)
            eventually(lambda: receiver.received, what="the callback")
        told = json.loads(receiver.received[0][1])["Event"]["HTTPRequest"]

    assert "PATCH" == told["Method"]
    assert ["algebra"] == told["Header"]["X-Course"]
    assert 1 == len(told["Header"]["X-Request-Id"])
