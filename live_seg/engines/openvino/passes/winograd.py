"""Pass: compute a 3x3 convolution by Winograd's algorithm, as a few matrix products.

Tiles of T rows and columns of the output are computed together, in (T + 2)² multiplications instead of 9 T²:
F(TxT, 3x3) of Lavin and Gray, arXiv 1509.09308.
"""

import functools
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from openvino import Node, Output, opset13

from live_seg.engines.openvino.passes.convolutions import constant_of, is_int8, is_one_image, is_plain_3x3
from live_seg.engines.processor import has_fast_int8

MIN_CHANNELS = 128
"""With fewer channels of input or output the transforms cost more than is saved."""

POINTS = {
    4: (0.0, 0.75, -0.75, 1.5, -1.5),
    7: (0.2, -0.2, 0.65, -0.65, 1.1, -1.1, 2.3, -2.3),
}
"""Points at which the polynomials of a tile of T are evaluated, besides infinity.

The usual 0, 1, -1, 2, -2 save multiplications in transforms written by hand. Here transforms are matrix
products, and these points halve the rounding error: 0.9e-6 standard deviations for T = 4, 6e-6 for T = 7.
Direct summation has 0.2e-6.
"""

IMAGE_TILE = 4
REGION_TILE = 7
"""One tile covers a box head's region of 7 cells, two cover a mask head's 14."""


def applies(node: Node) -> bool:
    """Return whether `node` is a plain 3x3 convolution with constant weights and enough channels.

    In int8 only on processors that are slow at it: there float32 with fewer multiplications takes less time.
    """
    if not is_plain_3x3(node) or (is_int8(node) and has_fast_int8()):
        return False
    weights = node.input_value(1)
    outputs, inputs = weights.get_shape()[:2]
    return min(inputs, outputs) >= MIN_CHANNELS and constant_of(weights) is not None


def apply(node: Node) -> Output:
    """Return the output of the convolution `node`, computed by Winograd's algorithm."""
    values, weights = node.input_values()
    if is_int8(node):
        values = values.get_node().input_value(0)
    convolved = convolved_image if is_one_image(node) else convolved_regions
    return convolved(values, cast(NDArray[np.float32], constant_of(weights)))  # as `applies` has checked


