import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from natix_roadwork.data.metadata import (
    NO_METADATA,
    MetadataInputs,
    encode_metadata,
)
from natix_roadwork.data.tags import TAG_ALIASES, tag_ids
from natix_roadwork.data.text_vectors import TextVectors
from natix_roadwork.model.configuration_roadwork import DEFAULT_VOCABULARIES, METADATA_FIELDS


VECTORS = TextVectors(np.eye(2, 384, dtype=np.float32), {"Cones.": 0, "A sign.": 1})
NAMES = {"gps", "weather_ids", "daytime_ids", "scene_ids", "text_embeddings"}


def rows() -> dict[str, list[Any]]:
    """Four rows: everything given, nothing given, several tags, tags that no vocabulary has."""
    return {
        "latitude": [39.77160604, math.nan, -33.5, 0.0],
        "longitude": [-86.18823935, math.nan, 151.0, 9.0],
        "weather": [["Sunny"], [], ["Cloudy", "Rainy", "cloudy"], ["Ash", "Hail"]],
        "daytime": [["Light"], [], ["Dark"], ["Twilight"]],
        "scene": [["Suburban"], [], ["Urban", "Highway"], ["Moon"]],
        "text": ["Cones.", "", "A sign.", "Cones."],
    }


def encoded(*fields: str, **options: Any) -> dict[str, np.ndarray]:
    return encode_metadata(rows(), fields, DEFAULT_VOCABULARIES, VECTORS, **options)


def test_tags_become_padded_ids() -> None:
    arrays = encoded("weather", "daytime", "scene")
    assert arrays["weather_ids"].tolist() == [[0, *[-1] * 7], [-1] * 8, [3, 1, *[-1] * 6], [7, *[-1] * 7]]
    assert arrays["daytime_ids"][:, 0].tolist() == [4, -1, 1, 3]
    assert arrays["scene_ids"][:, :2].tolist() == [[2, -1], [-1, -1], [0, 1], [6, -1]]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int64)}


def test_every_word_of_a_vocabulary_and_unknown_ones_fit() -> None:
    words = [*DEFAULT_VOCABULARIES["daytime"], "a", "b"]
    ids = encode_metadata({"daytime": [words]}, ["daytime"], DEFAULT_VOCABULARIES)["daytime_ids"]
    assert ids.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_gps_and_text_are_nan_where_missing() -> None:
    arrays = encoded("gps", "text")
    np.testing.assert_allclose(arrays["gps"][[0, 2, 3]], [[39.771606, -86.18824], [-33.5, 151.0], [0.0, 9.0]])
    assert arrays["gps"].shape == (4, 2) and np.isnan(arrays["gps"][1]).all()
    assert arrays["text_embeddings"].shape == (4, 384) and np.isnan(arrays["text_embeddings"][1]).all()
    np.testing.assert_array_equal(arrays["text_embeddings"][3], VECTORS.vectors[0])


def test_weather_label_is_the_single_known_word() -> None:
    assert encoded(weather_labels=True)["weather_labels"].tolist() == [0, -100, -100, -100]
    changed = {"weather": [["sun", "Sunny"], ["Sunny", "Ash"], ["Ash"], ["Snow"]]}
    labels = encode_metadata(changed, [], DEFAULT_VOCABULARIES, weather_labels=True)
    assert labels["weather_labels"].tolist() == [0, -100, -100, 6] and labels.keys() == {"weather_labels"}


@pytest.mark.parametrize("fields", [(), ("gps",), ("weather", "text"), METADATA_FIELDS])
def test_chosen_fields_are_there_and_no_others(fields: tuple[str, ...]) -> None:
    wanted = {name for name in NAMES if name.split("_")[0] in fields}
    assert encoded(*fields).keys() == wanted
    assert encoded(*fields, weather_labels=True).keys() == wanted | {"weather_labels"}


def test_row_does_not_depend_on_the_others() -> None:
    whole = encoded(*METADATA_FIELDS)
    for number in range(4):
        alone = {name: [values[number]] for name, values in rows().items()}
        arrays = encode_metadata(alone, METADATA_FIELDS, DEFAULT_VOCABULARIES, VECTORS)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array[0], whole[name][number])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"fields": ("gsp",)}, r"metadata_fields=\['gsp'\].*'gsp' is none of"),
        ({"fields": ("gps", "gps")}, "occurs twice"),
        ({"fields": ("text",)}, "no text_vectors"),
        ({"fields": ("scene",), "vocabularies": {"weather": ["sunny"]}}, "no words for 'scene'"),
        ({"weather_labels": True}, "no words for 'weather'"),
    ],
)
def test_what_cannot_be_read_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MetadataInputs(**options)


def test_inputs_are_one_tensor_a_row_in_any_process() -> None:
    inputs = pickle.loads(pickle.dumps(MetadataInputs(METADATA_FIELDS, DEFAULT_VOCABULARIES, VECTORS, True)))
    tensors = inputs.tensors(rows())
    assert tensors.keys() == NAMES | {"weather_labels"}
    assert {len(values) for values in tensors.values()} == {4}
    assert tensors["weather_ids"][2].dtype == torch.int64 and tensors["gps"][0].dtype == torch.float32
    assert inputs.columns == ["latitude", "longitude", "weather", "daytime", "scene", "text"]


def test_without_fields_there_is_nothing() -> None:
    assert NO_METADATA.tensors(rows()) == {} and NO_METADATA.columns == []
    assert MetadataInputs((), DEFAULT_VOCABULARIES, None, True).columns == ["weather"]


def test_unknown_text_is_named() -> None:
    with pytest.raises(ValueError, match="'Barrels' has no vector"):
        VECTORS.lookup(["Barrels"])


def test_aliases_lead_to_words_of_the_default_vocabularies() -> None:
    for field, aliases in TAG_ALIASES.items():
        vocabulary = DEFAULT_VOCABULARIES[field]
        assert not set(aliases) & set(vocabulary)
        assert [vocabulary[tag_ids(field, [alias], vocabulary)[0]] for alias in aliases] == list(aliases.values())
