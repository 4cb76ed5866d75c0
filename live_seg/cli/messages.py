"""Messages for a terminal: without passwords, and without control characters of file names and servers."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator

from live_seg.urls import without_secrets

CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Control characters, and those that change the direction of text. Without tab, newline and return."""

CONTROL = re.compile(rf"[{CONTROLS}\t\r]")


def clean(message: object) -> str:
    """Return a message as text with escapes for control characters, and *** for secrets in URLs."""
    return CONTROL.sub(lambda found: escaped(found[0]), without_secrets(str(message)))


def escaped(character: str) -> str:
    r"""Return the escape sequence of a character, such as \x1b."""
    return character.encode("unicode_escape").decode("ascii")


class _CleanFormatter(logging.Formatter):
    """Formatter whose lines are clean."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return clean(super().format(record))


@contextlib.contextmanager
def messages_on_stderr(*, quiet: bool) -> Iterator[None]:
    """Print what the library logs on stderr; with `quiet`, warnings only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_CleanFormatter("live-seg: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logger = logging.getLogger("live_seg")
    previous = logger.level
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(previous)
