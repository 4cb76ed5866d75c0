"""One model shared by several threads, whose images are segmented in common batches."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Self

from live_seg.errors import LiveSegError
from live_seg.types import Image, Instances, Segment

Take = Callable[[], Sequence[Image]]
"""Return the images of a request, called when its turn comes, in the worker thread."""


@dataclass(eq=False)
class _Request:
    take: Take
    images: Sequence[Image] = ()
    results: Future[list[Instances]] = field(default_factory=Future)


class SharedModel:
    """Call `segment` from any number of threads: waiting images are segmented together, at most `batch`.

    An instance is itself a `Segment`. Requests are answered in the order of their arrival, so that callers
    with one image each get equal shares. If a batch fails, each of its requests is repeated alone, and only
    the request that fails gets the error. A `with` block starts the worker thread; leaving it ends it, and
    requests that still wait raise LiveSegError, or are cancelled. `segment` may get images of different
    sizes.
    """

    def __init__(self, segment: Segment, batch: int = 4) -> None:
        self._segment = segment
        self._batch = batch
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._closed = False
        self._thread = Thread(target=self._work, name="live_seg shared model")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._requests.put(None)
        self._thread.join()

    def __call__(self, images: list[Image]) -> list[Instances]:
        """Segment `images` and wait for the results, one each.

        Raises any error of the model, and LiveSegError after the end of the `with` block.
        """
        try:
            return self.submit(partial(list, images)).result()
        except CancelledError:
            raise LiveSegError("The model was closed while images were waiting for it.") from None

    def submit(self, take: Take) -> Future[list[Instances]]:
        """Request results without waiting. They are cancelled at the end of the `with` block.

        `take` returns the images, possibly none, when the turn of the request comes: those that are the
        newest by then. It is called in the worker thread, as are callbacks of the future.
        """
        request = _Request(take)
        self._requests.put(request)
        if self._closed:
            self._cancel_all()
        return request.results

    def _work(self) -> None:
        while not self._closed and (taken := self._take()):
            try:
                self._answer(taken)
            except BaseException as error:
                for request in taken:
                    self._answer_alone(request, error if len(taken) == 1 else None)
        self._cancel_all()

    def _take(self) -> list[_Request]:
        """Wait for a request and return all that fit into a batch; empty after the end."""
        taken, images = list[_Request](), 0
        with contextlib.suppress(Empty):
            while images < self._batch:
                request = self._requests.get(block=not taken)
                if request is None:
                    break
                try:
                    request.images = request.take()
                except BaseException as error:
                    request.results.set_exception(error)
                    continue
                taken.append(request)
                images += len(request.images)
        return taken

    def _answer(self, taken: list[_Request]) -> None:
        images = [image for request in taken for image in request.images]
        results, expected = self._segment(images) if images else [], len(images)
        if len(results) != expected:
            raise ValueError(f"segment returned {len(results)} results for {expected} images.")
        for request in taken:
            own, results = results[: len(request.images)], results[len(request.images) :]
            request.results.set_result(own)

    def _answer_alone(self, request: _Request, error: BaseException | None) -> None:
        """Give `error` to a request, or without one repeat it."""
        try:
            if error is not None:
                raise error
            self._answer([request])
        except BaseException as failure:
            request.results.set_exception(failure)

    def _cancel_all(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                request = self._requests.get_nowait()
                if request is not None:
                    request.results.cancel()
