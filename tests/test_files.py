"""Files that are complete or absent."""

from pathlib import Path

import h5py
import pytest

from live_seg.files import replacing


def test_hdf5_can_write_a_file_that_is_being_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    path.write_bytes(b"old")
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        file["values"] = [1, 2]
    with h5py.File(path) as file:
        assert list(file["values"]) == [1, 2]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_replacement_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="range"), replacing(path) as partial:
        partial.write_bytes(bytes([256]))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
