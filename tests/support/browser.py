"""Chromium, a server for static pages, and a person who uses a page."""

import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.support.processes import eventually

MIB = 1024 * 1024
SLOW = 3 * MIB  # bytes per second for all requests together, so that a cut falls into the middle of a file
WAIT_MS = 20_000  # long, because many processes share two cores
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

T = TypeVar("T")


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Run a headless Chromium for the length of the with block."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    assert path, f"none of {', '.join(names)} is on PATH: these tests need Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    """A static server that prints nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder for the length of the with block; yield the URL, which is another origin than the uploads'."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


class Sent(NamedTuple):
    """A request that the page sent to the server."""

    method: str
    url: str
    offset: int  # Upload-Offset; 0 without one


class Person:
    """A person who uses a page, with the requests that the browser sends for them."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[Sent] = []
        self.faults: list[str] = []
        self._network = page.context.new_cdp_session(page)
        self._network.send("Network.enable")
        page.set_default_timeout(WAIT_MS)
        page.on("request", self._note)
        page.on("pageerror", lambda fault: self.faults.append(str(fault)))

    def _note(self, request: Request) -> None:
        if request.method in ("POST", "HEAD", "PATCH", "DELETE"):
            offset = int(request.headers.get("upload-offset", 0))
            self.requests.append(Sent(request.method, request.url, offset))

    def methods(self) -> list[str]:
        """Return the methods of the requests to the server, in order."""
        return [sent.method for sent in self.requests]

    def patched(self) -> list[str]:
        """Return the URLs of all PATCH requests, each once, in order."""
        return list(dict.fromkeys(sent.url for sent in self.requests if sent.method == "PATCH"))

    def latest(self) -> str:
        """Return the URL of the latest PATCH."""
        return next(sent.url for sent in reversed(self.requests) if sent.method == "PATCH")

    def limit(self, rate: int) -> None:
        """Limit the rate at which the browser sends, in bytes per second; -1 is no limit."""
        conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": rate}
        self._network.send("Network.emulateNetworkConditions", conditions)

    def press(self, button: str) -> None:
        """Press a button, once it is visible."""
        self.page.get_by_role("button", name=button, exact=True).click()

    def eventually(self, probe: Callable[[], T | Literal[False] | None]) -> T:
        """Call probe until it returns a true value, and return that; meanwhile the browser's events are handled."""

        def probe_it() -> T | Literal[False] | None:
            self.page.evaluate("0")
            return probe()

        return eventually(probe_it)


P = TypeVar("P", bound=Person)


@contextmanager
def at_page(browser: Browser, url: str, person: Callable[[Page], P]) -> Iterator[P]:
    """Open a page for the length of the with block, on a slow line and in a new browser profile; yield its user.

    It raises AssertionError at the end if the page had JavaScript errors.
    """
    context = browser.new_context()
    try:
        one = person(context.new_page())
        one.limit(SLOW)
        one.page.goto(url)
        yield one

        assert [] == one.faults
    finally:
        context.close()
