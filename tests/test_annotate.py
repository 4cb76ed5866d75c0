from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from live_seg.drawing.annotate import colour, draw
from live_seg.errors import UsageError
from live_seg.models.classes import COCO_CLASSES
from live_seg.types import Image, Instances

Box = tuple[float, float, float, float]


def grey(height: int, width: int) -> Image:
    """Return an image of a grey that neither labels nor their text have."""
    return np.full((height, width, 3), 127, np.uint8)


def noise(height: int, width: int) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def found(*boxes: Box, mask: NDArray[np.float32] | None = None, tracks: list[int] | None = None) -> Instances:
    """Return persons with these boxes and the same `mask` (M, M), by default all ones."""
    n = len(boxes)
    mask = np.ones((28, 28), np.float32) if mask is None else mask
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        masks=np.tile(mask, (n, 1, 1)),
        class_ids=np.ones(n, np.int32),
        scores=np.full(n, 0.9, np.float32),
        track_ids=None if tracks is None else np.array(tracks, np.int32),
        confirmed=None if tracks is None else np.ones(n, bool),
    )


def disc() -> NDArray[np.float32]:
    """Return a soft-edged disc with a radius of 0.35 box sides."""
    centres = (np.arange(28, dtype=np.float32) + 0.5) / 28 - 0.5
    return np.clip((0.35 - np.hypot(centres[:, None], centres)) * 14 + 0.5, 0, 1).astype(np.float32)


def touched(before: Image, after: Image) -> NDArray[np.bool_]:
    return np.asarray(np.any(before != after, axis=2))


