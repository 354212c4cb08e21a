"""Masks through whole runs: training live and from the cache, extraction, fine-tuning, prediction, dry run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.draws import Draw
from natix_roadwork.data.feature_cache import TokenPasses
from natix_roadwork.data.masks import mask_path
from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.predict import predict
from natix_roadwork.runs import RunResult
from natix_roadwork.training.ablation_tokens import TokenStore
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.dry_run import dry_run
from natix_roadwork.training.extraction import extract
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.finetune_inputs import prepare_folds
from natix_roadwork.training.mask_scoring import score_masks
from natix_roadwork.training.memory import estimate_memory
from natix_roadwork.training.pretrain_inputs import PretrainInputs, prepare_inputs
from natix_roadwork.training.pretraining import build_trainer, pretrain, result_table
from natix_roadwork.training.yaml_args import parse_recipe
from tests.fold_runs import COMMON, fold_command, pairs, run_folds, train_base
from tests.masks import mask_all
from tests.recipe_photos import write_photos


ROWS = {"train": 20, "dev": 24, "test": 12}
MASKED = {
    "loss_weights": '{"focal": 0.4, "consistency": 0.25, "mask": 0.3}',
    "mask_size": 8,
    "mask_evidence": "true",
    "augmentation": "heavy",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained with a mask term on cached draws."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("masked")
    masks = mask_all(folder / "masks", write_photos(folder / "photos", ROWS))
    settings = {"mask_folder": masks, "feature_draws": 2, "logging_steps": 1} | MASKED
    return train_base(folder, write=lambda *_: folder / "photos", **settings)


def settings_of(base: Path, output_dir: Path, **changes: Any) -> tuple[PretrainArguments, RoadworkTrainingArguments]:
    """The base's own settings, some changed."""
    config = json.loads((base / "result.json").read_text())["config"]
    names = {*PretrainArguments.__dataclass_fields__} - {"loss_weights", "focal_alpha"}
    own = {name: config[name] for name in names if config[name] not in (None, [])}
    own |= {"loss_weights": json.dumps(config["loss_weights"]), "output_dir": output_dir} | COMMON
    own |= {"per_device_train_batch_size": 4, "max_steps": 2, "seed": 1, "selection_share": 0} | changes
    lists = {name: value for name, value in own.items() if isinstance(value, list)}
    command = pairs({name: value for name, value in own.items() if name not in lists and value is not None})
    command += [word for name, values in lists.items() for word in (f"--{name}", *map(str, values))]
    return parse_recipe(command, (PretrainArguments, RoadworkTrainingArguments))


def prepared(base: Path, output_dir: Path, **changes: Any) -> PretrainInputs:
    return prepare_inputs(*settings_of(base, output_dir, **changes))


def result_of(folder: Path) -> RunResult:
    return RunResult(**json.loads((folder / "result.json").read_text()))


def test_a_run_trains_the_mask_term_and_says_how_many_masks_there_were(base: Path) -> None:
    details = result_of(base).details
    assert details["masks"] == {"rows": 56, "with_mask": 28, "bad": {}}
    losses = [line["loss_mask"] for line in details["log"] if "loss_mask" in line]
    evaluated = [line["eval_loss_mask"] for line in details["log"] if "eval_loss_mask" in line]
    assert losses and evaluated and np.isfinite(losses + evaluated).all()


def test_live_and_cached_batches_hold_the_same_masks_and_grids(base: Path, tmp_path: Path) -> None:
    live = prepared(base, tmp_path, feature_cache="off", feature_draws=0, baselines="false")
    cached = prepared(base, tmp_path / "cached")
    for name in ("train", "dev"):
        rows = list(range(4))
        one, other = live.datasets[name].read(rows), cached.datasets[name].read(rows)
        assert torch.equal(one["mask_labels"].nan_to_num(-1), other["mask_labels"].nan_to_num(-1))
        assert other["mask_labels"].isnan().flatten(1).all(1).tolist() == [False, True, False, True]
        grid = live.model.extract_tokens_and_grid(one["pixel_values"])[1]
        assert torch.equal(other["global_grid"], grid.half())
    drawn = cached.datasets["train"].read([Draw(0, 0, place) for place in range(8)])["mask_labels"]
    assert len({labels.nan_to_num(-1).numpy().tobytes() for labels in drawn}) == 2, "as many as draws"


