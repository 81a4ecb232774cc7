"""A real nginx."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.processes import end, eventually


def temporary_paths(folder: Path) -> str:
    """Return the directives that keep nginx's temporary files in a folder."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)


@contextmanager
def running_nginx(folder: Path, text: str, url: str) -> Iterator[str]:
    """Run nginx with a configuration for the length of the with block, which begins when it answers at url."""
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    assert nginx, "nginx is missing: apt-get install nginx-light"
    config = folder / f"nginx-{time.monotonic_ns()}.conf"
    config.write_text(f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n{text}")
    process = subprocess.Popen([nginx, "-c", str(config), "-p", str(folder)], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: answers(url), what="nginx answers")
        yield url
    finally:
        end(process)


def answers(url: str) -> bool:
    """Return whether a tus server answers at url."""
    try:
        return httpx.options(url).status_code == 204
    except httpx.HTTPError:
        return False
