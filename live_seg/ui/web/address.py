"""Addresses of web pages, and who may open them."""

import hmac
import ipaddress
import secrets
import socket
from urllib.parse import urlsplit

from live_seg.errors import UsageError

DEFAULT_ADDRESS = "127.0.0.1:8460"
"""Reachable from this machine only."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Host names that always refer to this machine. Requests with another Host header are refused, which prevents
DNS rebinding: a foreign site whose name resolves to this machine."""

TOKEN_BYTES = 16
"""Random bytes in the URL of a page that other machines can reach; too many to guess."""


def parse_address(text: str) -> tuple[str, int]:
    """Parse "HOST:PORT", with IPv6 in brackets, into host and port, 0 to 65535. Raises UsageError."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare) != (bare != host) or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"Expected an address as HOST:PORT, for example {DEFAULT_ADDRESS}. Got {text!r}.")
    return bare, int(port)


def new_token(host: str) -> str:
    """Return a secret for the URLs of pages at `host`; an empty one on loopback addresses."""
    return "" if host in LOOPBACK else secrets.token_urlsafe(TOKEN_BYTES)


def root_path(token: str) -> str:
    """Return the path of a page whose URL begins with `token`."""
    return f"/{token}/" if token else "/"


def refusal(path: str, host: str | None, token: str) -> str:
    """Return why a request for `path` with the header Host is refused; empty if it is not."""
    root = root_path(token)
    if not hmac.compare_digest(path[: len(root)].encode(), root.encode()):
        return "Use the full URL printed by live-seg" if token else "No such page"
    if not token and (_parts(f"//{host}") or ("",))[0] not in LOOPBACK:
        return "Use the host name 127.0.0.1 or localhost"
    return ""


def same_origin(origin: str | None, host: str | None) -> bool:
    """Return whether a request with the headers Origin and Host comes from a page of the same server."""
    return _parts(origin) == _parts(f"//{host}")


def public_name(host: str) -> str:
    """Return `host` as a part of URLs: IPv6 in brackets, all interfaces as one that others can reach."""
    name = _local_address(host) if _is_unspecified(host) else host
    return f"[{name}]" if ":" in name else name


def _is_unspecified(host: str) -> bool:
    """Return whether `host` is the unspecified address (0.0.0.0 or ::), which means all interfaces."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _local_address(host: str) -> str:
    """Return the address at which other machines reach this one, or its host name if that is unknown."""
    family, far = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))  # sends nothing, only selects the interface; the address is reserved
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _parts(url: str | None) -> tuple[str | None, int | None] | None:
    """Return the lower-case host name and the port of a URL, or None if it has none."""
    try:
        parts = urlsplit(url or "")
        return (parts.hostname, parts.port) if parts.netloc else None
    except ValueError:  # port not a number, unbalanced brackets
        return None
