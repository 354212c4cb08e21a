from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.dark_rows import DarkArguments, DarkRows, choose_dark_rows, dark_figures
from natix_roadwork.training.dry_run import dry_run
from natix_roadwork.training.pretrain_inputs import PretrainInputs, prepare_inputs
from natix_roadwork.training.pretraining import pretrain
from tests.dark_photos import DARK_SHARE, write_dark_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dark_photos(tmp_path_factory.mktemp("dark"))


@pytest.fixture(scope="module")
def rows(photos: Path) -> LoadedRows:
    return load_rows(str(photos), near_duplicates=False)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("backbone")
    DINOv3ViTModel(DINOv3ViTConfig(patch_size=16, image_size=32, **sizes)).save_pretrained(folder)
    return folder


def settings(photos: Path, backbone: Path, **changes: object) -> PretrainArguments:
    sizes = {"view_size": 32, "hidden_size": 16, "num_attention_heads": 2, "num_attention_layers": 1}
    values = {"darkest_share": DARK_SHARE, "bright_weight": 0.0, "near_duplicates": False, "baselines": False}
    return PretrainArguments(dataset_name=str(photos), backbone_id=str(backbone), **values | sizes | changes)


def training(folder: Path, **changes: object) -> RoadworkTrainingArguments:
    values = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "per_device_train_batch_size": 4}
    return RoadworkTrainingArguments(output_dir=str(folder), **values | changes)


def row_numbers(inputs: PretrainInputs) -> list[int]:
    return inputs.fitted.tolist()


def test_dark_rows_are_the_darkest_by_their_pixels(rows: LoadedRows) -> None:
    """Every third photo is dark; its daytime tag says the opposite."""
    train = rows.splits["train"]
    found = choose_dark_rows(train, DarkArguments(darkest_share=DARK_SHARE, bright_weight=0.0))
    assert found.kept(np.arange(len(train))).tolist() == list(range(0, len(train), 3))
    assert set(found.weights) == {0.0, 1.0} and 20 < found.limit < 65
    tags = np.array([tag[0] for tag in train["daytime"][:]])
    assert set(tags[::3]) == {"Light"} and set(np.delete(tags, np.s_[::3])) == {"Dark"}


def test_the_whole_set_is_drawn_by_weight_where_bright_rows_count(rows: LoadedRows) -> None:
    found = choose_dark_rows(rows.splits["train"], DarkArguments(darkest_share=DARK_SHARE, bright_weight=0.25))
    assert found.kept(np.arange(60)).tolist() == list(range(60))
    assert found.weights.tolist() == [1.0, 0.25, 0.25] * 20
    assert found.combined(np.full(60, 4.0)).tolist() == [4.0, 1.0, 1.0] * 20


def test_the_choice_is_said_in_counts(rows: LoadedRows) -> None:
    found = choose_dark_rows(rows.splits["train"], DarkArguments(darkest_share=DARK_SHARE)).as_dict([0, 3, 6])
    assert found["rows"] == {"dark": {"None": 10, "Roadwork": 10}, "other": {"None": 20, "Roadwork": 20}}
    assert found["trained_on"] == {"dark": {"None": 2, "Roadwork": 1}, "other": {"None": 0, "Roadwork": 0}}
    assert found["below_night_level"] == 20


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"darkest_share": 0.1}, r"of 60 rows to train on 6 are dark .* \d with roadwork and \d without; 5 of each"),
        ({"darkest_share": 0.0}, r"darkest_share=0.0 must lie between 0 and 1"),
        ({"darkest_share": 1.0}, r"darkest_share=1.0"),
        ({"bright_weight": 1.0, "darkest_share": 0.5}, r"bright_weight=1.0 must lie in \[0, 1\)"),
    ],
)
def test_what_cannot_be_trained_on_is_named(keys: dict[str, float], message: str, rows: LoadedRows) -> None:
    with pytest.raises(ValueError, match=message):
        choose_dark_rows(rows.splits["train"], PretrainArguments("photos", **keys))