def test_a_run_scores_its_masks_on_dev(base: Path, tmp_path: Path) -> None:
    result = result_of(base)
    found = {name for name in result.metrics["dev"] if name.startswith(("mask_", "oracle_", "patch_"))}
    assert {"mask_iou", "oracle_iou", "mask_iou_cone", "patch_auc_worker"} <= found and len(found) == 26
    scored = result.details["masks_scored"]["dev"]
    assert scored["grid"] == [2, 2] and scored["photos"]["cone"]["known"] == 12
    assert scored["photos"]["vehicle"] == {"known": 0, "large": 0, "small": 0}  # no mask knows it
    assert result.metrics["dev"]["mask_iou_vehicle"]["value"] is None
    model = RoadworkForImageClassification.from_pretrained(base)
    live = prepared(base, tmp_path, feature_cache="off", feature_draws=0, baselines="false").datasets["dev"]
    again = score_masks(model, live, live.rows["row_id"][:], seed=1)
    for name in found:  # float16 grids of the cache against live ones
        one, other = result.metrics["dev"][name]["value"], again.figures[name]["value"]
        assert (one is None) == (other is None) and (one is None or abs(one - other) < 0.02)


def test_the_table_of_a_run_says_how_good_its_masks_are(base: Path) -> None:
    text = result_table(result_of(base), base)
    assert text.count("masks of dev") == 1 and "an oracle's" in text and "patch AUC" in text


