"""A wrong value ends the start with one line that says what is wrong and what would be right."""

import re
import socket
import sqlite3
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from tests.support.processes import environment
from tusd_py.settings import Settings, WrongSetting

SECRET = "whsec_" + "A" * 43 + "="


def run(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tusd_py", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--port", "99999", "a port from 0 to 65535"),
        ("--port", "http", "a whole number"),
        ("--workers", "0", "1 or more"),
        ("--max-size", "-1", "0 for no limit"),
        ("--max-size", "1GB", "a whole number"),
        ("--expire-after", "-5", "0 for never"),
        ("--durability", "maybe", "fsync or none"),
        ("--checkpoint-bytes", "1", "65536 or more"),
        ("--lease-ttl", "0.1", "1 second or more"),
        ("--lease-ttl", "nan", "at most 1000000000 seconds"),
        ("--expire-after", "inf", "at most 1000000000 seconds"),
        ("--read-timeout", "0", "more than 0 seconds"),
        ("--base-path", "files", "like /files/"),
        ("--redis-url", "http://x", "redis://"),
        ("--redis-url", "localhost:6379", "redis://"),
        ("--webhook-secret", "tooshort", "24 to 64 bytes in Base64"),
        ("--webhook-url", "http://127.0.0.1:9000/hooks", "--webhook-secret is missing"),
        ("--webhook-url", "ftp://x/", "an http(s) URL"),
        ("--behind-proxy", "300.1.1.1", "an address, a network, unix or *"),
        ("--upload-dir", "/proc/nowhere", "a writable folder"),
        ("--unix-socket", "/nowhere/socket", "cannot listen"),
        ("--file-locks", "maybe", "required or none"),
        ("--nonsense", "1", "No such option"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(flag: str, value: str, says: str) -> None:
    ended = run("serve", "--port", "0", flag, value)

    assert (2, 1) == (ended.returncode, len(ended.stderr.splitlines())), ended.stderr
    assert says in ended.stderr
    assert "" == ended.stdout


def test_a_wrong_variable_is_one_line_and_status_2() -> None:
    ended = run("serve", TUSD_PY_PORT="ftp")

    assert (2, 1) == (ended.returncode, len(ended.stderr.splitlines()))
    assert "--port is 'ftp'" in ended.stderr


def test_a_port_in_use_is_one_line_and_status_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run("serve", "--upload-dir", str(tmp_path), "--port", str(taken.getsockname()[1]))

    assert (2, 1) == (ended.returncode, len(ended.stderr.splitlines())), ended.stderr
    assert "cannot listen" in ended.stderr


def test_a_ledger_of_another_version_is_one_line_and_status_2(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / ".tusd_py.sqlite3") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    ended = run("serve", "--upload-dir", str(tmp_path), "--port", "0")

    assert (2, 1) == (ended.returncode, len(ended.stderr.splitlines())), ended.stderr
    assert "has records of version 99, this server knows up to 2" in ended.stderr


def test_the_secret_that_is_proposed_is_right() -> None:
    ended = run("serve", "--webhook-url", "http://127.0.0.1:9000/hooks")
    proposed = re.search(r"whsec_\S+$", ended.stderr.strip())

    assert proposed
    Settings(webhook_url=("http://127.0.0.1:9000/hooks",), webhook_secret=proposed[0])


def test_help_tells_every_flag_with_variable_unit_and_default() -> None:
    text = " ".join(run("serve", "--help").stdout.split())
    for one in fields(Settings):
        assert f"--{one.name.replace('_', '-')} {one.metadata['metavar']}" in text
        assert f"[TUSD_PY_{one.name.upper()}; default: " in text


def test_settings_survive_the_way_through_the_environment() -> None:
    """Worker processes get them so."""
    settings = Settings(
        port=0,
        upload_dir=Path("/a b/c"),
        expire_after=0.5,
        webhook_url=("http://a/", "http://b/"),
        webhook_secret=SECRET,
        behind_proxy=("unix", "10.0.0.0/8"),
    )

    assert settings == Settings.from_env(settings.to_env())
    assert Settings() == Settings.from_env({})


def test_the_folder_may_be_a_text_and_the_same_rules_hold_for_the_library() -> None:
    assert Settings(upload_dir=Path("/a")) == Settings(upload_dir="/a")  # type: ignore[arg-type]  # what callers do
    with pytest.raises(WrongSetting, match="--durability is perhaps, it must be fsync or none"):
        Settings(durability="perhaps")
