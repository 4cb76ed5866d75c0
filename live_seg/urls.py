"""URLs in messages."""


def redacted(url: str) -> str:
    """Replace the parts of a URL that may be secret, which are user, password and query, by ***."""
    scheme, _, rest = url.partition("://")
    _, at, rest = rest.rpartition("@")  # the last one: an unescaped password may contain @, / or ?
    host, query, _ = rest.partition("?")
    return f"{scheme}://{at and '***@'}{host}{query and '?***'}"
