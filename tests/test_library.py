"""The first lines a programmer writes: images from anywhere, single instances, printing, strings as paths."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

import live_seg
from live_seg.sinks.images import Images
from live_seg.types import Frame, Image, Instances
from tests.clips import clip
from tests.live import FakeCapture, put_captures
from tests.stand_ins import StandIn, left_half


def image(value: int = 0) -> Image:
    return np.full((12, 16, 3), value, np.uint8)


def named(count: int = 2) -> Instances:
    return Instances(
        boxes=np.array([[1, 2, 7, 10], [8.6, 0, 16, 5]], np.float32)[:count],
        masks=np.ones((count, 28, 28), np.float32),
        class_ids=np.array([1, 2], np.int32)[:count],
        scores=np.array([0.934, 0.5], np.float32)[:count],
        track_ids=np.array([4, 5], np.int32)[:count],
        confirmed=np.array([True, False])[:count],
        class_names=("background", "person", "dog"),
    )


class TestRun:
    @pytest.mark.parametrize(
        "items",
        [
            [image(0), image(1)],
            (image(0), image(1)),
            (image(i) for i in range(2)),
            np.stack([image(0), image(1)]),
        ],
        ids=["list", "tuple", "generator", "array"],
    )
    def test_takes_any_iterable_of_images(self, items: Any) -> None:
        results = list(live_seg.run(items, StandIn()))
        assert [(f.index, int(f.image[0, 0, 0])) for f, _ in results] == [(0, 0), (1, 1)]
        assert [f.seconds for f, _ in results] == [0.0, 1 / 30]

    def test_takes_frames_with_their_own_times(self) -> None:
        frames = [Frame(0, 0.0, image()), Frame(1, 2.5, image())]
        assert [f for f, _ in live_seg.run(iter(frames), StandIn())] == frames

    def test_takes_a_path_like(self, tmp_path: Path) -> None:
        class Named(os.PathLike[str]):
            def __fspath__(self) -> str:
                return str(clip(tmp_path / "a.mp4", seconds=0.2))

        assert len(list(live_seg.run(Named(), StandIn()))) == 6

    def test_takes_a_camera_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        put_captures(monkeypatch, FakeCapture())
        with contextlib.closing(live_seg.run(0, StandIn())) as results:
            frame, _ = next(results)
        assert frame.image.shape == (120, 160, 3)
        with pytest.raises(live_seg.SourceError, match="Cameras are numbered from 0"):
            list(live_seg.run(-1, StandIn()))

    def test_an_endless_generator_is_read_as_needed(self) -> None:
        read = []

        def endless() -> Iterator[Image]:
            while True:
                read.append(1)
                yield image()

        results = live_seg.run(endless(), StandIn())
        next(results)
        results.close()
        assert len(read) < 30

    @pytest.mark.parametrize(
        ("items", "message"),
        [
            ([Pillow.new("RGB", (4, 4))], r"Got a Pillow image. Convert it: live_seg.from_rgb\(image\)"),
            ([np.zeros((4, 4), np.uint8)], "COLOR_GRAY2BGR"),
            ([np.zeros((4, 4, 4), np.uint8)], "Drop the alpha channel"),
            ([np.zeros((4, 4, 3))], r"Scale it to 0..255"),
            (["a.png"], "Got str 'a.png'"),
            (image(), r"Got an array \(16, 3\) uint8"),
            (3.5, "Expected a source or an iterable of images. Got float 3.5"),
        ],
    )
    def test_anything_else_is_refused_with_a_remedy(self, items: Any, message: str) -> None:
        with pytest.raises(live_seg.UsageError, match=message):
            list(live_seg.run(items, StandIn()))

    def test_a_bad_image_later_on_ends_the_loop(self) -> None:
        with pytest.raises(live_seg.UsageError, match=r"uint8 or Frames in the list\. Got an array"):
            list(live_seg.run([image(), np.zeros(3, np.uint8)], StandIn()))

    def test_no_images_at_all(self) -> None:
        with pytest.raises(live_seg.SourceError, match="the list holds no frames"):
            list(live_seg.run([], StandIn()))

    def test_images_are_read_once(self) -> None:
        with live_seg.open_source([image(), image()]) as source:
            assert (source.frames, source.size, source.live) == (2, (16, 12), False)
            assert len(list(source)) == 2
            with pytest.raises(live_seg.SourceError, match="was read already"):
                list(source)


class TestFromRgb:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1"])
    def test_pillow_images_of_every_mode(self, mode: str) -> None:
        white = live_seg.from_rgb(Pillow.new("RGB", (5, 3), "white").convert(mode))
        assert (white.shape, str(white.dtype), white.min()) == ((3, 5, 3), "uint8", 255)

    def test_red_becomes_bgr(self) -> None:
        for red in (Pillow.new("RGB", (2, 2), "red"), np.full((2, 2, 3), (255, 0, 0), np.uint8)):
            converted = live_seg.from_rgb(red)
            assert converted[0, 0].tolist() == [0, 0, 255]
            assert converted.flags.c_contiguous

    def test_floats_are_refused(self) -> None:
        with pytest.raises(live_seg.UsageError, match=r"Got an array \(2, 2, 3\) float64"):
            live_seg.from_rgb(np.zeros((2, 2, 3)))


class TestInstances:
    def test_printing_shows_one_line_per_instance(self) -> None:
        assert str(named()).splitlines() == [
            "person 0.93 #4 at x 1..7, y 2..10",
            "dog 0.50 at x 9..16, y 0..5",
        ]
        assert str(Instances.empty()) == "no instances"
        assert str(left_half(image())) == "class 1 0.90 at x 0..8, y 0..12"

    def test_iterating_and_indexing_give_single_instances(self) -> None:
        instances = named()
        assert [one.class_name for one in instances] == ["person", "dog"]
        for last in (instances[-1], instances[1], instances[np.int64(1)], list(instances)[1]):
            assert (last.class_id, last.class_name, last.score, last.track_id) == (2, "dog", 0.5, None)
            np.testing.assert_array_equal(last.box, instances.boxes[1])
            np.testing.assert_array_equal(last.mask, instances.masks[1])
        assert instances[0].track_id == 4
        with pytest.raises(IndexError):
            _ = instances[2]

    def test_slices_masks_and_joins_keep_the_names(self) -> None:
        assert str(named()[named().scores > 0.6]) == "person 0.93 #4 at x 1..7, y 2..10"
        assert len(str(named()[:1].joined(named()[1:])).splitlines()) == 2

    def test_drawing_uses_the_names_of_the_instances(self) -> None:
        canvas = np.full((120, 160, 3), 90, np.uint8)
        expected = live_seg.draw(canvas, named(), ("background", "person", "dog"))
        np.testing.assert_array_equal(live_seg.draw(canvas, named()), expected)
        with pytest.raises(live_seg.UsageError, match="Class id 1 has no name"):
            live_seg.draw(canvas, left_half(canvas))

    def test_notebooks_show_frames_and_masks(self) -> None:
        shown = cv2.imdecode(np.frombuffer(Frame(0, 0.0, image(7))._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(shown, image(7))
        masks = cv2.imdecode(np.frombuffer(named()._repr_png_(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert masks is not None
        assert masks.shape == (10, 16)
        assert len(np.unique(masks)) == 3
        assert Instances.empty()._repr_png_().startswith(b"\x89PNG")


def test_sinks_take_strings(tmp_path: Path) -> None:
    sinks = (
        live_seg.VideoWriter(str(tmp_path / "a.mp4"), 30),
        live_seg.JsonLines(str(tmp_path / "a.jsonl"), StandIn.class_names),
        Images(str(tmp_path / "images")),
    )
    for sink in sinks:
        with sink:
            for frame, instances in live_seg.run([image(), image()], StandIn()):
                sink.write(frame, live_seg.blur(frame.image, instances), instances)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.mp4", "images"]
