"""JSON Lines and images, and the contract of all sinks."""

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from live_seg.errors import SinkError, TakenError
from live_seg.sinks.images import Images
from live_seg.sinks.json_lines import JsonLines, JsonStream
from live_seg.sinks.video_writer import VideoWriter
from live_seg.types import Frame, Image, Instances, Sink
from tests.clips import names
from tests.disks import fill, small_disk

CLASSES = ("background", "person", "Hündchen")
NOTHING = Instances.empty()


def frame(index: int, width: int = 40, height: int = 30) -> Frame:
    return Frame(index, index / 30, np.full((height, width, 3), index, np.uint8))


def two_objects(track_ids: bool) -> Instances:
    return Instances(
        boxes=np.array([[1.234, 2, 11.2, 22.126], [30, 20, 50, 40]], np.float32),
        masks=np.ones((2, 28, 28), np.float32),
        class_ids=np.array([1, 2], np.int32),
        scores=np.array([0.98769, 0.5], np.float32),
        track_ids=np.array([7, 9], np.int32) if track_ids else None,
        confirmed=np.array([True, True]) if track_ids else None,
    )


def video(path: Path, overwrite: bool = False) -> Sink:
    return VideoWriter(path.with_suffix(".mp4"), 30, overwrite=overwrite)


def lines(path: Path, overwrite: bool = False) -> Sink:
    return JsonLines(path.with_suffix(".jsonl"), CLASSES, overwrite=overwrite)


def single_image(path: Path, overwrite: bool = False) -> Sink:
    return Images(path.with_suffix(".png"), overwrite=overwrite)


def folder(path: Path, overwrite: bool = False) -> Sink:
    return Images(path, overwrite=overwrite)


Make = Callable[..., Sink]
FILES = pytest.mark.parametrize("make", [video, lines, single_image], ids=lambda make: make.__name__)
ALL = pytest.mark.parametrize("make", [video, lines, single_image, folder], ids=lambda make: make.__name__)


class TestEverySink:
    @ALL
    def test_without_frames_no_file_is_written(self, tmp_path: Path, make: Make) -> None:
        with make(tmp_path / "out"):
            pass
        assert names(tmp_path) == []

    @ALL
    def test_no_partial_file_is_left_and_closing_twice_is_allowed(self, tmp_path: Path, make: Make) -> None:
        with make(tmp_path / "out") as sink:
            assert sink.write(frame(0), frame(0).image, NOTHING) is True
        sink.close()
        sink.close(complete=False)
        (left,) = tmp_path.iterdir()
        assert left.stem == "out"

    @ALL
    def test_non_ascii_paths(self, tmp_path: Path, make: Make) -> None:
        path = tmp_path / "fête über 日本"
        with make(path) as sink:
            sink.write(frame(0), frame(0).image, NOTHING)
        (left,) = tmp_path.iterdir()
        assert left.stem == path.stem

    @ALL
    def test_existing_output_is_refused_at_once(self, tmp_path: Path, make: Make) -> None:
        for _ in range(2):
            with make(tmp_path / "out", overwrite=True) as sink:
                sink.write(frame(0), frame(0).image, NOTHING)
        before = names(tmp_path)
        with pytest.raises(SinkError, match="--overwrite"):
            make(tmp_path / "out")
        assert names(tmp_path) == before

    @ALL
    def test_missing_folder(self, tmp_path: Path, make: Make) -> None:
        with pytest.raises(SinkError, match=r"There is no folder .*missing"):
            make(tmp_path / "missing" / "out")

    @ALL
    def test_file_in_place_of_the_folder(self, tmp_path: Path, make: Make) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(SinkError, match=r"There is no folder .*file"):
            make(tmp_path / "file" / "out")

    @ALL
    def test_folder_without_write_permission(self, make: Make) -> None:
        if not Path("/proc/self").is_dir():
            pytest.skip("needs a folder that not even root can write to")
        with pytest.raises(SinkError, match="Cannot write in the folder /proc/self"):
            make(Path("/proc/self/out"))

    @FILES
    def test_folder_in_place_of_the_file(self, tmp_path: Path, make: Make) -> None:
        for suffix in (".mp4", ".jsonl", ".png"):
            (tmp_path / f"out{suffix}").mkdir()
        with pytest.raises(SinkError, match="is a folder"):
            make(tmp_path / "out", overwrite=True)

    @ALL
    def test_full_disk_raises_and_harms_no_file(self, tmp_path: Path, make: Make) -> None:
        with small_disk(tmp_path / "disk") as disk:
            (disk / "out").mkdir()
            mine = disk / "out.partial.png"
            mine.write_text("mine")
            fill(disk)
            sink = make(disk / "out", overwrite=True)
            with pytest.raises(SinkError, match="No space left on device"):  # noqa: PT012, at once or at the end
                sink.write(frame(0), frame(0).image, NOTHING)
                sink.close()
            sink.close()
            left = {path.name for path in disk.rglob("*") if not path.is_dir()}
            assert left == {"ballast", "out.partial.png"}
            assert mine.read_text() == "mine"

    @FILES
    def test_devices_pipes_and_broken_links_are_refused(self, tmp_path: Path, make: Make) -> None:
        if sys.platform == "win32":
            pytest.skip("needs named pipes")
        for suffix in (".mp4", ".jsonl", ".png"):
            (tmp_path / f"link{suffix}").symlink_to(tmp_path / "nowhere")
            (tmp_path / f"device{suffix}").symlink_to("/dev/null")
            os.mkfifo(tmp_path / f"pipe{suffix}")
        before = names(tmp_path)
        for stem in ("link", "device", "pipe"):
            with pytest.raises(SinkError, match="is a device, a pipe or a broken link"):
                make(tmp_path / stem, overwrite=True)
        assert names(tmp_path) == before


