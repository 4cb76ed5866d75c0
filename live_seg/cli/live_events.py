"""Events of `live-seg webcam`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from live_seg.errors import SourceError

if TYPE_CHECKING:
    from live_seg.events.notifier import Notifier
    from live_seg.types import Source


class Events:
    """Sends the events of one source to a notifier, or nowhere without one.

    `name` replaces the notifier's name of the source.
    """

    def __init__(self, notifier: "Notifier | None", name: str | None = None) -> None:
        self.notifier = notifier
        self.named: dict[str, str] = {} if name is None else {"source": name}

    def watch(self, source: "Source") -> None:
        """Report when `source` is lost and when it is back."""
        from live_seg.sources.live import LiveSource

        if self.notifier is not None and isinstance(source, LiveSource):
            source.on_outage = self._outage

    def ended(self, source: "Source | None", error: SourceError | None) -> None:
        """Report that `source` is lost for good: by `error`, or because a live one has ended."""
        if error is not None:
            self._outage(str(error))
        elif source is not None and source.live:
            self._outage(f"{source.name} has ended.")

    def _outage(self, reason: str | None) -> None:
        if self.notifier is None:
            return
        if reason is None:
            self.notifier.send("source-back", **self.named)
        else:
            self.notifier.send("source-lost", **self.named, reason=reason)

    def file(
        self, name: Literal["recording-started", "recording-finished"], path: Path, error: str | None
    ) -> None:
        """Report the start or end of a recording."""
        if self.notifier is not None:
            failed = {} if error is None else {"error": error}
            self.notifier.send(name, **self.named, file=str(path), **failed)


@contextlib.contextmanager
def sending_events(
    target: str | None, source: str, about: list[str], *, one: bool = True
) -> Iterator[Events]:
    """Yield the events of `source`, sent to `target`. Add their counts to `about` at the end.

    If it is `one` source, a SourceError that ends the session is reported, too. Raises UsageError for an
    invalid target.
    """
    from live_seg.events.notifier import Notifier
    from live_seg.events.target import event_target
    from live_seg.urls import redacted

    if target is None:
        yield Events(None)
        return
    notifier = Notifier(event_target(target), redacted(source))
    try:
        yield Events(notifier)
    except SourceError as error:
        if one:
            notifier.send("source-lost", reason=str(error))
        raise
    finally:
        notifier.close()
        about.append(notifier.summary)
