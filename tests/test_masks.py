from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from live_seg.masks import cell_centres, resample, resize_zero_padded, sample_grids

sides = st.integers(1, 40)


def reference_resize(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize by the documented rule, pixel by pixel: bilinear, half-pixel centres, zero outside."""
    padded = np.pad(image.astype(np.float64), [(1, 1), (1, 1)] + [(0, 0)] * (image.ndim - 2))
    resized = np.zeros((height, width, *image.shape[2:]))
    for row in range(height):
        for column in range(width):
            y = (row + 0.5) * image.shape[0] / height + 0.5  # in the padded image
            x = (column + 0.5) * image.shape[1] / width + 0.5
            top, left = int(y), int(x)
            down, right = y - top, x - left
            upper = (1 - right) * padded[top, left] + right * padded[top, left + 1]
            lower = (1 - right) * padded[top + 1, left] + right * padded[top + 1, left + 1]
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
def test_resizing_follows_the_documented_rule(
    size: tuple[int, int], target: tuple[int, int], channels: tuple[int, ...], dtype: Any, seed: int
) -> None:
    image = np.random.default_rng(seed).random((*size, *channels)).astype(dtype)
    before = image.copy()
    resized = resize_zero_padded(image, *target)
    assert resized.dtype == dtype
    assert resized.shape == (*target, *channels)
    np.testing.assert_allclose(resized, reference_resize(image, *target), atol=1e-5)
    np.testing.assert_array_equal(image, before)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).random((7, 9, 3))
    np.testing.assert_array_equal(resize_zero_padded(image, 7, 9), image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_a_resized_image_fades_towards_zero_at_its_edges(shape: tuple[int, int]) -> None:
    resized = resize_zero_padded(np.ones(shape, np.float32), shape[0] * 4, shape[1] * 4)
    fade = np.array([0.625, 0.875])
    rows, columns = (np.concatenate([fade, np.ones(4 * side - 4), fade[::-1]]) for side in shape)
    np.testing.assert_allclose(resized, np.outer(rows, columns), atol=1e-6)


def test_each_grid_is_sampled_by_itself() -> None:
    grids = np.stack([np.full((4, 4), value, np.float32) for value in (1, 2, 3)])
    cells = np.full((3, 2, 2, 2), -0.5, np.float32)
    np.testing.assert_allclose(sample_grids(grids, cells, edge=True)[:, 0, 0], [1, 2, 3])
    np.testing.assert_allclose(sample_grids(grids, cells, edge=False)[:, 0, 0], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(sample_grids(grids, cells - 9, edge=False), 0)


def test_a_mask_resampled_to_its_own_box_is_unchanged_and_zero_outside() -> None:
    masks = np.random.default_rng(0).random((2, 28, 28), np.float32)
    boxes = np.array([(3, 4, 50, 90), (0.5, 0.25, 9, 8)], np.float32)
    np.testing.assert_allclose(resample(boxes, masks, boxes, 28), masks, atol=1e-4)
    assert not resample(boxes, masks, boxes + 100, 28).any()


def test_resampling_agrees_with_sampling_at_cell_centres() -> None:
    masks = np.random.default_rng(0).random((3, 14, 14), np.float32)
    boxes = np.array([(0, 0, 14, 14)] * 3, np.float32)  # one pixel to a cell
    onto = np.array([(2, 3, 9, 11), (-4, -4, 20, 5), (7, 7, 30, 40)], np.float32)
    cells = cell_centres(onto, 28) - np.float32(0.5)
    expected = sample_grids(masks, cells, edge=False)
    np.testing.assert_allclose(resample(boxes, masks, onto, 28), expected, atol=0.05)  # remap: 1/32 of a cell
