import math

import numpy as np
import pytest

from natix_roadwork.data.scene_plan import DAYTIMES, ENVIRONMENTS, WEATHERS
from natix_roadwork.data.tags import is_missing, is_missing_text, parse_tags, tag_ids
from natix_roadwork.model.configuration_roadwork import DEFAULT_VOCABULARIES


WEATHER = ["sunny", "rainy", "foggy"]


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ("['Sunny']", ["Sunny"]),
        ('["Sunny", null]', ["Sunny"]),
        ("('Sunny', 'Clear')", ["Sunny", "Clear"]),
        ("['Partially Blocked', 'Lane Shift']", ["Partially Blocked", "Lane Shift"]),
        ("Light", ["Light"]),
        ("Sunny, Cloudy; Wet", ["Sunny", "Cloudy", "Wet"]),
        (["Sunny", None, math.nan], ["Sunny"]),
        (np.array(["Sunny"]), ["Sunny"]),
        ("['None']", ["None"]),
        *((missing, []) for missing in ("[]", None, "  ", "None", "null", "nan", math.nan, [], [""], "[null]")),
    ],
)
def test_tag_forms(value: object, tags: list[str]) -> None:
    assert parse_tags(value) == tags


@pytest.mark.parametrize("value", ["['Sunny'", "[1, 2]", 3, "{'a': 1}", {"a": 1}, ["Sunny", 3]])
def test_wrong_tags_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="tags"):
        parse_tags(value)


def test_list_text_reads_back() -> None:
    words = ["Sunny", "Lane Shift", "it's", 'a "b"', "[x]"]
    for count in range(len(words) + 1):
        assert parse_tags(str(words[:count])) == words[:count]


@pytest.mark.parametrize(
    ("tags", "ids"),
    [
        (["Sunny"], [0]),
        (["RAIN", "sunny"], [1, 0]),
        (["Misty", "fog", "Foggy"], [2]),
        (["Volcanic ash"], [3]),
        (["Volcanic ash", "Meteors", "Sunny"], [3, 0]),
        (["Unknown"], [3]),
        (["snow"], [3]),
        ([], []),
        (["None", "", "null"], []),
    ],
)
def test_unknown_tag_is_not_a_missing_one(tags: list[str], ids: list[int]) -> None:
    assert tag_ids("weather", tags, WEATHER) == ids


def test_word_of_the_vocabulary_stands_for_itself() -> None:
    assert tag_ids("daytime", ["Twilight", "Dark"], ["night", "twilight", "dusk"]) == [1, 0]


def test_spelling_does_not_matter() -> None:
    assert tag_ids("weather", ["partly_cloudy", "Partly-Cloudy", " partly  cloudy"], ["cloudy"]) == [0]


@pytest.mark.parametrize(
    ("value", "missing"), [(None, True), (math.nan, True), (np.float32("nan"), True), (" ", True), ("None", False)]
)
def test_missing_values(value: object, missing: bool) -> None:
    assert is_missing(value) == missing
    assert is_missing_text("None") and is_missing_text("") and not is_missing_text("Sunny")


def test_words_of_the_scenes_are_known() -> None:
    words = {"weather": {tag for tags in WEATHERS for tag in tags}, "daytime": DAYTIMES, "scene": ENVIRONMENTS}
    for field, tags in words.items():
        vocabulary = DEFAULT_VOCABULARIES[field]
        assert len(vocabulary) not in tag_ids(field, sorted(tags), vocabulary)
