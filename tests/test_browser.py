"""People's way in: Chromium drives the page of examples/browser against a real server."""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Route

from tests.support.browser import MIB, Person, at_page, serving
from tests.support.content import sha256, stored
from tests.support.processes import Server, running_server
from tests.support.tus import head, offset_of

EXAMPLE = Path(__file__).parent.parent / "examples" / "browser"
LENGTH = 12 * MIB  # four seconds behind the slow line
SHORT_LEASE = ("--lease-ttl", "2")  # seconds that a killed server's upload stays locked


@pytest.fixture(scope="module")
def page_url() -> Iterator[str]:
    """Where the page is served: another origin than the uploads."""
    with serving(EXAMPLE) as url:
        yield url


class Uploader(Person):
    """A person in front of the page of examples/browser."""

    def choose(self, file: Path) -> None:
        """Choose the file in the file dialogue."""
        self.page.get_by_label("Choose a file or drop it here").set_input_files(file)

    def says(self) -> str:
        """Return the message that is shown."""
        return self.page.get_by_role("status").inner_text()

    def wait_until(self, state: str) -> None:
        """Wait for a state of the page."""
        self.page.locator(f"body[data-state={state}]").wait_for()

    def wait_for_message(self, text: str) -> None:
        """Wait until the message has this in it."""
        self.page.get_by_role("status").filter(has_text=text).wait_for()

    def wait_for_some(self) -> int:
        """Wait until the server has some of the file, not all, and return how much."""
        self.page.wait_for_function("document.querySelector('progress').value > 0.2")
        return self.eventually(lambda: offset_of(self.latest()))

    def finish(self) -> str:
        """Wait for the end of the upload, unhindered, and return the link."""
        self.limit(-1)
        self.wait_until("finished")
        return self.page.get_by_role("link", name="Open the file").get_attribute("href") or ""


