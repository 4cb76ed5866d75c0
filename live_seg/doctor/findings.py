"""Checks and their findings. A check always ends in a finding, whatever it raises."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from live_seg.errors import LiveSegError

logger = logging.getLogger(__name__)

State = Literal["good", "note", "bad"]
"""bad: segmenting a file with the bundled model would fail; note: something optional is missing."""


@dataclass(frozen=True)
class Finding:
    """The result of a check."""

    state: State
    message: str
    remedy: str = ""
    """The recommended action, a command if possible; empty if none is needed."""


@dataclass(frozen=True)
class Check:
    """A named check."""

    name: str
    examine: Callable[[], Finding]
    error: type[LiveSegError] = LiveSegError
    """The error that a bad finding counts as; it determines the exit code."""

    def run(self) -> Finding:
        """Run the check. An exception becomes a bad finding, except for KeyboardInterrupt and SystemExit."""
        try:
            return self.examine()
        except LiveSegError as error:
            return Finding("bad", str(error))
        except Exception as error:
            logger.debug("The check %s failed.", self.name, exc_info=True)
            return Finding("bad", f"{type(error).__name__}: {error}")


def verdict(findings: Sequence[tuple[Check, Finding]]) -> str:
    """Return one sentence that sums up all findings.

    Raises the error of the first bad finding: later checks depend on earlier ones, so it is the cause.
    """
    bad = [check for check, finding in findings if finding.state == "bad"]
    if bad:
        raise bad[0].error(f"Segmenting would not work here: see {', '.join(check.name for check in bad)}.")
    notes = [check.name for check, finding in findings if finding.state == "note"]
    also = f"; see also: {', '.join(notes)}" if notes else ""
    return f"Segmenting works here{also}."
