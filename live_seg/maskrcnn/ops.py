"""Operations with a faster form on one Keras backend. Only this module chooses by backend."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from live_seg.maskrcnn.boxes import Tensor, iou
from live_seg.recent import Recent

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None


LOWEST = -1e30
"""NMS ignores lower scores. Finite, as TensorFlow's kernels require."""


def nms(boxes: Tensor, scores: Tensor, limit: int, threshold: float) -> tuple[Tensor, Tensor]:
    """Apply greedy non-maximum suppression to each image.

    boxes (B, N, 4), scores (B, N), -inf for boxes to ignore. Returns indices (B, limit) int32 of the kept
    boxes, best first, and which of them are valid (B, limit) bool; the others are 0. A box is suppressed when
    its IoU with a better one exceeds `threshold`.
    """
    if tf is None:
        return greedy_nms(boxes, scores, limit, threshold)

    def keep(boxes: Tensor, scores: Tensor) -> Tensor:
        return tf.image.non_max_suppression(boxes, scores, limit, threshold, LOWEST)

    return _per_image(keep, (boxes, scores), limit)


MOST_OVERLAPS = 2000
"""Boxes up to which the overlaps of all pairs are computed: 16 MB for each image."""


def nms_within_class(
    boxes: Tensor, class_ids: Tensor, scores: Tensor, limit: int, threshold: float
) -> tuple[Tensor, Tensor]:
    """Apply `nms` where boxes only compete with those of the same class (B, N)."""
    if tf is None or boxes.shape[1] > MOST_OVERLAPS:
        return greedy_nms(boxes, scores, limit, threshold, class_ids)

    def keep(overlaps: Tensor, scores: Tensor) -> Tensor:
        return tf.image.non_max_suppression_overlaps(overlaps, scores, limit, threshold, LOWEST)

    rivals = class_ids[:, :, None] == class_ids[:, None, :]
    return _per_image(keep, (ops.where(rivals, iou(boxes, boxes), 0.0), scores), limit)