def convolved_image(values: Output, weights: NDArray[np.float32]) -> Output:
    """Convolve values (1, C, H, W) with weights (K, C, 3, 3), padding 1 -> (1, K, H, W).

    Three products: a constant matrix with the tiles, the weights with each of their 36 components, and a
    constant matrix with the results.
    """
    tile, span = IMAGE_TILE, IMAGE_TILE + 2
    from_tiles, from_weights, to_results = (np.kron(one, one) for one in transforms(tile))
    _, channels, height, width = values.get_shape()
    kernels = len(weights)
    down, across = -(-height // tile), -(-width // tile)
    seen = from_weights @ weights.reshape(-1, 9).T.astype(np.float64)  # (36, K x C)
    margins = [tile * down + 1 - height, tile * across + 1 - width]
    padded = opset13.pad(values, [0, 0, 1, 1], [0, 0, *margins], "constant", np.float32(0))
    tiles = opset13.extract_image_patches(padded, [span] * 2, [tile] * 2, [1, 1], "VALID")
    x = _product(_constant(from_tiles), _shaped(tiles, span**2, channels * down * across))
    seen = _constant(seen.reshape(span**2, kernels, channels))
    x = _product(seen, _shaped(x, span**2, channels, down * across))
    x = _product(_constant(to_results), _shaped(x, span**2, kernels * down * across))
    x = opset13.depth_to_space(_shaped(x, 1, tile**2 * kernels, down, across), "blocks_first", tile)
    return opset13.slice(x, [0, 0], [height, width], [1, 1], [2, 3]).output(0)


def convolved_regions(values: Output, weights: NDArray[np.float32]) -> Output:
    """Convolve values (N, C, H, W), a dynamic number N of small maps, in the same way -> (N, K, H, W).

    The layout is (H, W, N, C): whole rows and columns are transformed, each in one product, without cutting
    tiles. In a chain of such convolutions only the first and the last transpose.
    """
    kernels, channels = weights.shape[:2]
    height, width = (length.get_length() for length in list(values.get_partial_shape())[2:])
    span = REGION_TILE + 2
    (from_rows, to_rows), (from_columns, to_columns) = (_sides(length) for length in (height, width))
    down, across = len(from_rows), len(from_columns)
    _, from_weights, _ = transforms(REGION_TILE)
    seen = np.einsum("ai,bj,kcij->abck", from_weights, from_weights, weights, optimize=True)
    x = _product(_constant(from_columns), _shaped(_rows_first(values), height, width, -1))
    x = _product(_constant(from_rows), _shaped(x, height, -1))
    x = _shaped(x, span, down // span, span, -1, channels)
    x = _product(x, _constant(seen.reshape(span, 1, span, channels, kernels)))
    x = _product(_constant(to_rows), _shaped(x, down, -1))
    x = _product(_constant(to_columns), _shaped(x, height, across, -1))
    return opset13.transpose(_shaped(x, height, width, -1, kernels), ROWS_FIRST).output(0)


ROWS_FIRST = [2, 3, 0, 1]
"""From (N, C, H, W) to (H, W, N, C), and back."""


def _rows_first(values: Output) -> Node:
    """Transpose values (N, C, H, W) to (H, W, N, C), or remove the transpose of the convolution before."""
    node = values.get_node()
    kind, inputs = node.get_type_name(), node.input_values()
    if kind == "Relu":
        return opset13.relu(_rows_first(inputs[0]))
    if kind == "Add" and list(inputs[1].get_partial_shape()) == [1, inputs[0].get_partial_shape()[1], 1, 1]:
        return opset13.add(_rows_first(inputs[0]), _shaped(inputs[1], -1))
    if kind == "Transpose" and list(inputs[1].get_node().data) == ROWS_FIRST:
        return inputs[0].get_node()
    return opset13.transpose(values, ROWS_FIRST)


@functools.cache
def _sides(length: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the matrices that transform a side of a region, with padding 1, to tiles and back.

    (components x tiles, length) and (length, components x tiles).
    """
    tiles, _, results = transforms(REGION_TILE)
    count, span = -(-length // REGION_TILE), REGION_TILE + 2
    there = np.zeros((span, count, count * REGION_TILE + 2))
    back = np.zeros((count * REGION_TILE, span, count))
    for i in range(count):
        first = i * REGION_TILE
        there[:, i, first : first + span] = tiles
        back[first : first + REGION_TILE, :, i] = results
    return there[..., 1 : length + 1].reshape(-1, length), back[:length].reshape(length, -1)


@functools.cache
def transforms(tile: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the transforms, float64, of T + 2 values, 3 weights and T results of a tile of `tile` T.

    (T + 2, T + 2), (T + 2, 3), (T, T + 2), for one dimension. They are the Toom-Cook matrices for POINTS,
    transposed as in Winograd's algorithm: Barabasz et al., arXiv 1803.10986.
    """
    points = np.array(POINTS[tile])
    powers = points[:, None] ** np.arange(tile)
    results = np.column_stack([powers.T, np.eye(tile)[-1]])
    tiles, weights = np.zeros((tile + 2, tile + 2)), np.zeros((tile + 2, 3))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        tiles[i, :-1] = np.poly(others)[::-1]
        weights[i] = powers[i, :3] / np.prod(point - others)
    tiles[-1], weights[-1] = np.poly(points)[::-1], [0, 0, 1]
    return tiles, weights, results


def _shaped(node: Node | Output, *shape: int) -> Node:
    return opset13.reshape(node, list(shape), special_zero=False)


def _constant(matrix: NDArray[Any]) -> Node:
    return opset13.constant(np.ascontiguousarray(matrix, np.float32))  # an array as it is would become a list


def _product(left: Node, right: Node) -> Node:
    return opset13.matmul(left, right, transpose_a=False, transpose_b=False)
