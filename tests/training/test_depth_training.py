"""Depth through whole runs: training live and from the cache, prediction with and without, fine-tuning, ablation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.depth import depth_path, write_depth
from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.data.token_passes import TokenPasses
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.photo_model import load_photo_model
from natix_roadwork.inference.predict import predict
from natix_roadwork.inference.row_evidence import EvidenceReader
from natix_roadwork.runs import RunResult
from natix_roadwork.training.ablation_rows import ablation_rows
from natix_roadwork.training.ablation_tokens import TokenStore
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.dry_run import dry_run
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.finetune_inputs import prepare_folds
from natix_roadwork.training.pretrain_inputs import PretrainInputs, prepare_inputs
from natix_roadwork.training.pretraining import pretrain
from natix_roadwork.training.yaml_args import parse_recipe
from tests.fold_runs import COMMON, fold_command, pairs, run_folds, train_base
from tests.recipe_photos import write_photos


def map_all(folder: Path, photos: Path, every: int = 2) -> Path:
    """A depth map of each second row of an imagefolder."""
    draw = np.random.default_rng(0)
    for rows in load_rows(str(photos), near_duplicates=False).splits.values():
        for row_id in rows["row_id"][::every]:
            write_depth(folder, row_id, draw.integers(0, 256, (24, 32), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained with a depth view on cached draws."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("deep")
    settings = {"feature_draws": 2, "augmentation": "heavy", "keep_views": 13}

    def write(photos: Path, rows: dict[str, int]) -> Path:
        map_all(folder / "depth", write_photos(photos, rows))
        return photos

    return train_base(folder, write, depth_folder=folder / "depth", **settings)


def settings_of(base: Path, output_dir: Path, **changes: Any) -> tuple[PretrainArguments, RoadworkTrainingArguments]:
    """The base's own settings, some changed."""
    config = result_of(base).config
    names = {*PretrainArguments.__dataclass_fields__} - {"loss_weights", "focal_alpha"}
    own = {name: config[name] for name in names if config[name] not in (None, [])} | {"output_dir": output_dir}
    own |= COMMON | {"per_device_train_batch_size": 4, "max_steps": 2, "seed": 1, "selection_share": 0} | changes
    lists = {name: value for name, value in own.items() if isinstance(value, list)}
    command = pairs({name: value for name, value in own.items() if name not in lists and value is not None})
    command += [word for name, values in lists.items() for word in (f"--{name}", *map(str, values))]
    return parse_recipe(command, (PretrainArguments, RoadworkTrainingArguments))


def prepared(base: Path, output_dir: Path, **changes: Any) -> PretrainInputs:
    return prepare_inputs(*settings_of(base, output_dir, **changes))


def result_of(folder: Path) -> RunResult:
    return RunResult(**json.loads((folder / "result.json").read_text()))


def asked_of(base: Path, output_dir: Path, **values: Any) -> PredictArguments:
    common = {"model": str(base), "dataset_name": str(base.parent / "photos"), "output_dir": str(output_dir)}
    run = {"per_device_eval_batch_size": 6, "splits": ["dev"], "seed": 1, "use_cpu": True}
    return PredictArguments(**common | run | values)


def test_a_run_trains_a_view_of_depth_and_counts_its_maps(base: Path) -> None:
    assert result_of(base).details["depth"] == {"rows": 56, "with_depth": 28}
    config = json.loads((base / "config.json").read_text())
    assert (config["num_views"], config["depth_view"], config["wide_views"]) == (13, True, [0, 10, 11])
    assert any(
        "photos with a depth map, where they have it; a bare photo" in text for text in result_of(base).warnings
    )
    assert str(base.parent) not in (base / "config.json").read_text()


def test_live_and_cached_batches_hold_the_same_depth(base: Path, tmp_path: Path) -> None:
    live = prepared(base, tmp_path, feature_cache="off", feature_draws=0, baselines="false")
    cached = prepared(base, tmp_path / "cached")
    one, other = live.datasets["dev"].read(range(3)), cached.datasets["dev"].read(range(3))
    assert torch.equal(one["view_mask"], other["view_mask"]) and one["view_mask"][:, 12].tolist() == [
        True,
        False,
        True,
    ]
    assert torch.equal(live.model.extract_tokens(one["pixel_values"]).half(), other["view_features"])


def test_live_training_mixes_and_goes_on(base: Path, tmp_path: Path) -> None:
    mixing = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "baselines": "false", "gps_sampling": "off"}
    result = pretrain(*settings_of(base, tmp_path, feature_cache="off", feature_draws=0, logging_steps=1, **mixing))
    assert all(np.isfinite(line["loss"]) for line in result.details["log"] if "loss" in line)


