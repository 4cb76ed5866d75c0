"""Effects: pixels they change, pixels they must not change, and the arithmetic of soft edges."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from live_seg.drawing.blending import Alpha, blend, matte
from live_seg.drawing.effects import EFFECTS, Effect, effect_of, replace_background
from live_seg.errors import SourceError, UsageError
from live_seg.types import Image, Instances

HIDING = ["blur", "pixelate"]
BACKGROUNDS = ["blur-background", "grey-background", "replace-background"]


def noise(height: int = 120, width: int = 160, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def found(*boxes: tuple[float, float, float, float], masks: NDArray[np.float32] | None = None) -> Instances:
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        masks=np.ones((len(boxes), 28, 28), np.float32) if masks is None else masks,
        class_ids=np.ones(len(boxes), np.int32),
        scores=np.ones(len(boxes), np.float32),
    )


def disc() -> NDArray[np.float32]:
    rows, columns = np.mgrid[:28, :28] - 13.5
    return np.asarray(np.hypot(rows, columns) < 10, np.float32)[None]


def near(box: tuple[int, int, int, int], margin: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a bool image of `box` expanded by `margin` pixels (shrunk if negative)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    x1, y1, x2, y2 = box
    inside = (columns >= x1 - margin) & (columns < x2 + margin) & (rows >= y1 - margin) & (rows < y2 + margin)
    return np.asarray(inside)


def effect(name: str) -> Effect:
    return replace_background(noise(seed=9)) if name == "replace-background" else EFFECTS[name]


EVERY = pytest.mark.parametrize("name", [*EFFECTS, "replace-background"])


class TestEveryEffect:
    @EVERY
    def test_the_inputs_are_not_modified(self, name: str) -> None:
        image, instances = noise(), found((10, 10, 60, 90))
        made = effect(name)(image, instances)
        np.testing.assert_array_equal(image, noise())
        np.testing.assert_array_equal(instances.masks, 1)
        assert made.shape == (120, 160, 4 if name == "cutout" else 3)
        assert made.dtype == np.uint8
        assert not np.shares_memory(made, image)

    @EVERY
    @given(
        st.tuples(st.integers(1, 70), st.integers(1, 70)),
        st.lists(st.tuples(*[st.floats(-100, 150)] * 2, *[st.floats(0, 150)] * 2), max_size=3),
    )
    def test_images_and_boxes_of_any_size(
        self, name: str, size: tuple[int, int], corners: list[tuple[float, float, float, float]]
    ) -> None:
        image = noise(*size)
        instances = found(*((x, y, x + width, y + height) for x, y, width, height in corners))
        assert effect(name)(image, instances).shape[:2] == size

    @EVERY
    @pytest.mark.parametrize("side", [1, 2, 14, 56])
    def test_masks_of_other_resolutions(self, name: str, side: int) -> None:
        masks = np.ones((1, side, side), np.float32)
        made = effect(name)(noise(), found((30, 20, 90, 100), masks=masks))
        assert (made[60, 60] != effect(name)(noise(), Instances.empty())[60, 60]).any()


class TestHiding:
    @pytest.mark.parametrize("name", HIDING)
    def test_without_instances_nothing_changes(self, name: str) -> None:
        np.testing.assert_array_equal(effect(name)(noise(), Instances.empty()), noise())

    @pytest.mark.parametrize("name", HIDING)
    @pytest.mark.parametrize("box", [(100, 80, 100, 90), (300, 80, 400, 90), (-50, -50, -10, -10)])
    def test_empty_boxes_and_boxes_outside_change_nothing(
        self, name: str, box: tuple[float, float, float, float]
    ) -> None:
        np.testing.assert_array_equal(effect(name)(noise(), found(box)), noise())

    @pytest.mark.parametrize("name", HIDING)
    def test_pixels_outside_are_unchanged_and_pixels_inside_are_hidden(self, name: str) -> None:
        black = np.zeros((200, 300, 3), np.uint8)
        black[::2] = 255  # every pixel is far from the mean of those around it
        box = (100, 50, 212, 162)
        made = effect_of(name, "mask")(black, found(box))
        cell = (212 - 100) // 28
        outside = ~near(box, cell + 2 + 1, (200, 300))  # a cell, the feather twice, rounding
        np.testing.assert_array_equal(made[outside], black[outside])
        assert np.ptp(made[near(box, 0, (200, 300))].astype(int)) < 16

    @pytest.mark.parametrize("name", HIDING)
    def test_the_mask_is_hidden_not_the_box(self, name: str) -> None:
        image = noise(300, 300)
        made = effect_of(name, "mask")(image, found((50, 50, 250, 250), masks=disc()))
        np.testing.assert_array_equal(made[50:75, 50:75], image[50:75, 50:75])
        assert (made[140:160, 140:160] != image[140:160, 140:160]).any(axis=2).mean() > 0.99

    @pytest.mark.parametrize("name", HIDING)
    def test_the_box_is_hidden_with_a_margin_whatever_the_mask(self, name: str) -> None:
        black = np.zeros((300, 300, 3), np.uint8)
        black[::2] = 255
        nothing = np.zeros((1, 28, 28), np.float32)
        made = effect_of(name)(black, found((100, 100, 200, 200), masks=nothing))
        inside, outside = near((100, 100, 200, 200), 5, (300, 300)), near((100, 100, 200, 200), 8, (300, 300))
        assert np.ptp(made[inside].astype(int)) < 40
        np.testing.assert_array_equal(made[~outside], black[~outside])

    @pytest.mark.parametrize("name", HIDING)
    def test_the_hull_is_hidden_but_not_the_corners(self, name: str) -> None:
        ring = np.zeros((1, 28, 28), np.float32)
        ring[0, 6:22, 6:22] = 1
        ring[0, 9:19, 9:28] = 0  # open to the right, as an arm akimbo
        image, box = noise(300, 300), (50, 50, 250, 250)
        hull = effect_of(name, "hull")(image, found(box, masks=ring))
        mask = effect_of(name, "mask")(image, found(box, masks=ring))
        np.testing.assert_array_equal(mask[140:160, 160:180], image[140:160, 160:180])
        assert (hull[140:160, 160:180] != image[140:160, 160:180]).any(axis=2).mean() > 0.99
        np.testing.assert_array_equal(hull[50:80, 50:80], image[50:80, 50:80])

    @pytest.mark.parametrize("name", HIDING)
    def test_each_region_contains_the_one_before(self, name: str) -> None:
        image, instances = noise(300, 300), found((50, 50, 250, 250), masks=disc())
        changed = [
            (effect_of(name, hide)(image, instances) != image).any(axis=2) for hide in ("mask", "hull", "box")
        ]
        for smaller, larger in itertools.pairwise(changed):
            assert larger[smaller].mean() > 0.99
        assert changed[2].sum() > 1.2 * changed[1].sum()

    def test_an_unknown_region(self) -> None:
        with pytest.raises(UsageError, match="hide is 'face': expected mask, hull, box"):
            effect_of("blur", "face")(noise(), Instances.empty())  # type: ignore[arg-type]

    @given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(-20, 130)] * 2, *[st.integers(1, 120)] * 2))
    def test_pixels_with_a_probability_of_at_least_0_3_are_hidden_completely(
        self, seed: int, corner: tuple[int, int, int, int]
    ) -> None:
        x, y, width, height = corner
        masks = np.random.default_rng(seed).random((1, 7, 7), np.float32)
        instances = found((x, y, x + width, y + height), masks=masks)
        made = EFFECTS["pixelate"](noise(), instances)  # noise: pixels that are not hidden differ in colour
        likely = np.zeros((120, 160), bool)
        for region, probability in instances.soft_masks((120, 160)):
            likely[region] |= probability >= 0.3
        block = 2 ** max(1, round(np.log2(max(np.sqrt(width * height) / 8, 1))))
        for top in range(0, 120, block):
            for left in range(0, 160, block):
                tile = np.s_[top : top + block, left : left + block]
                assert len(np.unique(made[tile][likely[tile]], axis=0)) <= 1

    @pytest.mark.parametrize("name", HIDING)
    def test_a_pattern_as_fine_as_a_face_is_removed(self, name: str) -> None:
        """Eyes and mouth of a face 200 pixels high, in a 480 x 600 box, are about 25 pixels apart."""
        stripes = np.zeros((720, 1280, 3), np.uint8)
        stripes[np.arange(720) // 25 % 2 == 0] = 255
        made = effect(name)(stripes, found((400, 100, 880, 700)))
        assert np.ptp(made[200:400, 540:740].astype(int)) < 140
        assert made[200:400, 540:740].std() < 0.3 * stripes[200:400, 540:740].std()

    @pytest.mark.parametrize("name", HIDING)
    def test_a_small_box_on_a_large_one_does_not_refine_it(self, name: str) -> None:
        image, large, small = noise(600, 600), (50, 50, 550, 550), (250, 250, 290, 290)
        alone = effect(name)(image, found(large))
        for boxes in ((large, small), (small, large)):
            np.testing.assert_array_equal(effect(name)(image, found(*boxes)), alone)

    def test_blocks_do_not_move_when_a_box_jitters(self) -> None:
        image = noise(300, 300)
        one = EFFECTS["pixelate"](image, found((50, 50, 250, 250)))
        other = EFFECTS["pixelate"](image, found((53, 48, 251, 254)))
        np.testing.assert_array_equal(one[70:230, 70:230], other[70:230, 70:230])


class TestBackgrounds:
    @pytest.mark.parametrize("name", [*BACKGROUNDS, "cutout"])
    def test_instances_are_unchanged_and_the_background_changes(self, name: str) -> None:
        image, box = noise(200, 300), (80, 40, 220, 180)
        made = effect(name)(image, found(box))[..., :3]
        inside, outside = near(box, -5, (200, 300)), ~near(box, 20, (200, 300))
        np.testing.assert_array_equal(made[inside], image[inside])
        assert (made[outside] != image[outside]).any(axis=1).mean() > 0.98

    @pytest.mark.parametrize("name", [*BACKGROUNDS, "cutout"])
    def test_without_instances_all_is_background(self, name: str) -> None:
        made = effect(name)(noise(), Instances.empty())[..., :3]
        assert (made != noise()).any(axis=2).mean() > 0.98

    @pytest.mark.parametrize(
        ("box", "gap"),
        [
            ((40, 30, 120, 120), np.s_[110:120, 60:100]),
            ((40, 0, 120, 90), np.s_[:10, 60:100]),
            ((0, 30, 120, 90), np.s_[50:70, :10]),
            ((40, 30, 160, 90), np.s_[50:70, 150:]),
        ],
    )
    def test_an_instance_cut_off_by_the_frame_extends_to_its_edge(
        self, box: tuple[float, float, float, float], gap: tuple[slice, slice]
    ) -> None:
        """Masks fade out in their outermost cells although the object continues beyond the frame."""
        masks = np.ones((1, 28, 28), np.float32)
        masks[:, [0, -1]] = masks[:, :, [0, -1]] = 0.45
        np.testing.assert_array_equal(EFFECTS["cutout"](noise(), found(box, masks=masks))[gap][..., 3], 255)

    def test_a_blurred_background_has_no_halo(self) -> None:
        image = np.full((240, 320, 3), 40, np.uint8)
        image[60:180, 100:220] = 250
        made = EFFECTS["blur-background"](image, found((100, 60, 220, 180)))
        assert made[~near((100, 60, 220, 180), 3, (240, 320))].max() <= 43

    def test_a_gap_in_an_instance_is_filled_from_its_surroundings(self) -> None:
        masks = np.ones((1, 28, 28), np.float32)
        masks[0, 13:15, 13:15] = 0
        image = np.full((240, 320, 3), 200, np.uint8)
        made = EFFECTS["blur-background"](image, found((40, 0, 280, 240), masks=masks))
        np.testing.assert_array_equal(made, 200)

    def test_grey_is_the_luminance_of_the_frame(self) -> None:
        made = EFFECTS["grey-background"](noise(), Instances.empty())
        grey = cv2.cvtColor(noise(), cv2.COLOR_BGR2GRAY)
        np.testing.assert_array_equal(made, np.repeat(np.asarray(grey)[..., None], 3, axis=2))

    @pytest.mark.parametrize("size", [(50, 300), (300, 50), (30, 40), (900, 1200), (1, 1)])
    def test_a_new_background_fills_the_frame_and_keeps_its_aspect_ratio(self, size: tuple[int, int]) -> None:
        rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
        away = np.hypot(rows - (size[0] - 1) / 2, columns - (size[1] - 1) / 2)
        behind = np.repeat((away < min(size) / 3)[..., None] * np.uint8(255), 3, axis=2)
        put = replace_background(behind)
        for height, width in ((120, 160), (121, 99), (120, 160)):
            made = put(noise(height, width), Instances.empty())[..., 0] > 127
            if size == (1, 1):
                assert made.shape == (height, width)
                continue
            scale = max(height / size[0], width / size[1])
            radius = min(size) / 3 * scale
            rows, columns = np.mgrid[:height, :width].astype(float)
            away = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2)
            assert made[away < radius - 3 * max(scale, 1)].all()
            assert not made[away > radius + 3 * max(scale, 1)].any()

    def test_a_cutout_is_transparent_and_contains_no_background(self) -> None:
        made = EFFECTS["cutout"](noise(200, 300), found((100, 50, 200, 150)))
        assert (made[60:140, 110:190, 3] == 255).all()
        far = ~near((100, 50, 200, 150), 20, (200, 300))
        assert not made[far].any()


class TestEdges:
    @given(st.integers(0, 2**32 - 1))
    def test_blending_is_the_rounded_weighted_sum(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        under, over = rng.integers(0, 256, (2, 9, 7, 3), np.uint8)
        alpha: Alpha = rng.choice([0, 1, 60, 128, 254, 255], (9, 7)).astype(np.uint8)
        share = alpha[..., None] / 255
        np.testing.assert_allclose(blend(under, over, alpha), under * (1 - share) + over * share, atol=0.501)
        np.testing.assert_array_equal(blend(under, over, alpha)[alpha == 0], under[alpha == 0])
        np.testing.assert_array_equal(blend(under, over, alpha)[alpha == 255], over[alpha == 255])

    def test_overlapping_masks_leave_no_seam(self) -> None:
        alpha = matte(found((20, 20, 80, 100), (70, 20, 140, 100)), (120, 160))
        np.testing.assert_array_equal(alpha[30:90, 30:130], 255)

    @pytest.mark.parametrize(("height", "soft"), [(270, 2), (1080, 4)])
    def test_the_width_of_a_soft_edge_scales_with_the_frame(self, height: int, soft: int) -> None:
        alpha = matte(found((height / 4, height / 4, height / 2, height / 2)), (height, height))
        row = alpha[height * 3 // 8]
        assert np.count_nonzero((row > 0) & (row < 255)) == 2 * soft


class TestEffectOf:
    @pytest.mark.parametrize("name", EFFECTS)
    def test_by_name(self, name: str) -> None:
        image, instances = noise(), found((10, 10, 60, 90))
        np.testing.assert_array_equal(effect_of(name)(image, instances), EFFECTS[name](image, instances))

    def test_replace_background_reads_its_image(self, tmp_path: Path) -> None:
        path = tmp_path / "a=b.png"
        cv2.imwrite(str(path), noise(120, 160, seed=3))
        made = effect_of(f"replace-background={path}")(noise(), Instances.empty())
        np.testing.assert_array_equal(made, noise(120, 160, seed=3))

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("blurr", "Did you mean blur"),
            ("blur=3", "Did you mean blur"),
            ("background-blur", "blur-background"),
            ("sepia", "Known: mask, blur, pixelate, .*cutout, replace-background=IMAGE"),
            ("replace-background", "needs an image file"),
            ("replace-background=", "needs an image file"),
            ("mask", "live_seg.draw"),
        ],
    )
    def test_unknown_effects_are_rejected(self, spec: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            effect_of(spec)

    @pytest.mark.parametrize("name", ["missing.png", "text.png", "."])
    def test_an_unreadable_background_is_rejected(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "text.png").write_text("not an image")
        with pytest.raises(SourceError, match="Cannot read"):
            effect_of(f"replace-background={tmp_path / name}")
