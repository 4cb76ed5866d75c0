"""The audit of hidden tracks, and its contact sheet."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live_seg.errors import SinkError, UsageError
from live_seg.files import read_image
from live_seg.pipeline import audit
from live_seg.pipeline.audit import TILE, Audit
from live_seg.propagation.open_frame import Filled
from live_seg.types import Frame, Instances
from tests.clips import names

GREY = np.full((60, 80, 3), 90, np.uint8)


def tracks(*ids: int, confirmed: bool = True) -> Instances:
    n = len(ids)
    return Instances(
        boxes=np.array([[10, 10, 30, 40]] * n, np.float32).reshape(n, 4),
        masks=np.ones((n, 28, 28), np.float32),
        class_ids=np.ones(n, np.int32),
        scores=np.ones(n, np.float32),
        track_ids=np.array(ids, np.int32),
        confirmed=np.full(n, confirmed),
        class_names=("background", "person"),
    )


NONE = tracks()


def written(path: Path, filled: list[Filled], *, complete: bool = True, **options: Any) -> Any:
    """Write an audit of 10 frames per second; return what the file holds, None if there is no file."""
    latest = [Filled.empty()]
    sink = Audit(path, lambda: latest[0], **options)
    for index, one in enumerate(filled):
        latest[0] = one
        assert sink.write(Frame(index, index / 10, GREY), GREY, one.found)
    sink.close(complete)
    sink.close(complete)
    return json.loads(path.read_text()) if path.exists() else None


def span(first: int, last: int) -> dict[str, float]:
    return {"first": first, "last": last, "start": first / 10, "end": last / 10}


def test_ranges_of_frames_by_track(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found, both = Filled(tracks(1), NONE, NONE), Filled(tracks(1, 2), NONE, NONE)
    lost = Filled(tracks(1), tracks(2), tracks(2))
    with caplog.at_level(logging.INFO, "live_seg"):
        report = written(tmp_path / "a.json", [both, both, lost, lost, both, found])
    assert report == {
        "frames": 6,
        "uncertain_frames": 2,
        "contact_sheet": "a.jpg",
        "tracks": [
            {"track_id": 1, "class": "person", "detected": [span(0, 5)], "propagated": [], "uncertain": []},
            {
                "track_id": 2,
                "class": "person",
                "detected": [span(0, 1), span(4, 4)],
                "propagated": [span(2, 3)],
                "uncertain": [span(2, 3)],
            },
        ],
    }
    assert read_image(tmp_path / "a.jpg").shape == (TILE, TILE, 3)
    assert "uncertain in 2 of 6 frames" in caplog.text


def test_frames_between_keyframes_are_propagated(tmp_path: Path) -> None:
    report = written(tmp_path / "a.json", [Filled(tracks(1), NONE, NONE)] * 5, every=2)
    assert report["tracks"][0]["detected"] == [span(0, 0), span(2, 2), span(4, 4)]
    assert report["tracks"][0]["propagated"] == [span(1, 1), span(3, 3)]


def test_unconfirmed_tracks_are_left_out(tmp_path: Path) -> None:
    report = written(tmp_path / "a.json", [Filled(tracks(1, confirmed=False), NONE, NONE)])
    assert (report["tracks"], report["contact_sheet"], names(tmp_path)) == ([], None, ["a.json"])


def test_the_contact_sheet_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_TILES", 9)
    flicker = [Filled(NONE, NONE, tracks(1) if index % 2 else NONE) for index in range(40)]
    written(tmp_path / "a.json", flicker)
    assert read_image(tmp_path / "a.jpg").shape == (2 * TILE, audit.COLUMNS * TILE, 3)


@pytest.mark.parametrize("box", [(0, 0, 80, 60), (-500, -10, -400, 0), (20, 20, 20, 20), (0, 0, 1e6, 1e6)])
def test_boxes_of_any_size_fit_on_a_tile(tmp_path: Path, box: tuple[float, ...]) -> None:
    odd = tracks(1)
    odd.boxes[0] = box
    assert written(tmp_path / "a.json", [Filled(NONE, NONE, odd)])["uncertain_frames"] == 1


@pytest.mark.parametrize("complete", [True, False])
def test_nothing_is_left_without_frames_or_after_a_failure(tmp_path: Path, complete: bool) -> None:
    assert written(tmp_path / "a.json", [], complete=complete) is None
    assert written(tmp_path / "a.json", [Filled(NONE, NONE, tracks(1))], complete=False) is None
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.json", "a.jpg"])
def test_existing_files_are_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(SinkError, match=f"{name} exists already"):
        written(tmp_path / "a.json", [])
    assert (tmp_path / name).read_text() == "mine"
    written(tmp_path / "a.json", [Filled(NONE, NONE, tracks(1))], overwrite=True)
    assert (tmp_path / name).read_bytes() != b"mine"


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.json"):
        written(tmp_path / "a.jpg", [])


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SinkError, match="No space left"):
        written(tmp_path / "a.json", [Filled(NONE, NONE, NONE)])
    assert names(tmp_path) == []