def test_predictions_read_depth_and_say_when_they_do_not(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = str(base.parent / "depth")
    live = asked_of(base, tmp_path / "live", depth_folder=maps)
    assert predict(live).details["depth"] == {"rows": 24, "with_depth": 12}
    bare = predict(asked_of(base, tmp_path / "bare"))
    assert any("no depth_folder is given; it answered without depth" in text for text in bare.warnings)
    with_depth, without = (read_predictions(tmp_path / name / "base.arrow").logits for name in ("live", "bare"))
    change = np.abs(with_depth - without).max(axis=1)
    assert change[1::2].max() < 1e-5 < change[::2].min()
    monkeypatch.setattr(TokenPasses, "compute", lambda *_, **__: pytest.fail("computed again"))
    cached = asked_of(base, tmp_path / "cached", depth_folder=maps, feature_cache=str(base.parent / "tokens"))
    predict(cached)
    assert cached.path.read_bytes() == live.path.read_bytes()


def test_depth_that_cannot_be_read_is_refused(base: Path, tmp_path: Path) -> None:
    maps = str(base.parent / "depth")
    with pytest.raises(ValueError, match=r"depth maps do not follow the transforms of tta=\['all'\]"):
        asked_of(base, tmp_path, depth_folder=maps, tta=["all"])
    plain = tmp_path / "plain"
    config = RoadworkForImageClassification.from_pretrained(base).config
    config.num_views, config.depth_view = 12, False
    RoadworkForImageClassification(config).save_pretrained(plain)
    (plain / "preprocessor_config.json").write_bytes((base / "preprocessor_config.json").read_bytes())
    with pytest.raises(ValueError, match="was trained without a depth view; leave depth_folder out"):
        predict(asked_of(plain, tmp_path / "run", dataset_name=str(base.parent / "photos"), depth_folder=maps))
    with pytest.raises(ValueError, match=r"has no depth map of any of the 56 rows"):
        prepare_inputs(*settings_of(base, tmp_path, depth_folder=str(tmp_path)))


def test_test_time_transforms_and_single_photos_do_without(base: Path, tmp_path: Path) -> None:
    transformed = asked_of(base, tmp_path / "tta", tta=["0", "1"])
    predict(transformed)
    bare = asked_of(base, tmp_path / "bare")
    predict(bare)
    found = read_predictions(transformed.path)
    original = found.logits[found.transforms == 0]
    assert np.allclose(original, read_predictions(bare.path).logits, atol=1e-4)
    model = load_photo_model(str(base), "cpu")
    photo = str(base.parent / "photos" / "dev" / "0.png")
    (reading,) = model.answer([model.prepare(photo)], explain=True)
    assert len(reading.views) == 12
    rows = load_rows(str(base.parent / "photos"), near_duplicates=False).splits["dev"]
    explained = EvidenceReader(str(base), rows, "embedded:all-minilm-l6-v2").explain(rows[0], (128, 96))
    assert len(explained.views) == 12 and explained.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("cache", ["off", "auto"])
def test_folds_are_fine_tuned_with_the_base_s_depth(base: Path, tmp_path: Path, cache: str) -> None:
    draws = {"feature_draws": 1 if cache == "auto" else 0}
    command = fold_command(base, tmp_path, feature_cache=cache, augmentation="heavy", **draws)
    inputs = prepare_folds(*parse_recipe(command, (FinetuneArguments, RoadworkTrainingArguments)))
    assert inputs.rows.read([0, 1])["view_mask"][:, 12].tolist() == [True, False]


def test_a_target_set_of_its_own_has_no_depth_but_what_is_named(base: Path, tmp_path: Path) -> None:
    other = write_photos(tmp_path / "other", {"train": 20, "dev": 8})
    for row in range(20):  # row ids as the base's, other photos
        (other / "train" / f"{row}.png").write_bytes((base.parent / "photos" / "dev" / f"{row}.png").read_bytes())
    run = {"fold_target": other, "max_steps": 2, "augmentation": "heavy", "min_weight_change": 0}
    assert run_folds(base, tmp_path / "folds", **run).metrics
    command = fold_command(base, tmp_path / "own", depth_folder=map_all(tmp_path / "maps", other), **run)
    inputs = prepare_folds(*parse_recipe(command, (FinetuneArguments, RoadworkTrainingArguments)))
    assert inputs.rows.read([0])["view_mask"].shape == (1, 13)


def test_a_dry_run_counts_maps(base: Path, tmp_path: Path) -> None:
    text = dry_run(*settings_of(base, tmp_path, feature_cache="off", feature_draws=0, baselines="false"))
    assert "depth: 28 rows with a depth map, 28 without, such as 'train/1.png'" in text


def test_an_ablation_takes_depth_away_without_new_tokens(base: Path, tmp_path: Path) -> None:
    settings, args = settings_of(base, tmp_path, feature_cache=str(tmp_path / "tokens"))
    names = {row.name: row.change for row in ablation_rows(settings, args, 13)}
    assert names["without_depth_view"] == {"depth_folder": None}
    plain = settings_of(base, tmp_path, feature_cache=str(tmp_path / "tokens"), depth_folder=None)[0]
    assert "without_depth_view" not in {row.name for row in ablation_rows(plain, args, 12)}
    inputs = prepared(base, tmp_path)
    store = TokenStore(inputs.rows.splits["train"], settings, args, inputs.model)
    assert store.holds(plain)
    whole, less = store.rows(settings).read([0]), store.rows(plain).read([0])
    assert whole["view_features"].shape[1] == 13 and torch.equal(whole["view_features"][:, :12], less["view_features"])


def test_a_map_that_changes_makes_other_tokens(base: Path, tmp_path: Path) -> None:
    maps = map_all(tmp_path / "maps", base.parent / "photos")
    cache = str(tmp_path / "tokens")
    settings = settings_of(base, tmp_path, feature_cache=cache, depth_folder=str(maps))
    prepare_inputs(*settings)
    write_depth(maps, "train/0.png", np.full((24, 32), 9, np.uint8))
    with pytest.raises(ValueError, match=r"features of other settings \(depth: "):
        prepare_inputs(*settings)
    assert depth_path(maps, "train/0.png").is_file()
