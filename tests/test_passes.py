"""Rewriting passes: the rewritten model computes the same, and cost rules choose the operations."""

import platform
from collections import Counter

import numpy as np
import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from openvino import Model, Node, opset13

from live_seg.engines.openvino.engine import PROPERTIES
from live_seg.engines.openvino.passes import halves, strips, winograd
from live_seg.engines.openvino.passes.rewrite import rewritten
from live_seg.engines.openvino.passes.winograd import MIN_CHANNELS, transforms
from live_seg.engines.openvino.quantize import _ignored
from live_seg.engines.openvino.runtime import core

Image = NDArray[np.float32]


@pytest.fixture(autouse=True)
def on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def noise(seed: int, *shape: int) -> Image:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def network(
    size: tuple[int, ...],
    kernels: int,
    *,
    side: int = 3,
    stride: int = 1,
    margins: tuple[int, int] = (1, 1),
    count: int = 1,
) -> Model:
    """One convolution of images of `size` (C, H, W), with a bias, and a ReLU behind.

    `margins`: above and left, below and right.
    """
    values = opset13.parameter([count, *size], np.float32)
    weights = noise(1, kernels, size[0], side, side) / (side * size[0] ** 0.5)
    before, after = ([margin] * 2 for margin in margins)
    convolved = opset13.convolution(values, weights, [stride] * 2, before, after, [1, 1])
    return Model([opset13.relu(opset13.add(convolved, noise(2, 1, kernels, 1, 1)))], [values])


def int8_network(size: tuple[int, int], kernels: int) -> Model:
    """Signed values of 8 bits, and weights of 8 bits, four channels."""

    def eight_bits(values: Node, reach: float, levels: int) -> Node:
        ends = [np.float32(-reach), np.float32(reach)] * 2
        return opset13.fake_quantize(values, *ends, levels)

    values = opset13.parameter([1, 4, *size], np.float32)
    weights = eight_bits(opset13.constant(noise(1, kernels, 4, 3, 3)), 3.0, 255)
    quantized = eight_bits(values, 4.0, 256)
    return Model([opset13.convolution(quantized, weights, [1, 1], [1, 1], [1, 1], [1, 1])], [values])


def operations(model: Model) -> Counter[str]:
    return Counter(operation.get_type_name() for operation in model.get_ops())


def outcome(model: Model, image: Image) -> Image:
    compiled: openvino.CompiledModel = core().compile_model(model, "CPU", PROPERTIES)
    return np.array(compiled(image)[0])


@given(height=st.integers(1, 18), width=st.integers(1, 18), seed=st.integers(0, 99))
def test_same_result_for_any_size(height: int, width: int, seed: int) -> None:
    size = MIN_CHANNELS, height, width
    image = noise(seed, 1, *size)
    plain, fast = network(size, MIN_CHANNELS), rewritten(network(size, MIN_CHANNELS))
    assert operations(fast)["Convolution"] == 0
    assert operations(fast)["MatMul"] == 3
    expected = outcome(plain, image)
    assert expected.std() > 0.1
    np.testing.assert_allclose(outcome(fast, image), expected, atol=2e-5)


@given(height=st.integers(1, 15), width=st.integers(1, 15), count=st.integers(1, 5), seed=st.integers(0, 99))
def test_same_result_for_any_regions(height: int, width: int, count: int, seed: int) -> None:
    size = MIN_CHANNELS, height, width
    plain = network(size, 130, count=-1)
    fast = rewritten(plain.clone())
    assert operations(fast)["Convolution"] == 0
    assert operations(fast)["MatMul"] == 5
    regions = noise(seed, count, *size)
    expected = outcome(plain, regions)
    assert expected.std() > 0.1
    # Larger tiles round more: the largest error seen was 2.3e-4, the standard deviation is 9e-6.
    found = outcome(fast, regions)
    np.testing.assert_allclose(found, expected, atol=5e-4)
    assert (found - expected).std() < 2e-5


@pytest.mark.parametrize(("channels", "names"), [(MIN_CHANNELS, ["convolution"]), (MIN_CHANNELS - 1, [])])
def test_rewritten_convolutions_of_regions_are_not_quantized(channels: int, names: list[str]) -> None:
    model = network((channels, 7, 7), MIN_CHANNELS, count=-1)
    convolution = next(one for one in model.get_ops() if one.get_type_name() == "Convolution")
    convolution.set_friendly_name("convolution")
    assert _ignored("heads", model, one_stage=False).names == names


@pytest.mark.parametrize("size", [4, 7])
def test_transforms_convolve_one_tile(size: int) -> None:
    tiles, weights, results = transforms(size)
    assert (tiles.shape, weights.shape, results.shape) == (
        (size + 2, size + 2),
        (size + 2, 3),
        (size, size + 2),
    )
    tile, kernel = noise(3, size + 2).astype(np.float64), noise(4, 3).astype(np.float64)
    expected = [tile[x : x + 3] @ kernel for x in range(size)]
    np.testing.assert_allclose(results @ ((tiles @ tile) * (weights @ kernel)), expected, atol=1e-12)


