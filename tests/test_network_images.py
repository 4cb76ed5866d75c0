"""Placement of frames on the network's canvas, and its inverse."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from live_seg.maskrcnn.images import STRIDE, Placement, on_canvas, place_fit, place_square

quick = settings(max_examples=60, deadline=None)
lengths = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("frame", "resized", "offset"),
    [
        ((1080, 1920), (576, 1024), (224, 0)),
        ((480, 640), (768, 1024), (128, 0)),  # enlarged, but the longer side ends at 1024
        ((1280, 720), (1024, 576), (0, 224)),
        ((576, 1024), (576, 1024), (224, 0)),  # fits already: the shorter side may stay below 800
        ((1024, 1024), (1024, 1024), (0, 0)),
        ((1, 1), (800, 800), (112, 112)),
        ((100, 110), (800, 880), (112, 72)),  # the shorter side reaches 800 before the longer is full
        ((1, 4000), (1, 1024), (511, 0)),
    ],
)
def test_square(frame: tuple[int, int], resized: tuple[int, int], offset: tuple[int, int]) -> None:
    placement = place_square(frame, 1024, 800)
    assert placement == Placement(frame, resized, offset, (1024, 1024))
    top, left, bottom, right = placement.window
    assert (bottom - top, right - left) == resized


@pytest.mark.parametrize(
    ("frame", "resized", "offset", "canvas"),
    [
        ((1080, 1920), (576, 1024), (0, 0), (576, 1024)),
        ((480, 640), (768, 1024), (0, 0), (768, 1024)),
        ((1920, 1080), (1024, 576), (0, 0), (1024, 576)),
        ((500, 1000), (512, 1024), (0, 0), (512, 1024)),
        ((530, 1024), (530, 1024), (7, 0), (544, 1024)),
        ((1, 1), (1024, 1024), (0, 0), (1024, 1024)),
        ((1, 4000), (1, 1024), (15, 0), (32, 1024)),
        ((4000, 3), (1024, 1), (0, 15), (1024, 32)),
    ],
)
def test_fit(
    frame: tuple[int, int], resized: tuple[int, int], offset: tuple[int, int], canvas: tuple[int, int]
) -> None:
    assert place_fit(frame, 1024) == Placement(frame, resized, offset, canvas)


def test_fit_needs_nine_sixteenths_of_the_square_for_widescreen_video() -> None:
    fit, square = place_fit((1080, 1920), 1024), place_square((1080, 1920), 1024, 800)
    assert np.prod(fit.canvas) / np.prod(square.canvas) == 0.5625


@quick
@given(height=lengths, width=lengths, size=st.integers(64, 1100))
def test_fit_wastes_less_than_a_stride_on_either_side(height: int, width: int, size: int) -> None:
    placement = place_fit((height, width), size)
    assert max(placement.resized) == size
    for canvas, resized, offset in zip(placement.canvas, placement.resized, placement.offset, strict=True):
        assert canvas % STRIDE == 0
        assert 0 < resized <= canvas < resized + STRIDE
        assert 0 <= offset <= canvas - offset - resized <= offset + 1


@quick
@given(height=lengths, width=lengths)
def test_square_never_passes_the_canvas(height: int, width: int) -> None:
    placement = place_square((height, width), 1024, 800)
    top, left, bottom, right = placement.window
    assert 0 <= top < bottom <= 1024
    assert 0 <= left < right <= 1024
    assert min(placement.resized) >= 800 or max(placement.resized) == 1024


@quick
@given(height=lengths, width=lengths, square=st.booleans())
def test_the_window_is_the_whole_frame(height: int, width: int, square: bool) -> None:
    placement = place_square((height, width), 512, 400) if square else place_fit((height, width), 512)
    assume(min(placement.resized) > 1)
    whole = placement.to_frame(placement.normalized_window()[None])
    np.testing.assert_allclose(whole, [[0, 0, width, height]], atol=1e-2)


@quick
@given(
    height=st.integers(20, 3000),
    width=st.integers(20, 3000),
    square=st.booleans(),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_to_frame_inverts_the_placement(
    height: int, width: int, square: bool, corners: tuple[float, float, float, float]
) -> None:
    placement = place_square((height, width), 512, 400) if square else place_fit((height, width), 512)
    assume(min(placement.resized) > 16)
    y1, y2, x1, x2 = *sorted(corners[:2]), *sorted(corners[2:])
    in_frame = np.array([x1 * width, y1 * height, x2 * width, y2 * height])
    # Where the picture's points land on the canvas, in pixels, by nothing but the resizing.
    rows, columns = (r / f for r, f in zip(placement.resized, placement.frame, strict=True))
    top, left = placement.offset
    canvas = np.array([y1 * height * rows + top, x1 * width * columns + left])
    canvas = np.array([*canvas, y2 * height * rows + top, x2 * width * columns + left])
    last = np.array([*placement.canvas, *placement.canvas]) - 1
    normalized = ((canvas - [0, 0, 1, 1]) / last).astype(np.float32)
    back = placement.to_frame(normalized[None])[0]
    # That the last pixel lies at 1 moves boxes by at most a pixel of either picture.
    assert np.abs(back - in_frame).max() <= max(1.0, 1 / rows, 1 / columns) * 1.2


def test_a_window_one_pixel_high_gives_boxes_one_pixel_high() -> None:
    placement = place_fit((1, 4000), 1024)
    window = placement.normalized_window()
    boxes = placement.to_frame(window[None])
    np.testing.assert_allclose(boxes, [[0, 0, 4000, 1]], atol=1e-2)


def test_images_are_padded_with_black() -> None:
    pixels = np.array([[[1, 2, 3], [10, 20, 30]]], np.uint8)  # one row
    placement = Placement(frame=(1, 2), resized=(1, 2), offset=(1, 0), canvas=(3, 2))
    black = [[0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(on_canvas(pixels, placement), [black, pixels[0], black])