def test_one_class_left_is_an_error() -> None:
    labels = np.array([0] * 20 + [1] * 20)
    dark = DarkRows(50.0, np.where(labels == 0, 30.0, 200.0), labels)
    with pytest.raises(ValueError, match=r"20 are dark .*, 0 with roadwork and 20 without"):
        dark.kept(np.arange(40))


@pytest.mark.parametrize("feature_cache", ["off", "tokens"])
def test_only_train_rows_are_chosen(feature_cache: str, photos: Path, backbone: Path, tmp_path: Path) -> None:
    cache = feature_cache if feature_cache == "off" else str(tmp_path / "tokens")
    inputs = prepare_inputs(settings(photos, backbone, feature_cache=cache), training(tmp_path))
    assert row_numbers(inputs) == list(range(0, 60, 3)) and inputs.sampling_weights is None
    assert {name: len(split) for name, split in inputs.datasets.items()} == {"train": 20, "dev": 12, "test": 6}
    assert inputs.datasets["train"].read([0, 1, 2])["labels"].tolist() == [0, 1, 0]


def test_the_rows_that_choose_the_epoch_stay_whole(photos: Path, backbone: Path, tmp_path: Path) -> None:
    """Weights follow the rows that are left, and class weights the draws."""
    keys = {"bright_weight": 0.5, "selection_share": 0.1, "feature_cache": "off", "darkest_share": 0.4}
    inputs = prepare_inputs(settings(photos, backbone, **keys), training(tmp_path))
    fitted = np.array(row_numbers(inputs))
    assert len(fitted) + len(inputs.datasets["selection"]) == 60 and inputs.chooser == "selection"
    weights, labels = inputs.dark.weights, inputs.dark.labels
    assert sorted(set(weights)) == [0.5, 1.0] and weights.sum() == 24 + 0.5 * 36
    assert np.array_equal(inputs.sampling_weights, weights[fitted])
    drawn = [weights.sum() / (2 * weights[labels == label].sum()) for label in (0, 1)]
    assert inputs.model.config.focal_alpha == pytest.approx(drawn)


def test_a_dry_run_counts_the_steps_on_dark_rows(photos: Path, backbone: Path, tmp_path: Path) -> None:
    args = {"num_train_epochs": 3, "per_device_train_batch_size": 2}
    assert "steps: 30\n" in dry_run(settings(photos, backbone), training(tmp_path / "dark", **args))
    everything = settings(photos, backbone, darkest_share=None)
    assert "steps: 90\n" in dry_run(everything, training(tmp_path / "all", **args))


def test_figures_of_dark_rows_stand_beside_those_of_the_others(rows: LoadedRows) -> None:
    dev = rows.splits["dev"]
    labels = np.array(dev["label"][:])
    right = np.where(np.arange(len(dev)) % 3 == 0, labels, 1 - labels).astype(float)
    found = dark_figures(dev, 65.0, right, seed=0)
    assert found["dark"]["rows"] == {"None": 2, "Roadwork": 2}
    assert found["dark"]["metrics"]["mcc"]["value"] == 1.0 and found["other"]["metrics"]["mcc"]["value"] == -1.0
    assert dark_figures(dev, 0.0, right, seed=0)["dark"]["metrics"] is None


def test_a_run_records_what_was_dark(photos: Path, backbone: Path, tmp_path: Path) -> None:
    result = pretrain(settings(photos, backbone, feature_cache="off"), training(tmp_path, max_steps=2))
    found = result.details["brightness"]
    assert sum(found["trained_on"]["dark"].values()) == 20 and sum(found["trained_on"]["other"].values()) == 0
    counts = {name: sum(found["dev"][name]["rows"].values()) for name in ("dark", "other")}
    assert sum(counts.values()) == 12 and 1 <= counts["dark"] <= 4, "every third photo, up to the limit of train"
    assert set(found["dev"]["other"]["metrics"]["mcc"]) == {"value", "low", "high"} and "test" in found
    assert result.details["learned_from"] == ["train", "dev"]
