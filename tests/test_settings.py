"""A wrong value ends the start with one line that says what is wrong and what would be right."""

import math
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import readme
from tests.support.processes import environment
from tusd_py.settings import SETTINGS, Settings, WrongSetting, flag, variable

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
        ("--port", "99999", "0<=x<=65535"),
        ("--port", "http", "not a valid integer"),
        ("--workers", "0", "x>=1"),
        ("--max-size", "-1", "x>=0"),
        ("--max-size", "1GB", "not a valid integer"),
        ("--max-size", "9" * 5000, "not a valid integer"),
        ("--expire-after", "-5", "0<=x<=1000000000"),
        ("--durability", "maybe", "'fsync', 'none'"),
        ("--checkpoint-bytes", "1", "x>=65536"),
        ("--lease-ttl", "0.1", "1<=x<=1000000000"),
        ("--lease-ttl", "nan", "a number of seconds, 1 to 1000000000"),
        ("--expire-after", "inf", "0<=x<=1000000000"),
        ("--read-timeout", "0", "0<x<=1000000000"),
        ("--host", "", "an address or a host name"),
        ("--host", "a" * 64 + ".example", "cannot listen"),
        ("--base-path", "files", "like /files/"),
        ("--base-path", "/{files}/", "like /files/"),
        ("--redis-prefix", "a b", "1 to 64 letters, digits and _ . : -"),
        ("--redis-url", "http://x", "redis://"),
        ("--redis-url", "localhost:6379", "redis://"),
        ("--redis-url", "redis://localhost:port/0", "redis://"),
        ("--redis-url", "redis://[::1/0", "redis://"),
        ("--redis-url", "redis://localhost/zero", "redis://"),
        ("--redis-url", "redis+sentinel://localhost:26379", "redis+sentinel://HOST/NAME"),
        ("--redis-url", "redis+cluster://localhost:6379,localhost:port", "redis+cluster://HOST"),
        ("--webhook-secret", "tooshort", "24 to 64 bytes in Base64"),
        ("--webhook-url", "http://127.0.0.1:9000/hooks", "--webhook-secret is missing"),
        ("--webhook-url", "ftp://x/", "an http(s) URL"),
        ("--webhook-url", "http://x:port/", "an http(s) URL"),
        ("--cors-origin", "https://a.example/", "an origin like https://example.org"),
        ("--behind-proxy", "300.1.1.1", "an address, a network, unix or *"),
        ("--upload-dir", "/proc/nowhere", "a writable folder"),
        ("--unix-socket", "/nowhere/socket", "cannot listen"),
        ("--file-locks", "maybe", "'required', 'none'"),
        ("--nonsense", "1", "No such option"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(flag: str, value: str, says: str, tmp_path: Path) -> None:
    ended = run("serve", "--port", "0", "--upload-dir", str(tmp_path), flag, value)

    assert (2, 1) == (ended.returncode, len(ended.stderr.splitlines())), ended.stderr
    assert says in ended.stderr
    assert "" == ended.stdout


@pytest.mark.parametrize("name", ["TUSD_PY_PORT", "TUSD_PY_DURABILITY", "TUSD_PY_GRACE", "TUSD_PY_BASE_PATH"])
def test_a_wrong_variable_is_named_on_one_line(name: str) -> None:
    ended = run("serve", **{name: "ftp"})

    assert (2, 1) == (ended.returncode, len(ended.stderr.splitlines()))
    assert name in ended.stderr
    assert "'ftp'" in ended.stderr
    with pytest.raises(WrongSetting, match=f"^{name} is 'ftp', it must be "):
        Settings.from_env({name: "ftp"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("redis_url", "http://user:hunter2@redis.example/0"),
        ("redis_url", "redis://user:hunter2@redis.example:port/0"),
        ("webhook_url", "ftp://user:hunter2@receiver.example/"),
        ("webhook_secret", "whsec_hunter2"),
    ],
)
def test_a_secret_is_never_printed(name: str, value: str) -> None:
    """Not even where it is wrong: a password in it may be the right one."""
    given: tuple[str, ...] | str = (value,) if name == "webhook_url" else value

    for ended in (run("serve", flag(name), value), run("serve", **{variable(name): value})):
        assert 2 == ended.returncode
        assert flag(name) in ended.stderr
        assert "hunter2" not in ended.stderr
    with pytest.raises(WrongSetting) as raised:
        Settings.of({name: given})
    assert "hunter2" not in str(raised.value)
    with pytest.raises(WrongSetting, match=variable(name)) as raised:
        Settings.from_env({variable(name): value})
    assert "hunter2" not in str(raised.value)


def test_the_secrets_are_not_in_the_text_of_the_settings() -> None:
    text = repr(Settings(webhook_url=("http://u:hunter2@a/",), webhook_secret=SECRET, redis_url="redis://:hunter2@a/0"))

    assert "hunter2" not in text
    assert SECRET not in text
    assert "port=1080" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "1080"),
        ("port", 1080.0),
        ("port", True),
        ("max_size", None),
        ("max_size", 1e9),
        ("grace", "5"),
        ("grace", False),
        ("grace", None),
        ("grace", math.nan),
        ("grace", math.inf),
        ("grace", -math.inf),
        ("grace", 10**400),
        ("host", None),
        ("host", b"127.0.0.1"),
        ("host", "127.0.0.1\0"),
        ("durability", True),
        ("durability", ["fsync"]),
        ("upload_dir", 5),
        ("upload_dir", b"/uploads"),
        ("upload_dir", "/a\0b"),
        ("cors_origin", "*"),
        ("cors_origin", ["*"]),
        ("cors_origin", (None,)),
        ("cors_origin", ("https://a.example https://b.example",)),
        ("behind_proxy", ("",)),
        ("webhook_url", "http://a/"),
        ("webhook_secret", None),
        ("redis_url", None),
    ],
)
def test_a_value_of_a_wrong_type_is_a_wrong_setting(name: str, value: object) -> None:
    """Whoever uses the library gets one line that names the setting, not a TypeError from somewhere inside."""
    with pytest.raises(WrongSetting, match=f"^{flag(name)} .*must be ") as raised:
        Settings.of({name: value})

    assert 1 == len(str(raised.value).splitlines())


def test_a_whole_number_of_seconds_is_one_too() -> None:
    assert Settings(grace=2.0) == Settings(grace=2)


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


def test_help_shows_every_flag_with_variable_default_and_range() -> None:
    text = " ".join(run("serve", "--help").stdout.split())
    for name, one in SETTINGS.items():
        assert f"{flag(name)} {one.metavar} {one.help} [env var: {variable(name)}" in text
    assert "[env var: TUSD_PY_PORT; default: 1080; 0<=x<=65535]" in text
    assert "[env var: TUSD_PY_GRACE; default: 5; 0<=x<=1000000000]" in text
    assert "[env var: TUSD_PY_CORS_ORIGIN; default: *]" in text


def test_the_table_in_the_readme_is_that_of_the_code() -> None:
    assert readme.table() == readme.table_in(readme.README.read_text()), "run: python -m tests.support.readme"


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
    assert Settings() == Settings.from_env(Settings().to_env())
    assert () == Settings.from_env(Settings(cors_origin=()).to_env()).cors_origin


def test_the_folder_may_be_a_text_and_the_same_rules_hold_for_the_library() -> None:
    assert Settings(upload_dir=Path("/a")) == Settings.of({"upload_dir": "/a"})
    with pytest.raises(WrongSetting, match="--durability is 'perhaps', it must be fsync or none"):
        Settings(durability="perhaps")
