import numpy as np
import pytest
from datasets import Dataset

from natix_roadwork.data.brightness import brightness_of
from natix_roadwork.inference import row_slices as module
from natix_roadwork.inference.row_slices import DARK, row_slices


def table(num_rows: int = 6, **columns: list) -> Dataset:
    """Rows of the schema's columns that slices read."""
    empty = {name: [[] for _ in range(num_rows)] for name in ("weather", "daytime", "scene")}
    empty |= {"city": [""] * num_rows, "width": [100] * num_rows, "height": [100] * num_rows}
    empty |= {"latitude": [float("nan")] * num_rows, "longitude": [float("nan")] * num_rows}
    return Dataset.from_dict(empty | columns)


def masks(rows: Dataset, brightness: list[float] | None = None) -> dict[tuple[str, str], list[int]]:
    """Row numbers by dimension and value."""
    slices, _ = row_slices(rows, np.array(brightness or [120.0] * len(rows)))
    return {(slice_.dimension, slice_.value): np.flatnonzero(slice_.mask).tolist() for slice_ in slices}


def test_tags_are_read_with_the_model_s_words_and_a_row_may_be_in_two() -> None:
    daytime = [["Dark"], ["night"], ["Light"], ["Twilight"], [], ["Moonlit"]]
    found = masks(table(daytime=daytime, weather=[["Sunny", "Cloudy"], ["sunny"], [], [], [], []]))
    assert found["daytime", "night"] == [0, 1] and found["daytime", "dusk"] == [3]
    assert found["daytime", "Moonlit"] == [5] and found["daytime", "not given"] == [4]
    assert found["weather", "sunny"] == [0, 1] and found["weather", "cloudy"] == [0]


def test_sizes_and_brightness_are_binned_at_their_lower_ends() -> None:
    found = masks(
        table(width=[500, 1000, 1000, 2000, 4000, 4000], height=[999, 500, 1000, 1000, 2000, 1999]),
        [64.9, 65.0, 90.0, 149.9, 150.0, 255.0],
    )
    sizes = [key[1] for key in found if key[0] == "photo size"]
    assert sizes == ["below 0.5 MP", "0.5 to 1 MP", "1 to 2 MP", "2 to 4 MP", "4 to 8 MP", "8 MP and more"]
    assert found["photo size", "8 MP and more"] == [4] and found["photo size", "4 to 8 MP"] == [5]
    assert found["brightness", DARK] == [0] and found["brightness", "dim (65 to 90)"] == [1]
    assert found["brightness", "bright (150 and more)"] == [4, 5]


def test_regions_are_named_by_city_and_rows_without_coordinates_say_so() -> None:
    latitude, longitude = [39.74, 39.75, 47.61, 47.6, float("nan"), 39.76], [-104.99] * 2 + [-122.33] * 2
    slices, undivided = row_slices(
        table(latitude=latitude, longitude=[*longitude, float("nan"), -104.98]), np.full(6, 120.0), num_regions=2
    )
    found = {slice_.value: np.flatnonzero(slice_.mask).tolist() for slice_ in slices}
    assert found == {"Denver (1 km)": [0, 1, 5], "Seattle (1 km)": [2, 3], "not given": [4]}
    assert undivided == ["weather", "daytime", "scene", "city", "photo size", "brightness"]


def test_many_values_share_their_last_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VALUES", 2)
    found = masks(table(9, city=["a", "a", "a", "b", "b", "c", "d", "e", "f"]))
    assert found == {("city", "a"): [0, 1, 2], ("city", "b"): [3, 4], ("city", "4 other values"): [5, 6, 7, 8]}


def test_dark_photos_are_found_among_rows(rows: Dataset) -> None:
    levels = brightness_of(rows, progress=False)
    assert np.array_equal(levels < 65, np.arange(len(rows)) % 4 == 0)
