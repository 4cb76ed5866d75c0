import itertools

import cv2
import numpy as np
import pytest

from live_seg.sources import demo
from live_seg.sources.demo import CLIP_FPS, CLIP_SIZE, OTHERS, PORTRAITS, DemoClip, Placement
from live_seg.types import Frame, Image


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


def shows(image: Image, place: Placement) -> bool:
    """Return whether the middle of `place` shows a photo: the wall has one colour in each row."""
    x, y = round(place.x * CLIP_SIZE[0]), round(place.y * CLIP_SIZE[1])
    return bool((image[y, x - 20 : x + 20].astype(int) != image[y, -1]).any())


def test_all_photos_are_visible(frames: list[Frame]) -> None:
    pytest.importorskip("skimage")
    for frame in (frames[0], frames[len(frames) // 2]):
        assert all(shows(frame.image, place) for place in (*PORTRAITS, *OTHERS.values()))


def test_portraits_alone_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    with DemoClip() as source:
        image = next(iter(source)).image
    assert all(shows(image, place) for place in PORTRAITS)
    assert not any(shows(image, place) for place in OTHERS.values())


def test_clips_are_identical() -> None:
    with DemoClip() as one, DemoClip() as other:
        assert np.array_equal(next(iter(one)).image, next(iter(other)).image)
