"""The session of one visitor: camera, shared model, drawing."""

import contextlib
import json
import logging
from collections.abc import Callable
from threading import Thread

from live_seg.errors import LiveSegError
from live_seg.pipeline.run import run
from live_seg.pipeline.stats import Tally
from live_seg.types import Frame, Image, Instances, Segment
from live_seg.ui.controls import Controls
from live_seg.ui.hud import rows
from live_seg.ui.metrics import Metrics
from live_seg.ui.serve.camera import BrowserCamera
from live_seg.ui.serve.choices import Choices
from live_seg.ui.session import Screen, Session

logger = logging.getLogger(__name__)


class BrowserScreen(Screen):
    """Screen that hands images and metrics to functions, which pass them on to the browser."""

    def __init__(
        self, controls: Controls, show: Callable[[Image], None], report: Callable[[str], None]
    ) -> None:
        self._controls, self._show, self._report = controls, show, report

    def write(
        self,
        frame: Frame,  # noqa: ARG002
        image: Image,
        instances: Instances,  # noqa: ARG002
        metrics: Metrics | None = None,
        message: str = "",
    ) -> bool:
        """Hand over `image` and, as JSON, the metrics. Returns False once the visit has ended."""
        self._show(image)
        named = [] if metrics is None else rows(self._controls, metrics)
        self._report(json.dumps({"metrics": named, "message": message}))
        return not self._controls.ended

    def wait(self, seconds: float) -> bool:  # noqa: ARG002
        """Return False once the visit has ended."""
        return not self._controls.ended

    def close(self, complete: bool = True) -> None:  # noqa: ARG002
        """End the visit."""
        self._controls.ended = True


class Visit:
    """Segment `camera` with `segment` in a thread of its own, until `close` or the end of the camera.

    `show` gets the drawn image of each frame, `report` its metrics as JSON; `end` is called last. All three
    are called in the thread of the visit. An error ends this visit only and is logged.
    """

    def __init__(
        self,
        camera: BrowserCamera,
        segment: Segment,
        choices: Choices,
        *,
        show: Callable[[Image], None],
        report: Callable[[str], None],
        end: Callable[[], None],
    ) -> None:
        self._camera, self._segment, self._choices = camera, segment, choices
        self._screen = BrowserScreen(choices.controls, show, report)
        self._end = end
        self._thread = Thread(target=self._run, name=f"live_seg {camera.name}")
        self._thread.start()

    def close(self) -> None:
        """End the visit and wait for its threads. May be called repeatedly."""
        self._choices.controls.ended = True
        self._camera.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._show_all()
        except LiveSegError as error:
            logger.warning("The session of %s ended: %s", self._camera.name, error)
        except Exception:
            logger.exception("The session of %s failed.", self._camera.name)
        finally:
            self._end()

    def _show_all(self) -> None:
        choices, tally = self._choices, Tally()
        with Session(choices.draw, choices.controls, tally, screen=self._screen) as session:
            results = run(self._camera, self._chosen, tally=tally, idle=session.idle, smooth=0.0)
            with contextlib.closing(results):
                for _ in session.show(results):
                    pass

    def _chosen(self, images: list[Image]) -> list[Instances]:
        return [self._choices.select(found) for found in self._segment(images)]
