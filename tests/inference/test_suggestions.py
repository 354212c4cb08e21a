import shlex

import pytest

from natix_roadwork.inference.calibrating import CalibrateArguments
from natix_roadwork.inference.curves import CalibrationTest
from natix_roadwork.inference.row_slices import DARK
from natix_roadwork.inference.slice_scores import Estimate, SliceScore
from natix_roadwork.inference.suggestions import format_p, other_view_size, suggest
from natix_roadwork.training.arguments import PretrainArguments
from natix_roadwork.training.yaml_args import parse_recipe


CALIBRATED, MISCALIBRATED = CalibrationTest(0.8, 0.0, 0.0), CalibrationTest(0.001, 0.02, 0.01)


def score_of(dimension: str, value: str, excess: float = 0.2, adjusted_p: float | None = 0.01) -> SliceScore:
    nothing = Estimate(None, None, None)
    estimate = Estimate(excess, excess - 0.1, excess + 0.1)
    return SliceScore(dimension, value, 100, 50, 90, *[nothing] * 4, estimate, adjusted_p, adjusted_p)


SLICES = [
    ("brightness", DARK, "--augmentation heavy"),
    ("daytime", "night", "--augmentation heavy"),
    ("weather", "rainy", "--augmentation heavy"),
    ("GPS region", "Denver (17 km)", "--gps_sampling solved"),
    ("city", "Denver", "--gps_sampling solved"),
    ("photo size", "below 0.5 MP", "--view_size 384"),
    ("photo size", "8 MP and more", "--evidence_grid 7"),
    ("scene", "rural", "--metadata_fields scene"),
]


@pytest.mark.parametrize(("dimension", "value", "keys"), SLICES)
def test_a_slice_that_stands_out_suggests_keys_that_the_recipe_knows(dimension: str, value: str, keys: str) -> None:
    (found,), unanswered = suggest([score_of(dimension, value)], CALIBRATED, 0.8, 1.0)
    assert keys in found.keys and not unanswered
    assert "+20.0 points" in found.figures and "100 rows in 90 groups" in found.figures and ".010" in found.figures
    parse_recipe(["--dataset_name", "x", *shlex.split(found.keys)], [PretrainArguments])


@pytest.mark.parametrize("score", [score_of("daytime", "night", adjusted_p=0.06), score_of("daytime", "night", -0.2)])
def test_chance_and_better_slices_suggest_nothing(score: SliceScore) -> None:
    assert suggest([score, score_of("city", "Denver", adjusted_p=None)], CALIBRATED, 0.8, 1.0) == ([], [])


def test_slices_without_a_key_are_listed_as_such() -> None:
    scores = [score_of("weather", "sunny"), score_of("city", "not given")]
    found, unanswered = suggest(scores, CALIBRATED, 0.8, 1.0)
    assert not found and unanswered == scores


def test_slices_with_one_reason_are_one_suggestion() -> None:
    scores = [score_of("daytime", "dusk"), score_of("daytime", "night", 0.3), score_of("weather", "snowy")]
    found, _ = suggest(scores, CALIBRATED, 0.8, 1.0)
    assert len(found) == 2 and "'night'" in found[0].figures and "'dusk'" in found[0].figures


@pytest.mark.parametrize(
    ("dimension", "value", "config"),
    [
        ("daytime", "night", {"augmentation": "heavy"}),
        ("weather", "rainy", {"augmentation": "x1.5"}),
        ("city", "Denver", {"gps_sampling": "solved", "gps_target": "dev"}),
        ("scene", "rural", {"metadata_fields": ["gps", "scene"]}),
        ("photo size", "below 0.5 MP", {"view_size": 16}),
    ],
)
def test_what_the_run_has_already_is_not_suggested(dimension: str, value: str, config: dict) -> None:
    score = score_of(dimension, value)
    assert suggest([score], CALIBRATED, 0.8, 1.0, config) == ([], [score])


@pytest.mark.parametrize(
    ("dimension", "value", "config", "keys"),
    [
        ("daytime", "night", {"feature_cache": "auto"}, "--augmentation heavy --feature_draws 4"),
        (
            "daytime",
            "night",
            {"feature_cache": "x", "feature_draws": 6, "augmentation": "light"},
            "--augmentation heavy",
        ),
        ("city", "Denver", {"gps_sampling": "solved", "gps_target": "test"}, "--gps_target dev"),
        ("scene", "rural", {"metadata_fields": ["gps", "weather"]}, "--metadata_fields gps weather scene"),
        ("scene", "rural", {"metadata_fields": ["auto"]}, "--metadata_fields scene"),
        ("photo size", "8 MP and more", {"view_size": 224}, "--evidence_grid 7"),
        ("photo size", "8 MP and more", {"view_size": 224, "evidence_grid": 7}, "--view_size 336"),
        ("photo size", "below 0.5 MP", {"view_size": 224}, "--view_size 112"),
    ],
)
def test_keys_start_from_the_settings_of_the_run(dimension: str, value: str, config: dict, keys: str) -> None:
    (found,), _ = suggest([score_of(dimension, value)], CALIBRATED, 0.8, 1.0, config)
    assert found.keys == keys and found.recipe == "recipes/pretrain.py"


@pytest.mark.parametrize("size", [112, 224, 336, 384, 448, 512, 518, 640])
def test_other_view_sizes_are_whole_patches_on_the_right_side(size: int) -> None:
    smaller, larger = other_view_size(size, larger=False), other_view_size(size, larger=True)
    assert smaller is None or smaller <= 0.75 * size
    assert larger >= 1.25 * size and (smaller is not None or size == 112)
    for patch in (14, 16):
        assert size % patch or ((smaller or 0) % patch == 0 and larger % patch == 0)


@pytest.mark.parametrize(("temperature", "keys"), [(0.6, "--focal_gamma 0"), (1.7, "--label_smoothing 0.2")])
def test_calibration_suggests_by_the_side_it_is_off(temperature: float, keys: str) -> None:
    (found, mended), _ = suggest([], MISCALIBRATED, 0.004, temperature)
    assert keys in found.keys and "+0.020" in found.figures and f"{temperature:.2f}" in found.figures
    assert mended.recipe == "recipes/calibrate.py" and mended.figures == found.figures
    parse_recipe(["--model", "x", "--predictions", "y", *shlex.split(mended.keys)], [CalibrateArguments])


def test_a_run_that_is_held_back_as_much_already_is_only_calibrated() -> None:
    strong = {"dropout": 0.5, "label_smoothing": 0.1}
    assert [found.keys for found in suggest([], MISCALIBRATED, 0.004, 1.7, strong)[0]] == [
        "--label_smoothing 0.2",
        "--method platt",
    ]
    strong["label_smoothing"] = 0.3
    assert [found.keys for found in suggest([], MISCALIBRATED, 0.004, 1.7, strong)[0]] == ["--method platt"]


def test_p_values_are_written_for_a_reader() -> None:
    assert [format_p(p) for p in (None, 0.0002, 0.0123, 0.5, 1.0)] == ["", "below .001", ".012", ".500", "1"]
