"""Node and the JavaScript clients in tests/clients."""

import shutil
import subprocess
from pathlib import Path

CLIENTS = Path(__file__).parent.parent / "clients"


def program(name: str) -> str:
    """Return the path of a program. Raises AssertionError if it is missing."""
    path = shutil.which(name)
    assert path, f"{name} is not on PATH: these tests need Node 18 or newer, with npm"
    return path


def install_clients() -> None:
    """Install the clients' packages from package-lock.json, unless that is done already."""
    installed = CLIENTS / "node_modules" / ".package-lock.json"
    wanted = CLIENTS / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
        command = [program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=CLIENTS, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, f"npm ci failed in {CLIENTS}: {done.stderr}"