def test_the_loss_on_dev_does_not_depend_on_which_rows_share_a_batch(base: Path, tmp_path: Path) -> None:
    inputs = prepared(base, tmp_path)
    found = []
    for size in (1, 5, 24):  # of one row each, half of the batches have no mask
        args = settings_of(base, tmp_path, per_device_eval_batch_size=size)[1]
        found.append(build_trainer(inputs, args).evaluate()["eval_loss"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_live_training_runs_with_masks_mixing_and_a_view_chunk(base: Path, tmp_path: Path) -> None:
    mixing = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "view_chunk": 12, "baselines": "false", "gps_sampling": "off"}
    settings, args = settings_of(base, tmp_path, feature_cache="off", feature_draws=0, logging_steps=1, **mixing)
    result = pretrain(settings, args)
    assert all(np.isfinite(line["loss"]) for line in result.details["log"] if "loss" in line)
    mixed = pretrain(*settings_of(base, tmp_path / "cached", mixup_alpha=0.4, logging_steps=1, baselines="false"))
    assert all(np.isfinite(line["loss"]) for line in mixed.details["log"] if "loss" in line)


def test_masks_that_are_gone_end_a_run_before_the_backbone(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natix_roadwork.training.pretrain_inputs.build_model", lambda *_: pytest.fail("built"))
    with pytest.raises(ValueError, match=r"no row has a usable mask .*56 without"):
        prepare_inputs(*settings_of(base, tmp_path, mask_folder=str(tmp_path)))


def test_extraction_keeps_all_that_training_reads(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = str(tmp_path / "tokens")
    extract(*settings_of(base, tmp_path / "extracted", feature_cache=tokens))
    monkeypatch.setattr(TokenPasses, "compute", lambda *_, **__: pytest.fail("computed again"))
    inputs = prepared(base, tmp_path / "run", feature_cache=tokens)
    assert {"global_grid", "mask_labels"} <= inputs.datasets["train"].read([0]).keys()


def predicted(base: Path, output_dir: Path, cache: str) -> Path:
    asked = PredictArguments(
        model=str(base),
        dataset_name=str(base.parent / "photos"),
        output_dir=str(output_dir),
        near_duplicates=True,
        feature_cache=cache,
        per_device_eval_batch_size=4,
        splits=["dev"],
        seed=1,
        use_cpu=True,
    )
    predict(asked)
    return asked.path


def test_live_and_cached_predictions_are_equal_and_read_the_training_s_cache(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = predicted(base, tmp_path / "live", "off")
    monkeypatch.setattr(TokenPasses, "compute", lambda *_, **__: pytest.fail("computed again"))
    cached = predicted(base, tmp_path / "cached", str(base.parent / "tokens"))
    assert live.read_bytes() == cached.read_bytes()
    model = RoadworkForImageClassification.from_pretrained(base).eval()
    photos = prepared(base, tmp_path, feature_cache="off", feature_draws=0, baselines="false").datasets["dev"]
    batch = photos.read(range(4))
    with torch.inference_mode():
        expected = model(pixel_values=batch["pixel_values"], view_mask=batch["view_mask"]).logits
    np.testing.assert_allclose(read_predictions(live).logits[:4], expected, atol=5e-3)


@pytest.mark.parametrize("cache", ["off", "auto"])
def test_folds_are_fine_tuned_with_the_base_s_masks(base: Path, tmp_path: Path, cache: str) -> None:
    draws = {"feature_draws": 1 if cache == "auto" else 0}
    command = fold_command(base, tmp_path, feature_cache=cache, augmentation="heavy", **draws)
    inputs = prepare_folds(*parse_recipe(command, (FinetuneArguments, RoadworkTrainingArguments)))
    batch = inputs.rows.read([0, 1])
    assert batch["mask_labels"].isnan().flatten(1).all(1).tolist() == [False, True]
    assert ("global_grid" in batch) == (cache == "auto")


def test_a_target_set_of_its_own_does_not_read_the_base_s_masks(base: Path, tmp_path: Path) -> None:
    other = write_photos(tmp_path / "other", {"train": 20, "dev": 8})
    for row in range(20):  # row ids as the base's, other photos
        (other / "train" / f"{row}.png").write_bytes((base.parent / "photos" / "dev" / f"{row}.png").read_bytes())
    run = {"fold_target": other, "max_steps": 2, "augmentation": "heavy"}
    result = run_folds(base, tmp_path / "folds", **run)
    assert result.metrics
    command = fold_command(base, tmp_path / "own", mask_folder=mask_all(tmp_path / "masks", other), **run)
    inputs = prepare_folds(*parse_recipe(command, (FinetuneArguments, RoadworkTrainingArguments)))
    assert not inputs.rows.read([0])["mask_labels"].isnan().all()


def test_a_dry_run_counts_masks_and_memory(base: Path, tmp_path: Path) -> None:
    text = dry_run(*settings_of(base, tmp_path, feature_cache="off", feature_draws=0, baselines="false"))
    assert "masks: 28 rows with a mask, 28 without" in text and "MiB" in text
    inputs = prepared(base, tmp_path, feature_cache="off", feature_draws=0, baselines="false")
    row, args = inputs.datasets["train"][0], settings_of(base, tmp_path)[1]
    assert estimate_memory(inputs.model, row, 4, args).step > 0


def test_rows_of_an_ablation_share_tokens_and_masks(base: Path, tmp_path: Path) -> None:
    settings, args = settings_of(base, tmp_path, feature_cache=str(tmp_path / "tokens"))
    plain = settings_of(base, tmp_path, feature_cache=str(tmp_path / "tokens"), loss_weights='{"focal": 1}')[0]
    inputs = prepared(base, tmp_path)
    photos = inputs.rows.splits["train"]
    store = TokenStore(photos, settings, args, inputs.model)
    assert store.holds(plain)
    assert {"mask_labels", "global_grid"} <= store.rows(settings).read([0]).keys()
    assert not {"mask_labels", "global_grid"} & store.rows(plain).read([0]).keys()
    clean, batch = store.rows(settings).clean([3, 1]), store.rows(settings).read([3, 1])
    assert torch.equal(clean[0], batch["view_features"]) and torch.equal(clean[1], batch["view_mask"])
    assert not store.lacks_masks(settings) and not store.lacks_masks(plain)
    none = settings_of(base, tmp_path, mask_folder=str(tmp_path))[0]
    assert TokenStore(photos, none, args, inputs.model).lacks_masks(none)
    assert not TokenStore(photos, plain, args, inputs.model).holds(settings)
    assert mask_path(settings.mask_folder, photos["row_id"][0]).is_file()
