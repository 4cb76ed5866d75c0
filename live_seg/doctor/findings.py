"""What a check finds, and a check, which whatever it meets ends in a finding."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from live_seg.errors import LiveSegError

logger = logging.getLogger(__name__)

State = Literal["good", "note", "bad"]
"""bad: segmenting a file with the bundled model would not work; note: something optional is missing."""


@dataclass(frozen=True)
class Finding:
    """The outcome of a check."""

    state: State
    told: str
    remedy: str = ""
    """The way out, a command where there is one; empty where there is nothing to do."""


@dataclass(frozen=True)
class Check:
    """Something to look at, by the `name` under which its finding is told."""

    name: str
    look: Callable[[], Finding]
    error: type[LiveSegError] = LiveSegError
    """What a bad finding counts as: it chooses the exit code."""

    def run(self) -> Finding:
        """Look; an exception is a bad finding, too. Raises nothing but what ends the program."""
        try:
            return self.look()
        except LiveSegError as error:
            return Finding("bad", str(error))
        except Exception as error:
            logger.debug("The check %s failed.", self.name, exc_info=True)
            return Finding("bad", f"{type(error).__name__}: {error}")


def verdict(found: Sequence[tuple[Check, Finding]]) -> str:
    """One sentence about all that was found.

    Raises the error of the first bad finding: checks go from the ground up, so the first is the cause.
    """
    bad = [check for check, finding in found if finding.state == "bad"]
    if bad:
        raise bad[0].error(f"Segmenting would not work here: see {', '.join(check.name for check in bad)}.")
    notes = [check.name for check, finding in found if finding.state == "note"]
    besides = f"; noted besides: {', '.join(notes)}" if notes else ""
    return f"Segmenting works here{besides}."