def _per_image(keep: Callable[..., Tensor], inputs: tuple[Tensor, ...], limit: int) -> tuple[Tensor, Tensor]:
    """Apply `keep`, which returns the kept indices of one image, to each; pad them to `limit`."""

    def padded(image: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        kept = keep(*image)
        count = tf.shape(kept)[0]
        return tf.pad(kept, [[0, limit - count]]), count

    if inputs[0].shape[0] == 1:
        kept, count = padded(tuple(part[0] for part in inputs))
        return kept[None], tf.range(limit)[None] < count
    kept, count = tf.map_fn(
        padded, inputs, fn_output_signature=(tf.TensorSpec((limit,), tf.int32), tf.TensorSpec((), tf.int32))
    )
    return kept, tf.range(limit)[None] < count[:, None]


def greedy_nms(
    boxes: Tensor, scores: Tensor, limit: int, threshold: float, class_ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Apply `nms` or `nms_within_class` on any backend: take the best box, suppress its overlaps, and repeat.

    Shapes are static. Only overlaps with boxes taken are computed, so that there may be many.
    """
    empty = ops.zeros_like(scores[:, :1], dtype="int32") + ops.zeros((1, limit), "int32")

    def take_best(step: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        left, kept, valid = state
        best = ops.argmax(left, axis=-1)[:, None]  # (B, 1)
        found = ops.take_along_axis(left, best, axis=1) > LOWEST
        overlaps = iou(ops.take_along_axis(boxes, best[..., None], axis=1), boxes)[:, 0]
        gone = overlaps > threshold
        if class_ids is not None:
            gone = gone & (class_ids == ops.take_along_axis(class_ids, best, axis=1))
        gone = gone | (ops.arange(scores.shape[1])[None] == ops.cast(best, "int32"))
        now = ops.arange(limit)[None] == step
        kept = ops.where(now & found, ops.cast(best, "int32"), kept)
        return ops.where(gone & found, -float("inf"), left), kept, valid | (now & found)

    _, kept, valid = ops.fori_loop(0, limit, take_best, (scores, empty, empty > 0))
    return kept, valid


def doubled(feature_map: Tensor) -> Tensor:
    """Repeat each row and each column of a map (B, h, w, C) -> (B, 2h, 2w, C)."""
    if tf is None:
        return ops.repeat(ops.repeat(feature_map, 2, axis=1), 2, axis=2)
    return tf.image.resize(feature_map, 2 * tf.shape(feature_map)[1:3], "nearest")


def crop(
    pyramid: Sequence[Tensor], level: Tensor, boxes: Tensor, rows: Tensor, side: int, repeated: int = 0
) -> tuple[Tensor, Tensor]:
    """Sample `side` x `side` points, edge to edge, in each box: bilinear, zero outside the map.

    pyramid: maps (B, h, w, C); level, rows (K,) int32: map and image of each box; boxes (K, 4), 0..1 from the
    first row and column of the map to the last. With `repeated` 1, the last row and column are repeated once,
    and 1 is the second of the two.
    Returns crops (K, side, side, C), ordered by level to avoid a copy, and the box of each crop (K,) int32.
    Samples as TensorFlow's `crop_and_resize`, which Matterport's RoIAlign uses.
    """
    if tf is None:
        return _gathered_crop(pyramid, level, boxes, rows, side, repeated)
    if repeated:
        pyramid = [tf.pad(one, [(0, 0), (0, 1), (0, 1), (0, 0)], "SYMMETRIC") for one in pyramid]
    members = [tf.where(level == i)[:, 0] for i in range(len(pyramid))]
    crops = [
        tf.image.crop_and_resize(feature_map, tf.gather(boxes, chosen), tf.gather(rows, chosen), (side, side))
        for feature_map, chosen in zip(pyramid, members, strict=True)
    ]
    order = tf.cast(tf.concat(members, axis=0), tf.int32)
    count = boxes.shape[0]
    return (
        tf.ensure_shape(tf.concat(crops, axis=0), (count, side, side, pyramid[0].shape[-1])),
        tf.ensure_shape(order, (count,)),
    )


def crop_from(feature_map: Tensor, boxes: Tensor, rows: Tensor, side: int) -> Tensor:
    """Apply `crop` to one map (B, h, w, C) -> (K, side, side, C), in the order of the boxes."""
    feature_map = ops.cast(feature_map, "float32")  # TensorFlow's kernel has no gradient in half precision
    if tf is None:
        return _gathered_crop([feature_map], ops.zeros_like(rows), boxes, rows, side)[0]
    crops = tf.image.crop_and_resize(feature_map, boxes, rows, (side, side))
    return tf.ensure_shape(crops, (boxes.shape[0], side, side, feature_map.shape[-1]))


def _gathered_crop(
    pyramid: Sequence[Tensor], level: Tensor, boxes: Tensor, rows: Tensor, side: int, repeated: int = 0
) -> tuple[Tensor, Tensor]:
    """Compute `crop` with static shapes: one gather from the flattened maps, in the order of the boxes."""
    channels = pyramid[0].shape[-1]
    flat = ops.concatenate([ops.reshape(feature_map, (-1, channels)) for feature_map in pyramid])
    starts = np.cumsum([0, *(math.prod(feature_map.shape[:3]) for feature_map in pyramid[:-1])])
    start, height, width = (
        ops.take(np.asarray(values, "int32"), level)
        for values in (starts, [m.shape[1] for m in pyramid], [m.shape[2] for m in pyramid])
    )
    y, y_inside = _sample_points(boxes[:, 0], boxes[:, 2], height + repeated, side)
    x, x_inside = _sample_points(boxes[:, 1], boxes[:, 3], width + repeated, side)
    top, left = ops.cast(ops.floor(y), "int32"), ops.cast(ops.floor(x), "int32")
    first_cell = start + rows * height * width

    def at(r: Tensor, c: Tensor) -> Tensor:
        r = ops.clip(r, 0, (height - 1)[:, None])
        c = ops.clip(c, 0, (width - 1)[:, None])
        cell = first_cell[:, None, None] + r[:, :, None] * width[:, None, None] + c[:, None, :]
        return ops.take(flat, cell, axis=0)

    across = (x - ops.floor(x))[:, None, :, None]
    down = (y - ops.floor(y))[:, :, None, None]
    upper = at(top, left) * (1 - across) + at(top, left + 1) * across
    lower = at(top + 1, left) * (1 - across) + at(top + 1, left + 1) * across
    inside = (y_inside[:, :, None] & x_inside[:, None, :])[..., None]
    return ops.where(inside, upper * (1 - down) + lower * down, 0.0), ops.arange(boxes.shape[0])


def _sample_points(start: Tensor, end: Tensor, length: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return sample points (K, side) on an axis of `length` (K,) cells, and which of them are on it."""
    last = ops.cast(length - 1, "float32")[:, None]
    # In TensorFlow's order: rounding decides whether the last point of a clipped box is inside the map.
    step = (end - start)[:, None] * last / (side - 1)
    points = start[:, None] * last + np.arange(side, dtype="float32") * step
    return points, (points >= 0) & (points <= last)


@contextlib.contextmanager
def out_of_memory() -> Iterator[None]:
    """Raise the backend's out-of-memory errors as MemoryError."""
    try:
        yield
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error) or type(error).__name__ == "ResourceExhaustedError":
            raise MemoryError(f"The device has too little memory: {str(error)[:200]}") from error
        raise


def devices() -> str:
    """Return the type and number of the backend's devices, such as "CPU", "GPU" or "2 x GPU"."""
    names = [name.partition(":")[0].upper() for name in keras.distribution.list_devices()]
    chosen = [name for name in names if name != "CPU"] or ["CPU"]
    return chosen[0] if len(chosen) == 1 else f"{len(chosen)} x {chosen[0]}"


def grow_memory() -> None:
    """Let TensorFlow allocate GPU memory as needed. Has no effect on a GPU already in use."""
    for gpu in [] if tf is None else tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)


