"""Results are delayed until missed tracks are filled in; frames are kept, or read a second time."""

from collections.abc import Iterator

import numpy as np
import pytest

from live_seg.errors import SourceError
from live_seg.pipeline.filling import Filling
from live_seg.propagation.gaps import GapFiller
from live_seg.types import Frame, Instances
from tests.stand_ins import left_half

COUNT = 12


def frames(indices: range = range(COUNT)) -> Iterator[Frame]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), np.uint8)
    return (Frame(index, index / 10, image.copy()) for index in indices)


def results(detected: range) -> Iterator[tuple[Frame, Instances]]:
    for frame in frames():
        found = left_half(frame.image) if frame.index in detected else Instances.empty()
        if len(found):
            found = Instances(
                **{name: getattr(found, name) for name in ("boxes", "masks", "class_ids", "scores")},
                track_ids=np.array([3], np.int32),
                confirmed=np.array([frame.index > detected.start]),
            )
        yield frame, found


@pytest.mark.parametrize("twice", [False, True])
def test_each_frame_is_yielded_once_with_what_was_found_and_propagated(twice: bool) -> None:
    filling = Filling(GapFiller(2.0))
    seen = []
    for frame, found in filling.fill(results(range(4, 8)), frames() if twice else None):
        assert filling.latest.found is found
        seen.append((frame.index, len(found), len(filling.latest.missed)))
        assert frame.seconds == frame.index / 10
        assert frame.image.shape == (60, 80, 3)
    assert seen == [(i, int(4 <= i < 8), int(not 4 <= i < 8)) for i in range(COUNT)]


def test_frames_are_delayed_no_more_than_needed() -> None:
    filling, read = Filling(GapFiller(0.3)), list[int]()

    def reading() -> Iterator[tuple[Frame, Instances]]:
        for frame, found in results(range(0)):
            read.append(frame.index)
            yield frame, found

    for frame, _ in filling.fill(reading()):
        assert read[-1] == min(frame.index + 3, COUNT - 1)


def test_the_second_reading_skips_frames_without_a_result() -> None:
    some = ((frame, found) for frame, found in results(range(0)) if frame.index % 3 == 0)
    filled = Filling(GapFiller(2.0)).fill(some, frames())
    assert [frame.index for frame, _ in filled] == [0, 3, 6, 9]


def test_a_file_that_became_shorter_is_an_error() -> None:
    filled = Filling(GapFiller(2.0)).fill(results(range(0)), frames(range(5)))
    with pytest.raises(SourceError, match="ends before frame 5"):
        list(filled)


def test_an_error_of_the_run_is_raised() -> None:
    def failing() -> Iterator[tuple[Frame, Instances]]:
        yield from list(results(range(0)))[:2]
        raise SourceError("gone")

    with pytest.raises(SourceError, match="gone"):
        list(Filling(GapFiller(0.0)).fill(failing()))
