"""The URL under which a client knows this server, though proxies stand between."""

import ipaddress
import re
from collections.abc import Mapping, Sequence

from ..settings import networks

Headers = Mapping[str, tuple[str, ...]]

_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_FORWARDED_NAMES = ("forwarded", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-for")


class Proxies:
    """The addresses from which forwarded headers are believed."""

    def __init__(self, trusted: Sequence[str]) -> None:
        """trusted: addresses, networks, "unix" for peers on a unix socket, "*" for all. Raises ValueError."""
        self._everybody = "*" in trusted
        self._unix = "unix" in trusted
        self._networks = networks(trusted)

    def trusts(self, peer: str | None) -> bool:
        """Return whether the peer at this address (None: a unix socket) may say how a request reached it."""
        if self._everybody or peer is None:
            return self._everybody or self._unix
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def creation_url(self, scheme: str, headers: Headers, peer: str | None, path: str, requested: str) -> str:
        """Return what an upload id is appended to for Location.

        path is the creation path as this server knows it, ending in "/"; requested the path of the request. Absolute
        where the origin is known, since some clients (aiotus) fail on a relative one. Where a proxy that is not
        trusted says that it changed something, a relative reference: it is right whatever the proxy changed.
        """
        host = first(headers.get("host", ()))
        if any(name in headers for name in _FORWARDED_NAMES):
            if not self.trusts(peer):
                host = ""
            else:
                forwarded = parse_forwarded(first(headers.get("forwarded", ())))
                scheme = forwarded.get("proto") or first(headers.get("x-forwarded-proto", ())) or scheme
                host = forwarded.get("host") or first(headers.get("x-forwarded-host", ())) or host
        if _HOST.fullmatch(host) and scheme in ("http", "https"):
            return f"{scheme}://{host}{path}"
        # Resolved against the URL of the request (RFC 3986, 5.2): its last segment is replaced.
        return "" if requested.endswith("/") else path.rstrip("/").rpartition("/")[2] + "/"


def first(values: Sequence[str]) -> str:
    """Return the first element of a header that proxies append to: the client's side of the outermost one."""
    return values[0].partition(",")[0].strip() if values else ""


def parse_forwarded(element: str) -> dict[str, str]:
    """Return the parameters of one element of Forwarded (RFC 7239), names in lower case."""
    pairs = (pair.partition("=") for pair in element.split(";"))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
