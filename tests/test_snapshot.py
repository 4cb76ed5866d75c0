"""Snapshots: two files, nothing overwritten."""

import re
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from live_seg.errors import SinkError
from live_seg.types import Frame, Image
from live_seg.ui.snapshot import save_snapshot
from tests.clips import names

NOON = datetime(2026, 5, 4, 12, 30, 1)


def grey(value: int) -> Image:
    return np.full((30, 40, 3), value, np.uint8)


def value(path: Path) -> int:
    read = cv2.imread(str(path))
    assert read is not None
    return int(read[0, 0, 0])


def test_two_files_with_the_time_in_their_names(tmp_path: Path) -> None:
    plain, masks = save_snapshot(Frame(7, 0.5, grey(10)), grey(20), tmp_path, NOON)
    assert (plain.name, masks.name) == ("live-seg_20260504-123001.png", "live-seg_20260504-123001_masks.png")
    assert (value(plain), value(masks)) == (10, 20)
    assert names(tmp_path) == sorted([plain.name, masks.name])


def test_the_default_time_is_now(tmp_path: Path) -> None:
    plain, _ = save_snapshot(Frame(0, 0.0, grey(0)), grey(0), tmp_path)
    assert re.fullmatch(r"live-seg_\d{8}-\d{6}", plain.stem)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Neither with several snapshots in one second nor after one file of a pair was deleted."""
    saved = [save_snapshot(Frame(0, 0.0, grey(i)), grey(100 + i), tmp_path, NOON) for i in range(3)]
    assert [plain.stem[-4:] for plain, _ in saved] == ["3001", "_002", "_003"]
    saved[1][0].unlink()
    saved.append(save_snapshot(Frame(0, 0.0, grey(3)), grey(103), tmp_path, NOON))
    assert [value(masks) for _, masks in saved] == [100, 101, 102, 103]
    assert len(names(tmp_path)) == 7


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="no folder"):
        save_snapshot(Frame(0, 0.0, grey(0)), grey(0), tmp_path / "gone", NOON)