def at_the_page(browser: Browser, page_url: str, server: Server, query: str = "") -> AbstractContextManager[Uploader]:
    """A person at the page for the length of the block."""
    return at_page(browser, f"{page_url}?endpoint={server.url}{query}", Uploader)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of random bytes."""
    file = tmp_path / "lecture.bin"
    file.write_bytes(os.urandom(LENGTH))
    return file


def test_an_upload_shows_progress_and_ends_with_a_link(
    browser: Browser, page_url: str, tmp_path: Path, file: Path
) -> None:
    """Speed and time left while it runs; the link brings the bytes that were chosen."""
    with running_server(tmp_path) as server, at_the_page(browser, page_url, server) as person:
        person.choose(file)
        person.page.locator("#pace", has_text="left").wait_for()
        figures = person.page.locator(".figures").inner_text()
        url = person.finish()
        message = person.says()
        remembered = person.page.evaluate("localStorage.length")
        with person.page.expect_download() as download:
            person.page.get_by_role("link", name="Open the file").click()
        fetched = sha256(download.value.path().read_bytes())

    assert re.search(r"\d+ % · [\d.]+ MB of 12\.6 MB\s+[\d.]+ MB/s · \d+ s left", figures)
    assert "lecture.bin is uploaded." == message
    assert 0 == remembered
    assert "lecture.bin" == download.value.suggested_filename
    assert ["POST", "PATCH"] == person.methods()
    assert sha256(file.read_bytes()) == stored(tmp_path, url) == fetched


def test_pause_and_resume_with_the_keyboard(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """Tab and Enter are enough: the focus goes from the file to Pause to Resume, which goes on where it stopped."""
    with running_server(tmp_path) as server, at_the_page(browser, page_url, server) as person:
        person.page.keyboard.press("Tab")
        person.choose(file)
        person.wait_for_some()
        person.page.keyboard.press("Enter")
        person.wait_until("paused")
        paused_at = offset_of(person.latest())
        person.page.keyboard.press("Enter")
        url = person.finish()

    assert 0 < paused_at < LENGTH
    assert ["POST", "PATCH", "HEAD", "PATCH"] == person.methods()
    assert paused_at <= person.requests[-1].offset < LENGTH
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_an_upload_goes_on_after_a_reload(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """After a reload the page tells of the unfinished upload; the same file, chosen again, continues it."""
    with running_server(tmp_path) as server, at_the_page(browser, page_url, server) as person:
        person.choose(file)
        cut_at = person.wait_for_some()
        first = person.latest()
        person.page.reload()
        hint = person.page.get_by_role("listitem").inner_text()
        before = len(person.requests)
        person.choose(file)
        person.press("Continue")
        url = person.finish()

    assert 0 < cut_at < LENGTH
    assert "Unfinished: lecture.bin" in hint
    assert first == url
    assert ["HEAD", "PATCH"] == person.methods()[before:]
    assert cut_at <= person.requests[-1].offset < LENGTH
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_start_over_replaces_the_unfinished_upload(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """Whoever does not want to continue gets a new upload; the old one is removed from the server."""
    with running_server(tmp_path) as server, at_the_page(browser, page_url, server) as person:
        person.choose(file)
        person.wait_for_some()
        first = person.latest()
        person.page.reload()
        person.choose(file)
        person.press("Start over")
        url = person.finish()
        person.eventually(lambda: head(first).status_code == 410)

    assert first != url
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_an_unfinished_upload_can_be_discarded(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """Discard removes it from the server and from the page."""
    with running_server(tmp_path) as server, at_the_page(browser, page_url, server) as person:
        person.choose(file)
        person.wait_for_some()
        person.page.reload()
        person.press("Discard the unfinished upload of lecture.bin")
        person.wait_for_message("Discarded.")
        person.page.get_by_role("listitem").wait_for(state="detached")
        status = head(person.latest()).status_code

    assert 410 == status


def test_cancel_removes_the_upload(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """Cancel in mid-upload leaves nothing on the server."""
    with running_server(tmp_path) as server, at_the_page(browser, page_url, server) as person:
        person.choose(file)
        person.wait_for_some()
        person.press("Cancel")
        person.eventually(lambda: head(person.latest()).status_code == 410)
        message = person.says()

    assert "Cancelled." == message


def test_a_killed_server_is_outlived(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """kill -9 in mid-upload: the page says so, tries again by itself, and continues when a server is back."""
    with running_server(tmp_path, *SHORT_LEASE) as server, at_the_page(browser, page_url, server) as person:
        person.choose(file)
        cut_at = person.wait_for_some()
        server.kill()
        person.wait_for_message("The connection to the server is lost. Trying again")
        with running_server(tmp_path, *SHORT_LEASE, port=urlsplit(server.url).port or 0):
            url = person.finish()

    assert 0 < cut_at < LENGTH
    assert 1 == person.methods().count("POST")
    assert cut_at <= person.requests[-1].offset < LENGTH
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_a_bad_gateway_does_not_end_an_upload(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """A proxy that answers HEAD with 502 while its server restarts does not make the page begin anew."""
    answers = [502, 502]

    def proxy(route: Route) -> None:
        if route.request.method == "HEAD" and answers:
            route.fulfill(status=answers.pop(), headers={"Access-Control-Allow-Origin": "*"})
        else:
            route.fallback()

    with running_server(tmp_path) as server, at_the_page(browser, page_url, server) as person:
        person.choose(file)
        person.wait_for_some()
        person.press("Pause")
        person.page.route(person.latest(), proxy)
        person.press("Resume")
        person.wait_for_message("The server cannot accept the upload now (502).")
        url = person.finish()

    assert [] == answers
    assert 1 == person.methods().count("POST")
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_a_silent_connection_is_given_up(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """When nothing moves for half a minute the page drops the request, asks anew, and continues."""
    with running_server(tmp_path) as server, at_the_page(browser, page_url, server) as person:
        person.page.clock.install()
        person.page.reload()
        person.choose(file)
        cut_at = person.wait_for_some()
        server.freeze()
        person.page.clock.fast_forward(31_000)
        person.wait_for_message("Trying again.")
        server.thaw()
        url = person.finish()

    assert ["POST", "PATCH", "HEAD", "PATCH"] == person.methods()
    assert cut_at <= person.requests[-1].offset < LENGTH
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_an_expired_upload_starts_anew(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """A pause that was too long: the page says that the upload has expired, and uploads from the start."""
    with (
        running_server(tmp_path, "--expire-after", "3") as server,
        at_the_page(browser, page_url, server) as person,
    ):
        person.choose(file)
        person.wait_for_some()
        first = person.latest()
        person.press("Pause")
        person.eventually(lambda: head(first).status_code == 410)
        person.press("Resume")
        person.wait_for_message("The unfinished upload has expired on the server. Uploading from the start.")
        url = person.finish()

    assert first != url
    assert 2 == person.methods().count("POST")
    assert sha256(file.read_bytes()) == stored(tmp_path, url)


def test_a_refused_upload_tells_why(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """The server's own words are shown, and nothing is tried again."""
    with (
        running_server(tmp_path, "--max-size", "1000") as server,
        at_the_page(browser, page_url, server) as person,
    ):
        person.choose(file)
        person.wait_until("failed")
        message = person.says()

    assert message.startswith("The server refused the upload (413): ")
    assert "1000" in message
    assert ["POST"] == person.methods()


