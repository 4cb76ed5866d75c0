import pytest

from live_seg.errors import UsageError, nearest
from live_seg.models.classes import BACKGROUND, COCO_CATEGORIES, COCO_CLASSES, choose


def test_cocos_names_stand_at_the_ids_of_the_published_weights() -> None:
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 81
    known = {0: BACKGROUND, 1: "person", 17: "dog", 40: "bottle", 63: "tv", 80: "toothbrush"}
    assert {class_id: COCO_CLASSES[class_id] for class_id in known} == known


def test_cocos_names_by_category_id() -> None:
    assert len(COCO_CATEGORIES) == len(set(COCO_CATEGORIES)) == 91
    known = {0: BACKGROUND, 1: "person", 11: "fire hydrant", 13: "stop sign", 72: "tv", 90: "toothbrush"}
    assert {category: COCO_CATEGORIES[category] for category in known} == known
    assert tuple(name for name in COCO_CATEGORIES if not name.startswith("unused")) == COCO_CLASSES
    assert COCO_CATEGORIES[12] == "unused category 12"


def test_classes_are_chosen_by_name_whatever_the_case() -> None:
    assert choose(["person", "DOG", " Hot Dog "], COCO_CLASSES) == {1, 17, 53}
    assert choose(["Cat"], ["background", "dog", "CAT"]) == {2}
    assert choose(["dog", "dog"], COCO_CLASSES) == {17}
    assert choose([], COCO_CLASSES) == frozenset()


def test_a_misspelt_class_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no class 'persn'\. Did you mean person\?"):
        choose(["dog", "persn"], COCO_CLASSES)


@pytest.mark.parametrize("name", ["", " ", "qqqqqq", BACKGROUND])
def test_what_is_like_no_class_lists_them_all(name: str) -> None:
    with pytest.raises(UsageError, match=r"Known: person, dog\."):
        choose([name], [BACKGROUND, "person", "dog"])


def test_nearest_names_come_best_first() -> None:
    assert nearest("Skateboards", COCO_CLASSES).startswith("Did you mean skateboard")
    assert nearest("cot", iter(["cat", "cow"])) == "Did you mean cow or cat?"