def compiled(function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
    """Compile `function`, which runs layers of `model` on tensors, into graphs of the backend.

    One graph serves all lengths of the arguments' first axes. TensorFlow traces them as unknown. For other
    backends they are zero-padded to a power of two, and results are cut to the length of the last argument.
    """
    return _traced(function, model) if tf is not None else _jitted(function, model)


LARGEST_CONSTANT = 64 * 2**20
"""Weights of up to this many bytes become constants of each graph. TensorFlow then folds batch norms into
convolutions, which saves a fifth of a small network's time. Each graph holds a copy."""


SIZES_OF_SMALL, SIZES_OF_LARGE = 12, 3
"""Input sizes whose graphs are kept, of networks up to and above LARGEST_CONSTANT."""


def _traced(function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
    small = sum(math.prod(variable.shape) * 4 for variable in model.variables) <= LARGEST_CONSTANT
    graphs: Recent[Any, Callable[..., Any]] = Recent(SIZES_OF_SMALL if small else SIZES_OF_LARGE)

    def spec(tensor: Tensor) -> Any:
        return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)

    def trace(arguments: tuple[Any, ...]) -> Callable[..., Any]:
        signature = keras.tree.map_structure(spec, arguments)
        # A new partial each: TensorFlow would warn of needless retracing for many image sizes.
        graph = tf.function(functools.partial(function), input_signature=signature, autograph=False)
        return _with_constants(graph) if small else graph

    def call(*arguments: Any) -> Any:
        return graphs.get(_signature(arguments), lambda: trace(arguments))(*arguments)

    return call


def _signature(arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], ...]:
    """Return type and shape of each tensor without its first axis: what a graph is traced for."""
    return tuple((str(tensor.dtype), *tensor.shape[1:]) for tensor in keras.tree.flatten(arguments))


def _with_constants(graph: Any) -> Callable[..., Any]:
    """Replace the variables of a graph by constants with their current values."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    concrete = graph.get_concrete_function()
    frozen = convert_variables_to_constants_v2(concrete)

    def call(*arguments: Any) -> Any:
        tensors = [tf.convert_to_tensor(tensor) for tensor in keras.tree.flatten(arguments)]
        return keras.tree.pack_sequence_as(concrete.structured_outputs, tf.nest.flatten(frozen(*tensors)))

    return call


def _jitted(function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
    import jax

    def pure(values: list[Tensor], arguments: tuple[Any, ...]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
            return function(*arguments)

    graphs: Recent[Any, Callable[..., Any]] = Recent(SIZES_OF_LARGE)

    def padded(tensor: Tensor) -> Tensor:
        length = 2 ** math.ceil(math.log2(max(1, tensor.shape[0])))
        return ops.pad(tensor, [(0, length - tensor.shape[0]), *[(0, 0)] * (len(tensor.shape) - 1)])

    def call(*arguments: Any) -> Any:
        length = arguments[-1].shape[0]
        values = [variable.value for variable in model.variables]
        graph = graphs.get(_signature(arguments), lambda: jax.jit(functools.partial(pure)))
        results = graph(values, keras.tree.map_structure(padded, arguments))
        return keras.tree.map_structure(lambda tensor: tensor[:length], results)

    return call
