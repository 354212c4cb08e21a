"""The fold recipe as a whole, at tiny size: files, honesty of the figures, bad input, going on."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.metrics import binary_metrics, mcc
from natix_roadwork.runs import RunResult
from natix_roadwork.training import finetune_inputs, fold_training
from natix_roadwork.training.adapter_files import identify, load_adapters
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.finetune_inputs import prepare_folds
from natix_roadwork.training.finetuning import folds_table
from natix_roadwork.training.fold_predictions import predict
from natix_roadwork.training.yaml_args import parse_recipe
from tests.fold_runs import ROWS, fold_command, outcome, run_folds


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _rows_are_read_once() -> Iterator[None]:
    """Reading two dozen photos takes longer than training on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_inputs, "load_rows", functools.cache(finetune_inputs.load_rows))
        yield


@pytest.fixture(scope="module")
def base(fold_base: Path) -> Path:
    return fold_base


@pytest.fixture(scope="module")
def finished(base: Path) -> Iterator[tuple[Path, RunResult]]:
    """A run that ended, for the tests that only look at it."""
    torch.set_num_threads(1)
    folder = base.parent / "finished"
    yield folder, run_folds(base, folder, train_classifier="true")


def test_every_row_is_predicted_once_by_a_model_that_never_saw_its_group(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    oof, manifest = read_predictions(folder / "oof.arrow"), json.loads((folder / "folds.json").read_text())
    assert len(oof) == ROWS["dev"] and oof.held_out.all() and set(oof.folds) == {0, 1}
    assert oof.record["learned_from"] == ["train"] and oof.member == "base/dora"
    for number, rows in enumerate(manifest["folds"]):
        assert rows["held_out"] == oof.row_ids[oof.folds == number].tolist()
        groups = [set(oof.groups[np.isin(oof.row_ids, rows[part])]) for part in ("fit", "selection", "held_out")]
        assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
        assert sorted(itertools.chain(*rows.values())) == sorted(oof.row_ids)
    assert result.metrics["out_of_fold"]["mcc"]["value"] == mcc(oof.labels, (oof.probabilities > 0.5).astype(int))


def test_fold_on_disk_is_the_fold_in_memory(base: Path, finished: tuple[Path, RunResult], tmp_path: Path) -> None:
    """The out-of-fold logits are those of the adapters as a stranger loads them, bit for bit."""
    folder = finished[0]
    settings, args = parse_recipe(
        fold_command(base, tmp_path, train_classifier="true"), (FinetuneArguments, RoadworkTrainingArguments)
    )
    inputs, oof = prepare_folds(settings, args), read_predictions(folder / "oof.arrow")
    model = load_adapters(RoadworkForImageClassification.from_pretrained(base), folder / "adapters")
    for number, part in enumerate(inputs.parts):
        model.set_adapter(f"fold{number}")
        found = predict(model, inputs, part.held_out, args, "again", number)
        assert np.array_equal(found.logits, oof.logits[oof.folds == number])
        assert np.array_equal(found.embeddings, oof.embeddings[oof.folds == number])


def test_written_adapter_answers_as_the_trained_one(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, write = [], fold_training.write_adapter

    def remember(wearing: torch.nn.Module, folder: Path, identity: object) -> None:
        with torch.no_grad():
            logits.append(wearing.eval()(pixel_values=_pixels()).logits)
        write(wearing, folder, identity)

    monkeypatch.setattr(fold_training, "write_adapter", remember)
    run_folds(base, tmp_path, max_steps=2)
    model = load_adapters(RoadworkForImageClassification.from_pretrained(base), tmp_path / "adapters")
    for number, expected in enumerate(logits):
        model.set_adapter(f"fold{number}")
        with torch.no_grad():
            assert torch.equal(model(pixel_values=_pixels()).logits, expected)


def _pixels() -> torch.Tensor:
    return torch.randn(2, 12, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_result_compares_with_the_base_on_the_same_rows(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    oof, details = read_predictions(folder / "oof.arrow"), result.details
    assert set(result.metrics) == set(result.baselines["base"]) == {"out_of_fold", "fold0", "fold1"}
    whole = binary_metrics(oof.labels, oof.probabilities)
    gain = details["difference_to_base"]["auc"]
    assert gain["value"] == pytest.approx(whole["auc"] - result.baselines["base"]["out_of_fold"]["auc"]["value"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert details["comparable"] and details["base"]["learned_from"] == ["train"]
    assert not any("optimistic" in text or "transductive" in text for text in result.warnings)
    assert all(change > 1e-3 for change in details["weight_changes"])
    sizes = {facts["trainable_parameters"] for facts in details["folds"]}
    lora_and_magnitudes = 2 * (2 * (16 + 48 + 16 + 16) + 48 + 16)
    assert sizes == {lora_and_magnitudes + 16 * 8 + 8 + 8 * 2 + 2} == {details["adapter"]["trainable"]}
    printed = folds_table(result, folder)
    assert f"{details['adapter']['trainable']:,} trainable parameters" in printed and "out of fold" in printed


def test_dropout_is_set_for_the_fine_tuning_only(base: Path, finished: tuple[Path, RunResult]) -> None:
    settings, args = parse_recipe(
        fold_command(base, finished[0], train_classifier="true"), (FinetuneArguments, RoadworkTrainingArguments)
    )
    model = prepare_folds(settings, args).base.model
    assert model.attention_layers[0].attention.dropout.p == model.classifier.dropout.p == 0.2
    assert RoadworkForImageClassification.from_pretrained(base).config.dropout == 0.1


def test_no_local_path_is_published(base: Path, finished: tuple[Path, RunResult]) -> None:
    folder = finished[0]
    published = [*(folder / "adapters").rglob("*"), folder / "folds.json", folder / "oof.arrow"]
    assert not [path for path in published if path.is_file() and str(base.parent).encode() in path.read_bytes()]


def test_finished_folds_are_not_trained_again(
    base: Path, finished: tuple[Path, RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished[0]
    before = outcome(folder)
    with pytest.raises(ValueError, match=r"holds adapters of an earlier run: go on with it by --existing_run resume"):
        run_folds(base, folder, train_classifier="true")

    def fail(*arguments: object) -> None:
        raise AssertionError("a finished fold was trained again")

    monkeypatch.setattr(fold_training, "_fit", fail)
    run_folds(base, folder, train_classifier="true", existing_run="resume")
    after = outcome(folder)
    for found in (before, after):
        found["result"]["config"].pop("existing_run")
    assert before == after


def test_run_goes_on_only_with_the_same_settings(base: Path, finished: tuple[Path, RunResult]) -> None:
    common = {"train_classifier": "true", "existing_run": "resume"}
    with pytest.raises(ValueError, match=r"other settings \(learning_rate: 0.005 there, 0.001 now\)"):
        run_folds(base, finished[0], **common, learning_rate=1e-3)


def test_manifest_of_another_run_is_refused(base: Path, finished: tuple[Path, RunResult], tmp_path: Path) -> None:
    manifest = json.loads((finished[0] / "folds.json").read_text())
    changes = {
        "base": {"base": {"name": "other", "sha256": "0" * 64}},
        "data_fingerprint": {"data_fingerprint": "0" * 64},
        r"the rows of folds \[0, 1\]": {"folds": manifest["folds"][::-1]},
        "the number of folds, 1 there, 2 now": {"folds": manifest["folds"][:1]},
    }
    for message, change in changes.items():
        (tmp_path / "folds.json").write_text(json.dumps(manifest | change))
        with pytest.raises(ValueError, match=f"folds.json was written for another run: {message} differ"):
            run_folds(base, tmp_path, existing_run="resume")
    (tmp_path / "folds.json").write_text("{")
    with pytest.raises(ValueError, match=r"folds.json is no manifest of folds"):
        run_folds(base, tmp_path, existing_run="resume", seed=42)


def test_adapter_that_moves_nothing_is_an_error_or_said_in_words(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        ValueError, match=r"fold 0: the adapter changed its weights by .* less than min_weight_change=0.001"
    ):
        run_folds(base, tmp_path / "default", learning_rate=1e-6, max_steps=1)
    plan = {"learning_rate": 1e-6, "num_train_epochs": 2, "variant": "plan.yaml"}
    result = run_folds(base, tmp_path / "plan", **plan)
    (text,) = (text for text in result.warnings if "moved nothing" in text)
    assert "no effect of training" in text and max(result.details["weight_changes"]) < 1e-3


@pytest.mark.parametrize("kind", ["adalora", "ia3"])
def test_other_kinds_train(base: Path, tmp_path: Path, kind: str) -> None:
    result = run_folds(base, tmp_path, adapter=kind, num_train_epochs=2, learning_rate=2e-2)
    assert result.details["adapter"]["kind"] == kind and min(result.details["weight_changes"]) > 1e-3


def test_backbone_blocks_are_trained_on_photos(base: Path, tmp_path: Path) -> None:
    settings = {"feature_cache": "off", "feature_draws": 0, "backbone_blocks": 1, "max_steps": 2}
    result = run_folds(base, tmp_path, **settings)
    changed = result.details["folds"][0]["weight_change_by_layer"]
    assert {name.split(".")[3] for name in changed if name.startswith("backbone.")} == {"1"}
    assert all(ratio > 0 for ratio in changed.values())


def test_moving_average_is_what_is_kept(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_training, "remove_all", lambda folder: [])
    facts = run_folds(base, tmp_path, max_steps=6, ema_decay=0.9).details["folds"][0]
    average = load_file(tmp_path / f"work/fold0/checkpoint-{facts['best_step']}/ema.safetensors")
    written = load_file(tmp_path / "adapters/fold0/adapter_model.safetensors")
    assert len(average) == len(written) == 12
    for name, weight in average.items():
        found = written[name.replace(".default", "").replace("_vector.weight", "_vector")]
        assert torch.equal(found, weight), name


def test_own_test_as_target_is_labelled(base: Path, tmp_path: Path) -> None:
    result = run_folds(base, tmp_path, fold_target="test", max_steps=2)
    oof = read_predictions(tmp_path / "oof.arrow")
    assert len(oof) == ROWS["test"] and set(oof.splits) == {"test"}
    assert result.details["label"] == oof.record["label"] == "transductive, not comparable"
    assert not result.details["comparable"] and any("transductive, not comparable" in w for w in result.warnings)


def test_another_data_set_as_target(base: Path, tmp_path: Path) -> None:
    target = {"fold_target": base.parent / "photos" / "test", "feature_cache": "off", "feature_draws": 0}
    result = run_folds(base, tmp_path, **target, augmentation="none", max_steps=2)
    assert result.details["rows"] == ROWS["test"] and not result.details["comparable"]
    assert any("photos of the target set is not checked" in text for text in result.warnings)


def test_rows_that_taught_the_base_are_not_held_out_by_being_out_of_fold(finished: tuple[Path, RunResult]) -> None:
    oof = read_predictions(finished[0] / "oof.arrow")
    assert oof.record["base_learned_from"] == ["train"] and oof.held_out.all()
    taught = dataclasses.replace(
        oof, record=oof.record | {"base_learned_from": ["train", "dev"]} | {"learned_from": ["dev"]}
    )
    assert not taught.held_out.any()


def test_a_wrong_setting_leaves_nothing_that_blocks_the_right_one(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be cut into"):
        run_folds(base, tmp_path / "out", num_folds=13)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_folds": 13}, r"fold_target='dev' cannot be cut into num_folds=13: the None rows lie in 12 group"),
        ({"num_folds": 1}, "num_folds=1 must be at least 2"),
        ({"fold_target": "tset"}, "tset"),
        (
            {"backbone_blocks": 1},
            r"backbone_blocks=1 changes the backbone, and feature_cache=.*; set feature_cache off",
        ),
        ({"adapter": "qlora"}, "backbone_blocks is 0"),
        ({"feature_draws": 0}, r"augmentation='light' does nothing with feature_cache"),
        ({"selection_share": 1.0}, r"selection_share=1.0 must lie between 0 and 1"),
        ({"resume_from_checkpoint": "there"}, "goes on by --existing_run resume"),
        ({"dropout": 1.0}, r"dropout=1.0 must lie in \[0, 1\)"),
    ],
)
def test_bad_settings_are_named(base: Path, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_folds(base, tmp_path, **settings)


def test_identity_is_the_hash_of_the_weights(base: Path, finished: tuple[Path, RunResult]) -> None:
    model = RoadworkForImageClassification.from_pretrained(base)
    assert finished[1].details["base"]["sha256"] == identify(model, "base").sha256
