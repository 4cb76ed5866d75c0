"""The exceptions and the hints in their messages."""

import inspect

import pytest

from live_seg import errors
from live_seg.errors import LiveSegError, UsageError, nearest


def test_every_exception_derives_from_one_base_class() -> None:
    classes = [
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if value.__module__ == errors.__name__
    ]
    assert len(classes) == 6
    assert all(issubclass(value, LiveSegError) for value in classes)


def test_a_usage_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="wrong"):
        raise UsageError("wrong")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("persn", "Did you mean person?"),
        ("PERSON", "Did you mean person?"),
        ("xyz", "Known: person, dog, cat."),
    ],
)
def test_an_unknown_name_gets_a_hint(word: str, hint: str) -> None:
    assert nearest(word, iter(["person", "dog", "cat"])) == hint