def extent(pixels: NDArray[np.bool_]) -> tuple[int, int]:
    """Return height and width of the bounding box of `pixels`."""
    rows, columns = np.nonzero(pixels)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def plate_of(instances: Instances, height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels of a grey image that labels of `instances` change."""
    bare = draw(grey(height, width), instances, COCO_CLASSES, alpha=0, boxes=False, labels=False)
    return touched(bare, draw(grey(height, width), instances, COCO_CLASSES, alpha=0, boxes=False))


def test_without_instances_the_result_is_an_equal_copy() -> None:
    image = noise(31, 47)
    drawn = draw(image, Instances.empty(), COCO_CLASSES)
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_the_input_is_not_modified_even_if_it_is_a_view() -> None:
    image = noise(200, 300)[::2, ::-1]
    before = image.copy()
    image.flags.writeable = False
    drawn = draw(image, found((20, 30, 90, 80)), COCO_CLASSES)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(drawn, draw(before, found((20, 30, 90, 80)), COCO_CLASSES))
    assert touched(image, drawn).any()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.45, 1.0])
def test_alpha_is_the_opacity_of_the_tint(alpha: float) -> None:
    image = noise(120, 160)
    instances = found((20, 30, 120, 100), tracks=[5])
    drawn = draw(image, instances, COCO_CLASSES, alpha=alpha, labels=False, boxes=False)
    inside = np.s_[40:90, 30:110]  # clear of the outline
    expected = image[inside] * (1 - alpha) + np.array(colour(5)) * alpha
    assert np.abs(drawn[inside] - expected).max() <= 0.5 + 1e-3


def test_the_tint_stays_in_the_mask_and_the_outline_on_its_edge() -> None:
    image = noise(300, 300)
    drawn = draw(image, found((50, 50, 250, 250), mask=disc()), COCO_CLASSES, labels=False, boxes=False)
    away = np.hypot(*(np.indices((300, 300)) + 0.5 - 150))
    changed = touched(image, drawn)
    assert not changed[away > 0.35 * 200 + 2.5].any()
    assert np.mean(changed[away < 0.35 * 200 - 2.5]) > 0.99  # a tinted pixel may equal the original
    ring = drawn[np.abs(away - 0.35 * 200 + 1) < 0.5]
    assert np.median(np.abs(ring - np.array(colour(0), float))) < 60  # antialiased


def test_outlines_are_drawn_without_a_tint_and_around_holes() -> None:
    ring = disc()
    ring[11:17, 11:17] = 0
    image = grey(300, 300)
    drawn = draw(
        image, found((50, 50, 250, 250), mask=ring), COCO_CLASSES, alpha=0, labels=False, boxes=False
    )
    middle = np.flatnonzero(touched(image, drawn)[150])
    assert np.count_nonzero(np.diff(middle) > 1) == 3, "outer, hole, hole, outer"
    assert not touched(image, drawn)[150, 150]


def test_an_empty_mask_draws_nothing() -> None:
    image = noise(100, 100)
    nothing = found((20, 40, 80, 90), mask=np.zeros((28, 28), np.float32))
    np.testing.assert_array_equal(draw(image, nothing, COCO_CLASSES, labels=False, boxes=False), image)


def test_boxes_can_be_turned_off() -> None:
    image = grey(200, 200)
    instances = found((50, 60, 150, 140), mask=disc())
    boxed = draw(image, instances, COCO_CLASSES, labels=False)
    for row, column in [(60, 50), (60, 149), (139, 50), (139, 149), (60, 100), (100, 50)]:
        np.testing.assert_array_equal(boxed[row, column], colour(0))
    bare = draw(image, instances, COCO_CLASSES, labels=False, boxes=False)
    frame = touched(bare, boxed)
    frame[58:143, 48:53] = frame[58:143, 147:152] = frame[58:63, 48:152] = frame[137:142, 48:152] = False
    assert not frame.any()
    assert not touched(image, bare)[60, 50:150].any()


def test_masks_can_be_turned_off() -> None:
    image, instances = noise(300, 300), found((50, 50, 250, 250), mask=disc())
    np.testing.assert_array_equal(
        draw(image, instances, COCO_CLASSES, masks=False, boxes=False, labels=False), image
    )
    boxed = draw(image, instances, COCO_CLASSES, masks=False, labels=False)
    np.testing.assert_array_equal(boxed[60:240, 60:240], image[60:240, 60:240])
    assert touched(image, boxed)[50, 50:250].any()


def test_a_label_is_above_its_box() -> None:
    image = grey(200, 300)
    instances = found((100, 80, 200, 180))
    with_label, without = (draw(image, instances, COCO_CLASSES, labels=labels) for labels in (True, False))
    plate = touched(with_label, without)
    assert not plate[80:].any()
    assert plate[79, 100]
    assert not touched(image, without)[:78].any()


@pytest.mark.parametrize("box", [(0, 0, 50, 50), (270, 0, 299, 60), (-90, 100, 3, 150), (290, 195, 400, 300)])
def test_a_label_is_moved_into_the_frame(box: Box) -> None:
    roomy = plate_of(found((100, 80, 200, 180)), 200, 300)
    assert extent(plate_of(found(box), 200, 300)) == extent(roomy)


def test_a_label_shows_the_class_and_the_track_id() -> None:
    box = (100.0, 80.0, 200.0, 180.0)
    _, plain = extent(plate_of(found(box), 200, 300))
    _, tracked = extent(plate_of(found(box, tracks=[3]), 200, 300))
    _, longer = extent(plate_of(found(box, tracks=[1234]), 200, 300))
    assert plain < tracked < longer
    giraffe = Instances(**{**vars(found(box)), "class_ids": np.array([24], np.int32)})
    assert COCO_CLASSES[24] == "giraffe"
    assert not np.array_equal(plate_of(giraffe, 200, 300), plate_of(found(box), 200, 300))


@pytest.mark.parametrize("top", [0, 10, 100])
def test_labels_do_not_overlap(top: int) -> None:
    boxes: list[Box] = [(100 + 9 * i, top + i, 180, 190) for i in range(4)]
    apart = sum(plate_of(found(box), 200, 300).sum() for box in boxes)
    assert plate_of(found(*boxes), 200, 300).sum() == apart


@pytest.mark.parametrize(("height", "width", "least"), [(432, 768, 18), (720, 1280, 22)])
def test_labels_of_a_busy_frame_are_large_enough_and_apart(height: int, width: int, least: int) -> None:
    boxes: list[Box] = [
        (width * x, height * (0.3 + y / 9), width * (x + 0.12), height * (0.5 + y / 9))
        for x in (0.1, 0.17, 0.45, 0.52, 0.8)
        for y in range(3)
    ]
    tracks, empty = list(range(1, len(boxes) + 1)), np.zeros((28, 28), np.float32)  # labels without outlines
    assert extent(plate_of(found(boxes[0], mask=empty, tracks=[1]), height, width))[0] >= least
    alone = [
        plate_of(found(box, mask=empty, tracks=[track]), height, width).sum()
        for box, track in zip(boxes, tracks, strict=True)
    ]
    assert plate_of(found(*boxes, mask=empty, tracks=tracks), height, width).sum() == sum(alone)


def test_labels_keep_their_order_when_box_sizes_change() -> None:
    boxes: list[Box] = [(50, 100, 150, 180), (50, 100, 160, 190)]
    first = draw(grey(200, 300), found(*boxes, tracks=[1, 2]), COCO_CLASSES)
    later = draw(grey(200, 300), found(*boxes[::-1], tracks=[1, 2]), COCO_CLASSES)
    np.testing.assert_array_equal(first[:98], later[:98])
    assert touched(grey(200, 300), first)[:98].any()


def test_without_room_labels_overlap_but_stay_in_the_frame() -> None:
    box = (10.0, 0.0, 90.0, 25.0)
    height, width = extent(plate_of(found(box), 25, 200))
    assert 2 * height > 25
    assert extent(plate_of(found(box, box), 25, 200)) == (height, width)


def test_more_labels_than_fit_are_still_drawn() -> None:
    boxes: list[Box] = [(5, 5, 30, 30)] * 30
    assert plate_of(found(*boxes), 40, 60).any()


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_small_instances_are_drawn_on_top_of_large_ones(order: list[int]) -> None:
    instances = found((10, 10, 190, 190), (80, 80, 120, 120), tracks=[1, 2])[order]
    drawn = draw(grey(200, 200), instances, COCO_CLASSES, alpha=1, labels=False)
    np.testing.assert_array_equal(drawn[100, 100], colour(2))
    np.testing.assert_array_equal(drawn[40, 40], colour(1))


def test_the_result_does_not_depend_on_the_order_of_tracks() -> None:
    instances = found((10, 40, 90, 190), (50, 30, 120, 120), (100, 99, 180, 130), tracks=[4, 1, 9])
    image = noise(200, 200)
    drawn = draw(image, instances, COCO_CLASSES)
    for order in ([2, 1, 0], [1, 2, 0]):
        np.testing.assert_array_equal(draw(image, instances[order], COCO_CLASSES), drawn)


def test_lines_and_text_scale_with_the_image() -> None:
    widths, rises = [], []
    for side in (150, 720, 1500):
        instances = found((side * 0.3, side * 0.3, side * 0.8, side * 0.8), mask=disc())
        drawn = draw(grey(side, side), instances, COCO_CLASSES, labels=False)
        beside_disc = int(side * 0.35)
        widths.append(np.count_nonzero(touched(grey(side, side), drawn)[: side // 2, beside_disc]))
        rises.append(extent(plate_of(instances, side, side))[0])
    assert widths[0] == 1
    assert 2 <= widths[1] <= 3
    assert 3 <= widths[2] <= 5
    assert rises[2] > 2 * rises[0]


edges = st.one_of(st.integers(-8, 70), st.floats(-8, 70, width=32))


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    boxes=st.lists(st.tuples(edges, edges, edges, edges), max_size=5),
    side=st.sampled_from([1, 2, 28]),
    seed=st.integers(0, 99),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_any_box_can_be_drawn_on_an_image_of_any_size(
    size: tuple[int, int], boxes: list[Box], side: int, seed: int, flags: tuple[bool, bool]
) -> None:
    image = noise(*size)
    before = image.copy()
    instances = found(*boxes, mask=np.random.default_rng(seed).random((side, side), np.float32))
    drawn = draw(image, instances, COCO_CLASSES, labels=flags[0], boxes=flags[1])
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    near = np.zeros(size, bool)
    for rows, columns in (region for region, bits in instances.soft_masks(size) if bits.size):
        near[max(0, rows.start - 2) : rows.stop + 2, max(0, columns.start - 2) : columns.stop + 2] = True
    if not flags[0] or not near.any():
        assert not touched(image, drawn)[~near].any()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_outside_0_to_1_is_rejected(alpha: float) -> None:
    with pytest.raises(UsageError, match="alpha"):
        draw(grey(9, 9), Instances.empty(), COCO_CLASSES, alpha=alpha)


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3), np.float32)]
)
def test_images_of_other_shapes_and_types_are_rejected(image: Any) -> None:
    with pytest.raises(UsageError, match="BGR"):
        draw(image, Instances.empty(), COCO_CLASSES)


def test_a_class_without_a_name_is_rejected() -> None:
    with pytest.raises(UsageError, match=r"Class id 1 has no name: 1 class"):
        draw(grey(9, 9), found((1, 1, 5, 5)), ["background"])


def test_colours_are_constant_and_repeat_after_21() -> None:
    assert colour(0) == (0x00, 0x9F, 0xE6)  # Okabe & Ito's orange, as BGR
    assert len({colour(key) for key in range(21)}) == 21
    assert [colour(key + 21) for key in range(21)] == [colour(key) for key in range(21)]


def linear(bgr: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return linear red, green, blue of an sRGB colour (IEC 61966-2-1)."""
    share = np.array(bgr[::-1]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


COLOUR_VISION = {  # Machado, Oliveira & Fernandes 2009, table 1, severity 1
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_colours_are_distinguishable_with_every_kind_of_colour_vision(vision: str) -> None:
    seen = np.array([np.array(COLOUR_VISION[vision]) @ linear(colour(key)) for key in range(21)]).clip(0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = seen @ to_xyz.T / to_xyz.sum(axis=1)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
    apart = np.linalg.norm(lab[:, None] - lab, axis=2)[np.triu_indices(21, 1)]
    assert apart.min() > 3 * 2.3  # 2.3 is just noticeable (Mahy et al. 1994)


@pytest.mark.parametrize("key", range(21))
def test_every_label_has_enough_contrast(key: int) -> None:
    drawn = draw(grey(600, 600), found((10, 300, 90, 590), tracks=[key]), COCO_CLASSES, alpha=0, boxes=False)
    shades = np.unique(drawn[280:298, 12:80].reshape(-1, 3), axis=0)
    luminance = np.array([linear((b, g, r)) for b, g, r in shades.tolist()]) @ (0.2126, 0.7152, 0.0722)
    assert (luminance.max() + 0.05) / (luminance.min() + 0.05) > 4.5  # WCAG 2.2, level AA
