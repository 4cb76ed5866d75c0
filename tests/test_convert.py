"""The JSON Lines format, and its conversion, read back by the tools that the formats are for."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from live_seg.errors import SourceError, UsageError
from live_seg.exports.formats import FORMATS, convert
from live_seg.exports.records import Found
from live_seg.sinks.json_lines import JsonLines
from live_seg.types import Frame, Instances
from tests.stand_ins import ROOT
from tests.test_cli import invoke

NAMES = ("background", "person", "dog")
SCHEMA = json.loads((ROOT / "docs" / "json-lines.schema.json").read_text(encoding="utf-8"))
LENGTH = 4


def instances(frame: int) -> Instances:
    """A person who moves right, a dog in front, confirmed in frame 1 and missing in 2; and a false alarm."""
    chosen = [0, 2] if frame == 2 else [0, 1, 2]
    return Instances(
        boxes=np.array([[frame, 5, 30 + frame, 55], [20, 30, 60, 58], [70, 0, 79, 9]], np.float32),
        masks=np.ones((3, 28, 28), np.float32),
        class_ids=np.array([1, 2, 1], np.int32),
        scores=np.array([0.9, 0.8, 0.3], np.float32),
        track_ids=np.array([1, 2, 3 + frame], np.int32),
        confirmed=np.array([frame > 0, frame > 0, False]),
    )[chosen]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lines") / "out.jsonl"
    with JsonLines(path, NAMES) as sink:
        for index in range(LENGTH):
            image = np.zeros((60, 80, 3), np.uint8)
            sink.write(Frame(index, index / 10, image), image, instances(index))
    return path


def converted(lines: Path, to: str, tmp_path: Path) -> Path:
    output = tmp_path / f"out.{to}"
    assert convert(lines, to, output) == LENGTH
    return output


def test_every_line_fits_the_schema(lines: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for line in lines.read_text(encoding="utf-8").splitlines():
        jsonschema.validate(json.loads(line), SCHEMA)


def test_the_schema_requires_the_track_id(lines: Path) -> None:
    line = json.loads(lines.read_text(encoding="utf-8").splitlines()[0])
    assert [one["track_id"] for one in line["instances"]] == [None, None, None]
    del line["instances"][0]["track_id"]
    with pytest.raises(jsonschema.ValidationError, match="track_id"):
        jsonschema.validate(line, SCHEMA)


def test_coco_is_read_by_pycocotools(lines: Path, tmp_path: Path) -> None:
    coco = COCO(converted(lines, "coco", tmp_path))
    assert sorted(coco.getImgIds()) == [0, 1, 2, 3]
    assert {entry["name"] for entry in coco.loadCats(coco.getCatIds())} == {"person", "dog"}
    first = coco.loadAnns(coco.getAnnIds(imgIds=[1], catIds=coco.getCatIds(catNms=["person"])))[0]
    assert (first["bbox"], first["score"], first["track_id"]) == ([1.0, 5.0, 30.0, 50.0], 0.9, 1)
    expected = instances(1)[:1].bitmaps((60, 80))[0]
    np.testing.assert_array_equal(coco.annToMask(first), expected)
    assert first["area"] == expected.sum()


def test_youtube_vis_has_one_annotation_per_track(lines: Path, tmp_path: Path) -> None:
    found = json.loads(converted(lines, "youtube-vis", tmp_path).read_text(encoding="utf-8"))
    assert (found["videos"][0]["length"], len(found["videos"][0]["file_names"])) == (LENGTH, LENGTH)
    person, dog = found["annotations"]
    assert [rle is not None for rle in person["segmentations"]] == [False, True, True, True]
    assert [box is not None for box in dog["bboxes"]] == [False, True, False, True]
    mask = coco_mask.frPyObjects(person["segmentations"][3], 60, 80)
    np.testing.assert_array_equal(coco_mask.decode(mask), instances(3)[:1].bitmaps((60, 80))[0])
    assert person["areas"][3] == coco_mask.area(mask)


@pytest.mark.parametrize("place", [None, (0, 0), (1, 0), (5, 6), (2, 3)])
def test_uncompressed_masks(place: tuple[int, int] | None) -> None:
    bitmap = np.zeros((6, 7), np.uint8, order="F")
    if place is not None:
        bitmap[place] = 1
        bitmap[3:5, 2:6] = 1
    for mask in (bitmap, 1 - bitmap):
        rle = coco_mask.encode(np.asfortranarray(mask))
        runs = Found((0, 0, 7, 6), 0.9, "dog", 1, {"size": [6, 7], "counts": rle["counts"].decode()}).runs()
        assert sum(runs["counts"]) == 42
        assert coco_mask.frPyObjects(runs, 6, 7) == rle


def test_youtube_vis_is_read_by_trackeval(lines: Path, tmp_path: Path) -> None:
    trackeval = pytest.importorskip("trackeval")
    truth = json.loads(converted(lines, "youtube-vis", tmp_path).read_text(encoding="utf-8"))
    results = [
        track | {"segmentations": [mask and coco_mask.frPyObjects(mask, 60, 80) for mask in masks]}
        for track in truth["annotations"]
        for masks in [track["segmentations"]]
    ]
    text = json.dumps(results, default=bytes.decode)
    folders = {"gt": truth, "trackers/ours/data": json.loads(text)}
    for kind, content in folders.items():
        top, _, rest = kind.partition("/")
        folder = tmp_path / top / "youtube_vis_clip" / rest
        folder.mkdir(parents=True)
        (folder / "clip.json").write_text(json.dumps(content), encoding="utf-8")
    dataset = trackeval.datasets.YouTubeVIS(
        {
            "GT_FOLDER": f"{tmp_path}/gt/",
            "TRACKERS_FOLDER": f"{tmp_path}/trackers/",
            "SPLIT_TO_EVAL": "clip",
            "PRINT_CONFIG": False,
        }
    )
    raw = dataset.get_raw_seq_data("ours", "000000.png")
    assert [len(ids) for ids in raw["gt_ids"]] == [0, 2, 1, 2]
    np.testing.assert_array_equal(
        coco_mask.decode(raw["gt_dets"][3][0]), instances(3)[:1].bitmaps((60, 80))[0]
    )
    for name in ("person", "dog"):
        data = dataset.get_preprocessed_seq_data(raw, name)
        assert trackeval.metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)["MOTA"] == 1


def trackeval_folders(tmp_path: Path, text: str, truth: str) -> dict[str, Any]:
    """Lay out a tracker's results and the ground truth as TrackEval's readers expect."""
    results, gt = tmp_path / "trackers" / "ours" / "data", tmp_path / "gt" / "clip" / "gt"
    for folder, name, content in ((results, "clip.txt", text), (gt, "gt.txt", truth)):
        folder.mkdir(parents=True)
        (folder / name).write_text(content, encoding="utf-8")
    return {
        "GT_FOLDER": str(tmp_path / "gt"),
        "TRACKERS_FOLDER": str(tmp_path / "trackers"),
        "SEQ_INFO": {"clip": LENGTH},
        "SKIP_SPLIT_FOL": True,
        "PRINT_CONFIG": False,
    }


def test_mot_is_read_by_trackeval(lines: Path, tmp_path: Path) -> None:
    trackeval = pytest.importorskip("trackeval")
    text = converted(lines, "mot", tmp_path).read_text(encoding="utf-8")
    assert text.splitlines()[0] == "2,1,1.0,5.0,30.0,50.0,0.9,-1,-1,-1"
    truth = text.replace(",0.9,-1,-1,-1", ",1,1,1").replace(",0.8,-1,-1,-1", ",1,1,1")
    dataset = trackeval.datasets.MotChallenge2DBox(trackeval_folders(tmp_path, text, truth))
    raw = dataset.get_raw_seq_data("ours", "clip")
    assert [ids.tolist() for ids in raw["tracker_ids"]] == [[], [1, 2], [1], [1, 2]]
    assert raw["tracker_dets"][3][0].tolist() == [3, 5, 30, 50]
    data = dataset.get_preprocessed_seq_data(raw, "pedestrian")
    assert trackeval.metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)["MOTA"] == 1


def test_mots_is_read_by_trackeval(lines: Path, tmp_path: Path) -> None:
    trackeval = pytest.importorskip("trackeval")
    text = converted(lines, "mots", tmp_path).read_text(encoding="utf-8")
    dataset = trackeval.datasets.MOTSChallenge(trackeval_folders(tmp_path, text, text))
    raw = dataset.get_raw_seq_data("ours", "clip")  # raises if masks overlap
    assert [ids.tolist() for ids in raw["tracker_ids"]] == [[], [2001, 11001], [2001], [2001, 11001]]
    assert raw["tracker_classes"][1].tolist() == [2, 11]
    person, dog = (coco_mask.decode(rle) for rle in raw["tracker_dets"][1])
    masks = instances(1).bitmaps((60, 80))
    np.testing.assert_array_equal(person, masks[0])
    np.testing.assert_array_equal(dog, masks[1] & ~masks[0])
    data = dataset.get_preprocessed_seq_data(raw, "pedestrian")
    assert trackeval.metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)["MOTA"] == 1


def test_the_command_names_its_output(lines: Path, tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(lines.read_bytes())
    for to, suffix in (("coco", "json"), ("youtube-vis", "json"), ("mot", "txt"), ("mots", "txt")):
        result = invoke("convert", source, "--to", to)
        assert (result.exit_code, result.output) == (0, f"4 frames -> {tmp_path / 'a'}.{to}.{suffix}\n")
    again = invoke("convert", source, "--to", "mot")
    assert (again.exit_code, "exists already" in again.stderr) == (3, True)
    assert invoke("convert", source, "--to", "mot", "-o", tmp_path / "b.txt", "--quiet").output == ""
    assert invoke("convert", source, "--to", "yolo").exit_code == 2
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"index": 0}', '{"index": 0, "seconds": 0, "size": [1], "instances": []}', "\n"]
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    for to in FORMATS:
        with pytest.raises(SourceError, match=r"a\.jsonl"):
            convert(tmp_path / "a.jsonl", to, tmp_path / "out")
    with pytest.raises(UsageError, match="There is no format"):
        convert(tmp_path / "a.jsonl", "yolo", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def changed(lines: Path, where: str, value: Any) -> bytes:
    """Return the lines with another value at `where` in the second one, and in its first instance."""
    first, second, *others = lines.read_bytes().splitlines(keepends=True)
    line = json.loads(second)
    *path, last = where.split(".")
    target = line
    for name in path:
        target = target[name][0] if name == "instances" else target[name]
    target[last] = value
    return b"".join([first, json.dumps(line).encode() + b"\n", *others])


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        ("index", -1, ">= 0"),
        ("index", "1", "got `str`"),
        ("index", 10**16, "<= 9007199254740992"),
        ("seconds", float("nan"), "malformed"),
        ("size", [80, 10**9], "<= 1048576"),
        ("size", [2**20, 2**20], "a frame of 1048576 x 1048576 pixels"),
        ("instances", [[]], r"at `\$.instances\[0\]`"),
        ("instances.class", 5, r"got `int` - at `\$.instances\[0\].class`"),
        ("instances.box", [0, 0, 1], "length 4"),
        ("instances.track_id", "1", "got `str`"),
        ("instances.mask", None, "got `null`"),
        ("instances.mask.size", [60, 81], "a mask of another size"),
        ("instances.mask.counts", "ooooooooo1", "cannot be decoded"),
        ("instances.mask.counts", "0", "do not cover the image"),
        ("instances.mask.counts", "\u1234", "cannot be decoded"),
    ],
)
def test_damaged_lines_are_refused(lines: Path, tmp_path: Path, where: str, value: Any, reason: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(changed(lines, where, value))
    with pytest.raises(SourceError, match=rf"Line 2 of .*a\.jsonl is not what --json writes: .*{reason}"):
        convert(tmp_path / "a.jsonl", "mots", tmp_path / "out")


NO_JSON = {"bytes": b"\xff", "lists": b"[" * 10**5, "objects": b'{"a":' * 10**5, "more": b"{}\x00"}


@pytest.mark.parametrize("line", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(line)
    with pytest.raises(SourceError, match="Line 1 of"):
        convert(tmp_path / "a.jsonl", "coco", tmp_path / "out")
