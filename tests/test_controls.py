"""Controls of a session and their keys."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg.types import Instances
from live_seg.ui.controls import KEYS, Controls, Key

CHARACTERS = [(key, character) for key in KEYS for character in key.characters]


def scored(*scores: float) -> Instances:
    n = len(scores)
    return Instances(
        boxes=np.zeros((n, 4), np.float32),
        masks=np.zeros((n, 28, 28), np.float32),
        class_ids=np.ones(n, np.int32),
        scores=np.array(scores, np.float32),
    )


@pytest.mark.parametrize(("key", "character"), CHARACTERS, ids=[repr(c) for _, c in CHARACTERS])
def test_every_key_has_the_same_effect_in_upper_case(key: Key, character: str) -> None:
    pressed = []
    for typed in (character, character.upper()):
        controls = Controls(threshold=0.5)
        controls.press(typed)
        assert controls != Controls(threshold=0.5), key
        pressed.append(controls)
    assert pressed[0] == pressed[1]


def test_characters_are_unique_and_every_key_has_a_description() -> None:
    characters = "".join(key.characters for key in KEYS)
    assert len(set(characters)) == len(characters)
    assert all(key.name and key.meaning for key in KEYS)
    assert len({key.meaning for key in KEYS}) == len(KEYS)


@pytest.mark.parametrize("key", ["", "x", "\x00", "\r", "ß", "日", "İ", "\udcff", "mm", "Esc"])
def test_other_keys_do_nothing(key: str) -> None:
    controls = Controls(0.5)
    controls.press(key)
    assert controls == Controls(0.5)


@pytest.mark.parametrize(
    ("key", "switch"),
    [
        ("m", "masks"),
        ("b", "boxes"),
        ("l", "labels"),
        ("h", "hud"),
        ("?", "help"),
        (" ", "paused"),
        ("r", "recording"),
    ],
)
def test_a_key_toggles_its_switch_and_nothing_else(key: str, switch: str) -> None:
    controls = Controls(0.5)
    before = replace(controls)
    controls.press(key)
    assert getattr(controls, switch) is not getattr(before, switch)
    setattr(controls, switch, getattr(before, switch))
    assert controls == before
    controls.press(key)
    controls.press(key)
    assert controls == before


@pytest.mark.parametrize("key", ["q", "\x1b"])
def test_quitting_is_final(key: str) -> None:
    controls = Controls()
    controls.press(key)
    controls.press(key)
    assert controls.ended


def test_a_snapshot_is_taken_once() -> None:
    controls = Controls()
    assert not controls.take_snapshot()
    controls.press("s")
    controls.press("s")
    assert controls.take_snapshot()
    assert not controls.take_snapshot()


def test_plus_and_minus_move_the_threshold_within_its_range_without_drift() -> None:
    controls = Controls(threshold=0.5, minimum=0.3)
    seen = []
    for key in "----++":
        controls.press(key)
        seen.append(controls.threshold)
    assert seen == [0.45, 0.4, 0.35, 0.3, 0.35, 0.4]
    for _ in range(30):
        controls.press("+")
    assert controls.threshold == 1.0
    for _ in range(30):
        controls.press("-")
    assert controls.threshold == 0.3


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.text("+-", max_size=60))
def test_the_threshold_stays_between_its_minimum_and_one(a: float, b: float, keys: str) -> None:
    controls = Controls(threshold=max(a, b), minimum=min(a, b))
    for key in keys:
        controls.press(key)
        assert controls.minimum <= controls.threshold <= 1


def test_instances_below_the_threshold_are_excluded() -> None:
    instances = scored(0.9, 0.55, 0.5, 0.49999)
    np.testing.assert_array_equal(Controls(0.5).select(instances).scores, instances.scores[:3])
    assert len(Controls(1.0).select(instances)) == 0
    assert len(Controls().select(Instances.empty())) == 0


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1))
def test_a_score_equal_to_the_threshold_is_selected(score: float) -> None:
    """Scores are float32: the nearest to 0.7 is below 0.7."""
    assert len(Controls(score).select(scored(score))) == 1


def test_controls_need_no_numpy() -> None:
    program = "import live_seg.ui.controls, sys; print([n for n in ('numpy', 'cv2') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
