"""URLs in messages, without the parts that may be secret."""

import re

URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/+", re.IGNORECASE)
"""Start of a URL: a path object joins its slashes to one. "C:/" is the drive of a Windows path."""

URL_IN_TEXT = re.compile(URL.pattern + r"[^\s'\"]*[^\s'\",.:;)\]]", re.IGNORECASE)


def redacted(url: object) -> str:
    """Return a URL with *** in place of user and password, query, fragment, and the key of an RTMP path.

    Anything else, such as a file name, is returned unchanged.
    """
    text = str(url)
    start = URL.match(text)
    if start is None:
        return text
    before, at, rest = text[start.end() :].rpartition("@")  # the last one: a password may contain @
    is_rtmp = start["scheme"].lower().startswith("rtmp")
    if re.search(r"[?#\s/]" if is_rtmp else r"[?#\s]", before):  # in a password; or a query or key with @
        return f"{start[0]}***"
    shown = re.split(r"[?#\s]", rest, maxsplit=1)[0]
    hidden = rest[len(shown) : len(shown) + 1] + "***" if len(shown) < len(rest) else ""
    if is_rtmp:
        folder, slash, key = shown.rstrip("/").rpartition("/")
        shown = f"{folder}/***" if slash and key else shown
    return f"{start[0]}{at and '***@'}{shown}{hidden}"


def without_secrets(text: str) -> str:
    """Return `text` with every URL in it `redacted`. Passwords with spaces or quotes stay."""
    return URL_IN_TEXT.sub(lambda found: redacted(found[0]), text)
