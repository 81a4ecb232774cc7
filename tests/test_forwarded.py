"""Location behind proxies."""

import pytest

from tusd_py.border.forwarded import Proxies

PROXY = "10.1.2.3"


@pytest.mark.parametrize(
    ("trusted", "peer", "headers", "requested", "url"),
    [
        ([], PROXY, {"host": "a.example"}, "/files/", "http://a.example/files/"),
        ([], PROXY, {"host": "[::1]:1080"}, "/files", "http://[::1]:1080/files/"),
        ([], PROXY, {}, "/files/", ""),
        ([], PROXY, {}, "/files", "files/"),
        ([], PROXY, {"host": "evil.example/x?"}, "/files/", ""),
        # Forwarded headers from somewhere: relative, unless that somewhere is trusted.
        ([], PROXY, {"host": "inner", "x-forwarded-proto": "https"}, "/files/", ""),
        ([], PROXY, {"host": "inner", "forwarded": "proto=https"}, "/files", "files/"),
        (["10.0.0.0/8"], "192.168.0.1", {"host": "inner", "x-forwarded-host": "evil.example"}, "/files/", ""),
        (
            ["10.0.0.0/8"],
            PROXY,
            {"host": "a.example", "x-forwarded-proto": "https"},
            "/files/",
            "https://a.example/files/",
        ),
        (
            [PROXY],
            PROXY,
            {"host": "inner", "x-forwarded-proto": "https, http", "x-forwarded-host": "a.example, b"},
            "/files/",
            "https://a.example/files/",
        ),
        (
            ["*"],
            "2001:db8::1",
            {"host": "inner", "forwarded": 'for=1.2.3.4;Proto=https;host="a.example:8443", for=5.6.7.8'},
            "/files/",
            "https://a.example:8443/files/",
        ),
        (["unix"], None, {"host": "inner", "x-forwarded-host": "a.example"}, "/files/", "http://a.example/files/"),
        ([PROXY], None, {"host": "inner", "x-forwarded-host": "a.example"}, "/files/", ""),
        ([PROXY], "no address", {"host": "inner", "x-forwarded-host": "a.example"}, "/files/", ""),
        ([PROXY], PROXY, {"host": "inner", "x-forwarded-proto": "javascript"}, "/files/", ""),
    ],
)
def test_creation_url(trusted: list[str], peer: str | None, headers: dict[str, str], requested: str, url: str) -> None:
    values = {name: (value,) for name, value in headers.items()}

    assert url == Proxies(trusted).creation_url("http", values, peer, "/files/", requested)


def test_what_is_no_address_cannot_be_trusted() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        Proxies(["localhost"])
