"""OpenVINO models rewritten to compute the same in less time, where its own convolutions leave some to gain.

Measured on an x86 processor with AVX-512; on other kinds than x86 models stay as they are.
"""

import functools
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import Model, Node, Output, opset13

TILE = 4
"""Rows and columns of the output that Winograd's algorithm computes together."""

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
"""Where it evaluates its polynomials, besides infinity. The customary 0, 1, -1, 2, -2 spare multiplications
where transforms are written out by hand; here they are matrix products, and these points halve the rounding
error (to 1.3e-6 of the values' spread; summing directly has 0.2e-6)."""

LEAST_CHANNELS = 128
"""Of input and output from which on it is faster: with fewer, the transforms outweigh what is saved."""

MANY_OUTPUTS, MANY_CELLS = 512, 128 * 128
"""Channels and cells of an output from which on OpenVINO's int8 convolution of signed values drops to half
its speed; in strips it does not."""


def rewritten(model: Model) -> Model:
    """Rewrite the convolutions of `model` that gain from it, in place; the shapes of its inputs are known."""
    if platform.machine() in ("x86_64", "AMD64"):
        for node in model.get_ordered_ops():
            if _is_plain_3x3(node):
                _rewrite(node)
        model.validate_nodes_and_infer_types()
    return model


def _rewrite(node: Node) -> None:
    values, weights = node.input_values()
    outputs, inputs = weights.get_shape()[:2]
    _, _, height, width = node.output(0).get_shape()
    int8 = values.get_node().get_type_name() == "FakeQuantize"
    if int8 and outputs >= MANY_OUTPUTS and height * width >= MANY_CELLS:
        node.output(0).replace(_in_strips(values, weights))
    elif weights.get_node().get_type_name() == "Constant" and min(inputs, outputs) >= LEAST_CHANNELS:
        node.output(0).replace(_winograd(values, weights.get_node().data))


def _is_plain_3x3(node: Node) -> bool:
    """Whether it is a convolution of one picture, 3x3, of stride 1, with a margin that keeps the size."""
    if node.get_type_name() != "Convolution":
        return False
    sizes = [value.get_partial_shape() for value in node.input_values()]
    if not all(size.is_static for size in sizes):
        return False
    (count, _, *size), (_, _, *kernel) = (list(size.to_shape()) for size in sizes)
    attributes = node.get_attributes()
    ones = all(list(attributes[name]) == [1, 1] for name in ("strides", "dilations", "pads_begin"))
    kept = list(node.output(0).get_shape())[2:] == size
    return count == 1 and kernel == [3, 3] and ones and kept


def _winograd(values: Output, weights: NDArray[np.float32]) -> Output:
    """Convolve values (1, C, H, W) with weights (K, C, 3, 3) in 36 multiplications for 16 results, not 144.

    F(4x4, 3x3) of Lavin and Gray, arXiv 1509.09308, as three matrix products: of the tiles with a constant
    matrix, of each of their 36 components with the weights', and of the results with a constant matrix.
    """
    from_tiles, from_weights, to_results = transforms()
    _, channels, height, width = values.get_shape()
    kernels = len(weights)
    down, across = -(-height // TILE), -(-width // TILE)
    span, components = TILE + 2, (TILE + 2) ** 2
    seen = from_weights @ weights.reshape(-1, 9).T.astype(np.float64)  # (36, K x C)
    margins = [TILE * down + 1 - height, TILE * across + 1 - width]
    padded = opset13.pad(values, [0, 0, 1, 1], [0, 0, *margins], "constant", np.float32(0))
    tiles = opset13.extract_image_patches(padded, [span] * 2, [TILE] * 2, [1, 1], "VALID")

    def shaped(node: Node, *shape: int) -> Node:
        return opset13.reshape(node, list(shape), special_zero=False)

    x = _product(from_tiles, shaped(tiles, components, channels * down * across))
    x = _product(seen.reshape(components, kernels, channels), shaped(x, components, channels, down * across))
    x = _product(to_results, shaped(x, components, kernels * down * across))
    x = opset13.depth_to_space(shaped(x, 1, TILE**2 * kernels, down, across), "blocks_first", TILE)
    return opset13.slice(x, [0, 0], [height, width], [1, 1], [2, 3]).output(0)


def _product(matrix: NDArray[Any], node: Node) -> Node:
    constant = opset13.constant(matrix.astype(np.float32))  # an array as it is would go through a list
    return opset13.matmul(constant, node, transpose_a=False, transpose_b=False)


@functools.cache
def transforms() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Matrices, float64, for tiles (36, 36), weights (36, 9) and results (16, 36), all of two dimensions.

    Those of Toom and Cook for POINTS, turned round as Winograd did: Barabasz et al., arXiv 1803.10986.
    """
    points = np.array(POINTS)
    powers = points[:, None] ** np.arange(TILE)
    results = np.column_stack([powers.T, np.eye(TILE)[-1]])
    tiles, weights = np.zeros((TILE + 2, TILE + 2)), np.zeros((TILE + 2, 3))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        tiles[i, :-1] = np.poly(others)[::-1]
        weights[i] = powers[i, :3] / np.prod(point - others)
    tiles[-1], weights[-1] = np.poly(points)[::-1], [0, 0, 1]
    return np.kron(tiles, tiles), np.kron(weights, weights), np.kron(results, results)


def _in_strips(values: Output, weights: Output) -> Output:
    """Convolve the upper and the lower half of the rows, each with the row it needs of the other."""
    height = values.get_shape()[2]
    middle = height // 2

    def strip(first: int, last: int, margins: Sequence[int]) -> Node:
        rows = opset13.slice(values, [first], [last], [1], [2])
        above, below = margins
        return opset13.convolution(rows, weights, [1, 1], [above, 1], [below, 1], [1, 1])

    halves = [strip(0, middle + 1, (1, 0)), strip(middle - 1, height, (0, 1))]
    return opset13.concat(halves, 2).output(0)