def test_every_convolution_of_a_chain_is_rewritten() -> None:
    values = opset13.parameter([1, 128, 9, 10], np.float32)
    end = values
    for seed in range(3):
        weights = noise(seed, 128, 128, 3, 3) / 34
        end = opset13.relu(opset13.convolution(end, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    image = noise(7, 1, 128, 9, 10)
    plain = Model([end], [values])
    expected = outcome(plain, image)
    fast = rewritten(plain.clone())
    assert operations(fast)["Convolution"] == 0
    np.testing.assert_allclose(outcome(fast, image), expected, atol=2e-5)


def test_regions_are_transposed_once_for_a_chain() -> None:
    values = opset13.parameter([-1, 128, 14, 14], np.float32)
    end = values
    for seed in range(3):
        weights = noise(seed, 128, 128, 3, 3) / 34
        end = opset13.convolution(end, weights, [1, 1], [1, 1], [1, 1], [1, 1])
        end = opset13.relu(opset13.add(end, noise(9 + seed, 1, 128, 1, 1)))
    plain = Model([end], [values])
    fast = rewritten(plain.clone())
    assert operations(fast)["Convolution"] == 0
    assert operations(fast)["Transpose"] == 2
    regions = noise(7, 3, 128, 14, 14)
    np.testing.assert_allclose(outcome(fast, regions), outcome(plain, regions), atol=1e-3)


@pytest.mark.parametrize(
    "model",
    [
        network((127, 8, 8), 128),
        network((128, 8, 8), 127),
        network((128, 8, 8), 128, stride=2),
        network((128, 8, 8), 128, margins=(0, 0)),
        network((128, 8, 8), 128, margins=(2, 0)),
        network((128, 8, 8), 128, side=1, margins=(0, 0)),
        network((128, 8, 8), 128, count=2),
    ],
    ids=["few in", "few out", "stride", "no margin", "uneven margins", "1x1", "two images"],
)
def test_other_convolutions_are_unchanged(model: Model) -> None:
    assert operations(rewritten(model.clone())) == operations(model)


def test_models_are_unchanged_on_other_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    model = network((128, 8, 8), 128)
    assert operations(rewritten(model.clone())) == operations(model)


def test_large_int8_convolutions_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "MANY_CELLS", 9 * 8)
    monkeypatch.setattr(strips, "MANY_OUTPUTS", 16)
    model = int8_network((9, 8), 16)
    split = rewritten(model.clone())
    assert operations(split)["Convolution"] == 2
    image = noise(5, 1, 4, 9, 8)
    np.testing.assert_allclose(outcome(split, image), outcome(model, image), atol=1e-4)


@pytest.mark.parametrize(("size", "kernels"), [((9, 7), 16), ((9, 8), 15)], ids=["few cells", "few outputs"])
def test_smaller_int8_convolutions_are_unchanged(
    size: tuple[int, int], kernels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips, "MANY_CELLS", 9 * 8)
    monkeypatch.setattr(strips, "MANY_OUTPUTS", 16)
    model = int8_network(size, kernels)
    assert operations(rewritten(model.clone())) == operations(model)


def int8_weights(rng: np.random.Generator, *shape: int) -> Node:
    """Weights as NNCF writes them."""
    numbers = opset13.convert(opset13.constant(rng.integers(-127, 128, shape, np.int8)), "f32")
    scale = np.full((shape[0], *[1] * (len(shape) - 1)), 0.01, np.float32)
    return opset13.multiply(numbers, opset13.constant(scale))


def int8_convolution() -> Model:
    """One convolution of quantized values with weights as NNCF writes them."""
    values = opset13.parameter([1, MIN_CHANNELS, 9, 6], np.float32)
    ends = [np.float32(-4), np.float32(4)] * 2
    weights = int8_weights(np.random.default_rng(1), MIN_CHANNELS, MIN_CHANNELS, 3, 3)
    quantized = opset13.fake_quantize(values, *ends, 256)
    return Model([opset13.convolution(quantized, weights, [1, 1], [1, 1], [1, 1], [1, 1])], [values])


def test_int8_convolutions_are_in_float32_where_int8_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "has_fast_int8", lambda: False)
    fast = rewritten(int8_convolution())
    assert operations(fast)["Convolution"] == operations(fast)["FakeQuantize"] == 0
    image = noise(5, 1, MIN_CHANNELS, 9, 6)
    # Not the int8 model: without VNNI its sums can exceed 16 bits.
    numbers = np.random.default_rng(1).integers(-127, 128, (MIN_CHANNELS, MIN_CHANNELS, 3, 3), np.int8)
    values = opset13.parameter(image.shape, np.float32)
    weights = opset13.constant(numbers.astype(np.float32) * np.float32(0.01))
    plain = Model([opset13.convolution(values, weights, [1, 1], [1, 1], [1, 1], [1, 1])], [values])
    np.testing.assert_allclose(outcome(fast, image), outcome(plain, image), atol=1e-3)


def test_int8_convolutions_are_unchanged_where_int8_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "has_fast_int8", lambda: True)
    model = int8_convolution()
    assert operations(rewritten(model.clone())) == operations(model)


def int8_product(inputs: int, *, units: int = 24) -> Model:
    """Regions (N, inputs) times int8 weights, as NNCF writes them."""
    regions = opset13.parameter([-1, inputs], np.float32)
    ends = [np.float32(-4), np.float32(4)] * 2
    weights = int8_weights(np.random.default_rng(1), units, inputs)
    product = opset13.matmul(opset13.fake_quantize(regions, *ends, 256), weights, False, True)
    return Model([opset13.relu(product)], [regions])


@pytest.mark.parametrize(("inputs", "products"), [(95, 1), (96, 2), (97, 2)])
def test_long_int8_products_are_halved(inputs: int, products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "LONG_SUM", 96)
    model = int8_product(inputs)
    halved = rewritten(model.clone())
    assert operations(halved)["MatMul"] == products
    regions = noise(3, 7, inputs)
    expected = outcome(model, regions)
    assert expected.std() > 1
    np.testing.assert_allclose(outcome(halved, regions), expected, rtol=1e-4, atol=1e-4)


def test_long_float32_products_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "LONG_SUM", 96)
    regions = opset13.parameter([-1, 96], np.float32)
    product = opset13.matmul(regions, opset13.constant(noise(1, 24, 96)), False, True)
    assert operations(rewritten(Model([product], [regions])))["MatMul"] == 1