@ALL
def test_an_existing_partial_file_is_kept(tmp_path: Path, make: Make) -> None:
    mine = [tmp_path / f"out.partial{suffix}" for suffix in (".mp4", ".jsonl", ".png")]
    (tmp_path / "out").mkdir()
    mine.append(tmp_path / "out" / "000000.partial.png")
    for path in mine:
        path.write_text("mine")
    with make(tmp_path / "out", overwrite=True) as sink:
        sink.write(frame(0), frame(0).image, NOTHING)
    assert [path.read_text() for path in mine] == ["mine"] * 4


@pytest.mark.parametrize("make", [video, lines], ids=lambda make: make.__name__)
def test_a_second_run_with_the_same_output_is_refused(tmp_path: Path, make: Make) -> None:
    with make(tmp_path / "out", overwrite=True) as sink:
        sink.write(frame(0), frame(0).image, NOTHING)
        with pytest.raises(TakenError, match="is being written by another run"):
            make(tmp_path / "out", overwrite=True)
    make(tmp_path / "out", overwrite=True).close()


@pytest.mark.parametrize("make", [video, lines], ids=lambda make: make.__name__)
def test_a_file_created_during_the_run_is_kept(tmp_path: Path, make: Make) -> None:
    sink = make(tmp_path / "out")
    sink.write(frame(0), frame(0).image, NOTHING)
    (partial,) = tmp_path.iterdir()
    final = tmp_path / f"out{partial.suffix}"
    final.write_text("theirs")
    with pytest.raises(SinkError, match=r"created by another program.* is in .*out\.partial"):
        sink.close()
    assert final.read_text() == "theirs"
    assert partial.stat().st_size


def write_many(sink: Sink) -> None:
    for index in range(100_000):
        sink.write(frame(index % 9), frame(index % 9).image, two_objects(track_ids=True))


