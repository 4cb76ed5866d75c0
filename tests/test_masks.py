from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from live_seg.masks import resize_on_black

sides = st.integers(1, 40)


def slow_resize(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """The documented rule, pixel by pixel: bilinear, half-pixel centres, zero outside."""
    black = np.pad(image.astype(np.float64), [(1, 1), (1, 1)] + [(0, 0)] * (image.ndim - 2))
    resized = np.zeros((height, width, *image.shape[2:]))
    for row in range(height):
        for column in range(width):
            y = (row + 0.5) * image.shape[0] / height + 0.5  # in the picture with its black border
            x = (column + 0.5) * image.shape[1] / width + 0.5
            top, left = int(y), int(x)
            down, right = y - top, x - left
            upper = (1 - right) * black[top, left] + right * black[top, left + 1]
            lower = (1 - right) * black[top + 1, left] + right * black[top + 1, left + 1]
            resized[row, column] = (1 - down) * upper + down * lower
    return resized


@given(
    size=st.tuples(sides, sides),
    target=st.tuples(sides, sides),
    channels=st.sampled_from([(), (1,), (3,)]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_it_follows_the_documented_rule(
    size: tuple[int, int], target: tuple[int, int], channels: tuple[int, ...], dtype: Any, seed: int
) -> None:
    image = np.random.default_rng(seed).random((*size, *channels)).astype(dtype)
    before = image.copy()
    resized = resize_on_black(image, *target)
    assert resized.dtype == dtype
    assert resized.shape == (*target, *channels)
    np.testing.assert_allclose(resized, slow_resize(image, *target), atol=1e-5)
    np.testing.assert_array_equal(image, before)


def test_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).random((7, 9, 3))
    np.testing.assert_array_equal(resize_on_black(image, 7, 9), image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_a_line_of_pixels_fades_towards_its_ends(shape: tuple[int, int]) -> None:
    resized = resize_on_black(np.ones(shape, np.float32), shape[0] * 4, shape[1] * 4)
    fade = np.array([0.625, 0.875])
    rows, columns = (np.concatenate([fade, np.ones(4 * side - 4), fade[::-1]]) for side in shape)
    np.testing.assert_allclose(resized, np.outer(rows, columns), atol=1e-6)
