import itertools

import cv2
import numpy as np
import pytest

from live_seg.sources.demo import CLIP_FPS, CLIP_SIZE, DemoClip
from live_seg.types import Frame


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    with DemoClip() as clip:
        return list(clip)


def test_number_and_times_of_frames_match_the_declaration(frames: list[Frame]) -> None:
    assert len(frames) == DemoClip.frames
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert [frame.seconds for frame in frames] == pytest.approx([i / CLIP_FPS for i in range(len(frames))])


def test_clip_is_short_and_not_live() -> None:
    assert not DemoClip.live
    assert 2 <= DemoClip.frames / DemoClip.fps <= 10


def test_images_match_the_declared_size(frames: list[Frame]) -> None:
    for frame in frames:
        assert frame.image.shape == (CLIP_SIZE[1], CLIP_SIZE[0], 3)
        assert frame.image.dtype == np.uint8
        assert frame.image.flags["C_CONTIGUOUS"]


def test_consecutive_frames_differ_slightly(frames: list[Frame]) -> None:
    for one, other in itertools.pairwise(frames):
        assert 0 < cv2.absdiff(one.image, other.image).mean() < 8


def test_three_portraits_are_visible(frames: list[Frame]) -> None:
    """Count the portraits along a row: the wall has one colour there."""
    for frame in (frames[0], frames[len(frames) // 2]):
        row = (
            np.abs(frame.image[CLIP_SIZE[1] // 2].astype(int) - frame.image[CLIP_SIZE[1] // 2, 0]).sum(axis=1)
            > 30
        )
        starts = np.flatnonzero(np.diff(row.astype(int)) == 1)
        islands = 1 + np.count_nonzero(np.diff(starts) > 60)
        assert islands >= 3
        assert row.any(where=np.arange(len(row)) > 0.8 * len(row))


def test_clips_are_identical() -> None:
    with DemoClip() as one, DemoClip() as other:
        assert np.array_equal(next(iter(one)).image, next(iter(other)).image)
