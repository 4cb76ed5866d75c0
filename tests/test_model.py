"""Options of the network: pyramid levels, anchor octaves, one or every class per region."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from live_seg.maskrcnn.backbone import build_backbone
from live_seg.maskrcnn.config import MOBILE, MaskRCNNConfig
from live_seg.maskrcnn.fpn import FeaturePyramid
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.maskrcnn.roi import Detections, refine, select
from tests.marks import slow
from tests.stand_ins import TINY

WHOLE = np.array([[0, 0, 1, 1]], np.float32)


@pytest.fixture(scope="module", params=[slow(0), 1])
def network(request: pytest.FixtureRequest, light_mobile: None) -> MaskRCNN:  # noqa: ARG001
    return MaskRCNN(replace(TINY, num_classes=3, first_level=3, finer_levels=request.param))


def test_maps_of_mobilenet() -> None:
    maps = build_backbone("mobilenetv2")(np.full((1, 64, 64, 3), 100, np.float32))
    assert [tuple(level.shape[1:]) for level in maps] == [
        (16, 16, 144),
        (8, 8, 192),
        (4, 4, 576),
        (2, 2, 320),
    ]
    assert all(np.isfinite(level).all() for level in maps)


class TestPyramid:
    def test_the_plain_maps_are_merged_but_not_smoothed(self) -> None:
        maps = [
            np.random.default_rng(0).random((1, 16 // 2**i, 16 // 2**i, 3 + i), np.float32) for i in range(3)
        ]
        pyramid = FeaturePyramid(3, 4, plain=1)
        finest, middle, coarsest, half = (np.asarray(level) for level in pyramid(maps))
        assert [m.shape for m in (finest, middle, coarsest, half)] == [
            (1, 16, 16, 4),
            (1, 8, 8, 4),
            (1, 4, 4, 4),
            (1, 2, 2, 4),
        ]
        lateral = [np.asarray(conv(x)) for conv, x in zip(pyramid.lateral, maps, strict=True)]
        merged = lateral[2].repeat(2, 1).repeat(2, 2) + lateral[1]
        np.testing.assert_allclose(finest, merged.repeat(2, 1).repeat(2, 2) + lateral[0], atol=1e-5)
        assert len(pyramid.output_convs) == 2

    def test_finer_levels_serve_regions_and_hold_no_anchors(self, network: MaskRCNN) -> None:
        finer = network.config.finer_levels
        pyramid = network.features(np.zeros((1, 64, 64, 3), np.float32))
        assert [level.shape[1] for level in pyramid] == [*[16] * finer, 8, 4, 2, 1]
        logits, deltas = network.rpn_outputs(pyramid)
        cells = 8 * 8 + 4 * 4 + 2 * 2 + 1
        per_cell = len(network.config.anchor_ratios) * len(network.config.anchor_octaves)
        assert (
            len(network.config.anchors((64, 64))[0]) == logits.shape[1] == deltas.shape[1] == cells * per_cell
        )

    def test_small_regions_are_read_from_the_finest_level(self, network: MaskRCNN) -> None:
        marked = [
            np.zeros(level.shape, np.float32) for level in network.features(np.zeros((1, 64, 64, 3), "f4"))
        ]
        marked[0] += 1
        small = np.array([[0.4, 0.4, 0.6, 0.6]], np.float32)
        pooled, _ = network._pool(marked, small, np.zeros(1, np.int32), 7)
        assert np.asarray(pooled).min() == 1


class TestAnchors:
    def test_octaves_multiply_each_scale(self) -> None:
        one = replace(MOBILE, anchor_octaves=(1,), anchor_ratios=(0.5, 1))
        two = replace(one, anchor_octaves=(1, 1.5))
        scaled = replace(one, anchor_scales=tuple(1.5 * scale for scale in one.anchor_scales))
        per_cell = two.anchors((128, 192))[0].reshape(-1, 2, 2, 4)  # octave, ratio
        np.testing.assert_array_equal(per_cell[:, 0].reshape(-1, 4), one.anchors((128, 192))[0])
        np.testing.assert_array_equal(per_cell[:, 1].reshape(-1, 4), scaled.anchors((128, 192))[0])

    def test_matterports_have_one(self) -> None:
        assert len(MaskRCNNConfig().anchors((64, 64))[0]) == 3 * (16**2 + 8**2 + 4**2 + 2**2 + 1)


def detect(rows: list[list[float]], *, every_class: bool, min_score: float = 0.05) -> Detections:
    """Select from regions side by side, whose boxes stay as they are."""
    probabilities = np.array([rows], np.float32)
    count, classes = probabilities.shape[1:]
    left = np.arange(count, dtype=np.float32) / count
    boxes = np.stack([0 * left, left, 0 * left + 1, left + 1 / count], axis=1)[None]
    deltas = np.zeros((1, count, classes, 4), np.float32)
    most = 8 if every_class else None
    refined = refine(boxes, keras.ops.convert_to_tensor(probabilities), deltas, WHOLE, most=most)
    found = select(refined, keep=8, min_score=min_score, max_iou=0.5)
    return Detections(*(np.asarray(part)[0] for part in found))


class TestSelect:
    PROBABILITIES = ([0.5, 0.3, 0.2], [0.1, 0.2, 0.7])

    def test_the_most_probable_class_alone(self) -> None:
        found = detect([*self.PROBABILITIES], every_class=False)
        assert found.class_ids.tolist() == [2, *[0] * 7]
        assert found.scores[0] == pytest.approx(0.7)

    def test_every_class_is_scored_separately(self) -> None:
        found = detect([*self.PROBABILITIES], every_class=True)
        assert found.class_ids.tolist() == [2, 1, 2, 1, 0, 0, 0, 0]
        assert found.scores[:4].tolist() == pytest.approx([0.7, 0.3, 0.2, 0.2])
        assert found.boxes[:4, 1].tolist() == pytest.approx([0.5, 0, 0, 0.5])

    def test_scores_below_the_threshold_are_dropped(self) -> None:
        assert detect([*self.PROBABILITIES], every_class=True, min_score=0.25).class_ids.tolist()[:3] == [
            2,
            1,
            0,
        ]

    def test_each_class_has_its_own_box(self) -> None:
        deltas = np.zeros((1, 1, 3, 4), np.float32)
        deltas[0, 0, 2] = [0, 0, 0, np.log(0.5) / 0.2]  # the second class makes the box half as wide
        probabilities = keras.ops.convert_to_tensor(np.array([[[0.1, 0.5, 0.4]]], np.float32))
        proposal = np.array([[[0.2, 0.2, 0.8, 0.8]]], np.float32)
        refined = refine(proposal, probabilities, deltas, WHOLE, most=2)
        found = select(refined, keep=2, min_score=0.0, max_iou=0.5)
        expected = np.array([[0.2, 0.2, 0.8, 0.8], [0.2, 0.35, 0.8, 0.65]], np.float32)
        np.testing.assert_allclose(np.asarray(found.boxes)[0], expected, atol=1e-6)

    def test_of_very_many_pairs_the_best_are_kept(self) -> None:
        probabilities = np.full((9, 3), 0.1, np.float32)
        probabilities[-1, 2] = 0.9
        found = detect(probabilities.tolist(), every_class=True)
        assert (found.class_ids[0], found.scores[0]) == (2, pytest.approx(0.9))

    def test_nothing_at_all(self) -> None:
        assert not detect([[1.0, 0.0, 0.0]], every_class=True).class_ids.any()