def test_a_file_that_changes_meanwhile_is_told(browser: Browser, page_url: str, tmp_path: Path, file: Path) -> None:
    """Chromium reports it as a broken connection; the page looks at the file and says what it is."""
    with running_server(tmp_path) as server, at_the_page(browser, page_url, server) as person:
        person.choose(file)
        person.wait_for_some()
        person.press("Pause")
        file.write_bytes(b"another text")
        person.press("Resume")
        person.wait_for_message("The file has changed or is gone on this device.")

    assert 1 == person.methods().count("POST")


def test_a_dropped_file_is_uploaded_in_chunks(browser: Browser, page_url: str, tmp_path: Path) -> None:
    """Dropping is choosing; ?chunkSize= makes requests that a proxy with a limit lets pass."""
    with (
        running_server(tmp_path) as server,
        at_the_page(browser, page_url, server, "&chunkSize=1000") as person,
    ):
        dropped = person.page.evaluate_handle("""() => {
            const transfer = new DataTransfer()
            transfer.items.add(new File(['x'.repeat(2500)], 'note.txt', { type: 'text/plain' }))
            return transfer
        }""")
        person.page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
        url = person.finish()
        fetched = httpx.get(url)

    assert [("POST", 0), ("PATCH", 0), ("PATCH", 1000), ("PATCH", 2000)] == [
        (sent.method, sent.offset) for sent in person.requests
    ]
    assert "x" * 2500 == fetched.text
    assert "note.txt" in fetched.headers["content-disposition"]


def test_the_server_is_a_field_without_a_parameter(browser: Browser, page_url: str, tmp_path: Path) -> None:
    """Without ?endpoint= the page proposes port 1080 of its own host, and takes another server."""
    small = tmp_path / "small.bin"
    small.write_bytes(b"small")
    with running_server(tmp_path) as server, at_the_page(browser, page_url, server) as person:
        person.page.goto(page_url)
        field = person.page.get_by_label("Server")
        proposed = field.input_value()
        field.fill(server.url)
        person.choose(small)
        url = person.finish()

    assert "http://127.0.0.1:1080/files/" == proposed
    assert url.startswith(server.url)
    assert sha256(small.read_bytes()) == stored(tmp_path, url)


def test_the_vendored_client_is_the_one_its_notice_names() -> None:
    """The file in vendor/ has the SHA-256 that stands beside it, and that is all that stands there."""
    notice = (EXAMPLE / "vendor" / "NOTICE.md").read_text()

    assert sha256((EXAMPLE / "vendor" / "tus.min.js").read_bytes()) in notice
    assert ["LICENSE", "NOTICE.md", "tus.min.js"] == sorted(path.name for path in (EXAMPLE / "vendor").iterdir())