class TestJsonLines:
    def write(self, path: Path, *instances: Instances) -> list[dict[str, Any]]:
        with JsonLines(path, CLASSES) as sink:
            for index, found in enumerate(instances):
                sink.write(frame(index), frame(index).image, found)
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def test_one_object_per_frame(self, tmp_path: Path) -> None:
        first, second = self.write(tmp_path / "out.jsonl", NOTHING, two_objects(track_ids=True))
        assert first == {"index": 0, "seconds": 0.0, "size": [40, 30], "instances": []}
        assert (second["index"], second["seconds"], second["size"]) == (1, 0.033333, [40, 30])
        person, dog = second["instances"]
        assert {key: value for key, value in person.items() if key != "mask"} == {
            "box": [1.23, 2.0, 11.2, 22.13],
            "score": 0.9877,
            "class": "person",
            "track_id": 7,
        }
        assert (dog["class"], dog["track_id"], dog["box"]) == ("Hündchen", 9, [30, 20, 50, 40])

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode
    def test_masks_are_rles_at_full_resolution(self, tmp_path: Path) -> None:
        instances = two_objects(track_ids=False)
        (line,) = self.write(tmp_path / "out.jsonl", instances)
        masks = [found["mask"] for found in line["instances"]]
        assert all(mask["size"] == [30, 40] for mask in masks)
        decoded = np.stack([coco_mask.decode(mask) for mask in masks]).astype(bool)
        np.testing.assert_array_equal(decoded, instances.bitmaps((30, 40)))
        assert decoded.any(axis=(1, 2)).all()

    def test_without_tracking_the_track_id_is_null(self, tmp_path: Path) -> None:
        (line,) = self.write(tmp_path / "out.jsonl", two_objects(track_ids=False))
        assert [found["track_id"] for found in line["instances"]] == [None, None]

    def test_an_unconfirmed_track_has_no_track_id(self, tmp_path: Path) -> None:
        instances = replace(two_objects(track_ids=True), confirmed=np.array([True, False]))
        (line,) = self.write(tmp_path / "out.jsonl", instances)
        assert [found.get("track_id") for found in line["instances"]] == [7, None]

    def test_a_stream_gets_the_same_lines_and_stays_open(self, tmp_path: Path) -> None:
        stream, found = io.BytesIO(), two_objects(track_ids=True)
        with JsonStream(stream, CLASSES) as sink:
            assert sink.write(frame(0), frame(0).image, found)
        self.write(tmp_path / "out.jsonl", found)
        assert stream.getvalue() == (tmp_path / "out.jsonl").read_bytes()

    def test_the_run_ends_when_the_reader_of_a_pipe_has_left(self) -> None:
        reader, writer = os.pipe()
        with os.fdopen(writer, "wb", buffering=0) as stream, JsonStream(stream, CLASSES) as sink:
            assert sink.write(frame(0), frame(0).image, NOTHING)
            os.close(reader)
            assert not sink.write(frame(1), frame(1).image, NOTHING)

    def test_each_line_is_flushed(self, tmp_path: Path) -> None:
        with JsonLines(tmp_path / "out.jsonl", CLASSES) as sink:
            for index in range(3):
                sink.write(frame(index), frame(index).image, two_objects(track_ids=True))
                written = (tmp_path / "out.partial.jsonl").read_text(encoding="utf-8").splitlines()
                assert [json.loads(line)["index"] for line in written] == list(range(index + 1))
            assert not (tmp_path / "out.jsonl").exists()

    def test_after_a_failed_run_the_partial_file_is_kept(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink = JsonLines(tmp_path / "out.jsonl", CLASSES)
        sink.write(frame(0), frame(0).image, NOTHING)
        with pytest.raises(ZeroDivisionError), sink:
            raise ZeroDivisionError
        assert names(tmp_path) == ["out.partial.jsonl"]
        assert "out.partial.jsonl" in caplog.text

    def test_a_full_disk_keeps_the_complete_lines(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", kibibytes=64) as disk:
            sink = JsonLines(disk / "out.jsonl", CLASSES)
            with pytest.raises(SinkError, match=r"No space left.*The output so far is in .*out\.partial"):
                write_many(sink)
            sink.close()
            (partial,) = disk.iterdir()
            lines = partial.read_text(encoding="utf-8").splitlines()
            assert len(lines) > 50
            assert [json.loads(line)["index"] for line in lines] == [i % 9 for i in range(len(lines))]

    def test_ctrl_c_completes_the_file(self, tmp_path: Path) -> None:
        sink = JsonLines(tmp_path / "out.jsonl", CLASSES)
        sink.write(frame(0), frame(0).image, NOTHING)
        with pytest.raises(KeyboardInterrupt), sink:
            raise KeyboardInterrupt
        assert names(tmp_path) == ["out.jsonl"]

    def test_failure_to_rename(self, tmp_path: Path) -> None:
        sink = JsonLines(tmp_path / "out.jsonl", CLASSES, overwrite=True)
        sink.write(frame(0), frame(0).image, NOTHING)
        (tmp_path / "out.jsonl").mkdir()
        with pytest.raises(SinkError, match=r"Cannot rename .*out\.partial\.jsonl"):
            sink.close()


class TestImages:
    def test_one_file_for_several_images_is_refused_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(SinkError, match="there are 2"):
            Images(tmp_path / "out.png", names=["a", "b"])

    @pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"])
    def test_single_image(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"out{suffix}"
        drawn = np.full((30, 40, 3), (40, 90, 200), np.uint8)
        with Images(path) as sink:
            sink.write(frame(0), drawn, NOTHING)
        read = cv2.imread(str(path))
        assert read is not None
        assert np.abs(read.astype(int) - drawn).max() <= 3
        assert names(tmp_path) == [path.name]

    def test_images_in_a_folder_are_named_by_frame_index(self, tmp_path: Path) -> None:
        with Images(tmp_path / "out") as sink:
            for index in (0, 12, 1234567):
                sink.write(
                    Frame(index, index / 30, frame(index % 256).image), frame(index % 256).image, NOTHING
                )
        assert names(tmp_path / "out") == ["000000.png", "000012.png", "1234567.png"]
        read = cv2.imread(str(tmp_path / "out" / "000012.png"))
        np.testing.assert_array_equal(read, frame(12).image)

    def test_second_image_for_a_single_file(self, tmp_path: Path) -> None:
        sink = Images(tmp_path / "out.png")
        sink.write(frame(0), frame(0).image, NOTHING)
        with pytest.raises(SinkError, match="Give a folder instead"):
            sink.write(frame(1), frame(1).image, NOTHING)
        assert names(tmp_path) == ["out.png"]

    def test_empty_folder_is_accepted(self, tmp_path: Path) -> None:
        with Images(tmp_path) as sink:
            sink.write(frame(0), frame(0).image, NOTHING)
        assert names(tmp_path) == ["000000.png"]

    def test_file_in_place_of_the_output_folder(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(SinkError, match="is a file"):
            Images(tmp_path / "out", overwrite=True)

    @pytest.mark.parametrize("name", ["out", "out.png", "out.webp"])
    def test_transparent_images_keep_their_alpha(self, tmp_path: Path, name: str) -> None:
        matte = np.random.default_rng(0).integers(0, 256, (30, 40, 4), np.uint8)
        with Images(tmp_path / name, alpha=True) as sink:
            sink.write(frame(0), matte, NOTHING)
        path = tmp_path / name if "." in name else tmp_path / name / "000000.png"
        read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert read is not None
        np.testing.assert_array_equal(read[..., 3], matte[..., 3])

    def test_alpha_is_refused_for_formats_without_it(self, tmp_path: Path) -> None:
        with pytest.raises(SinkError, match=r"out\.jpg cannot hold transparent .*\.png or \.webp"):
            Images(tmp_path / "out.jpg", alpha=True)
        with pytest.raises(SinkError, match="transparent"), Images(tmp_path / "out.jpg") as sink:
            sink.write(frame(0), np.zeros((30, 40, 4), np.uint8), NOTHING)
        assert names(tmp_path) == []

    @pytest.mark.parametrize("image", [np.zeros((0, 0, 3), np.uint8), np.zeros((1, 70000, 3), np.uint8)])
    def test_image_that_cannot_be_encoded(self, tmp_path: Path, image: Image) -> None:
        with pytest.raises(SinkError, match="Cannot write"), Images(tmp_path / "out.jpg") as sink:
            sink.write(frame(0), image, NOTHING)
        assert names(tmp_path) == []
