"""What fold adapters start from: which rows, cut by which seed, and what is said of a base that has seen them."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from natix_roadwork.runs import RunResult, write_result
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.finetune_inputs import _split_seed, data_settings, fold_record, load_base, prepare_folds
from natix_roadwork.training.yaml_args import parse_recipe
from tests.fold_runs import fold_command, run_folds


@pytest.fixture(scope="module")
def base(fold_base: Path) -> Path:
    return fold_base


@pytest.fixture
def record_of(base: Path) -> Iterator[Callable[..., None]]:
    """Changes what the base says of itself, and puts it back."""
    path, kept = base / "result.json", (base / "result.json").read_text()

    def change(**details: object) -> None:
        values = json.loads(kept)
        values["details"] = {k: v for k, v in (values["details"] | details).items() if v is not None}
        write_result(path, RunResult(**values))

    yield change
    path.write_text(kept)


def test_base_that_chose_its_epoch_on_dev_makes_optimistic_figures(
    base: Path, tmp_path: Path, record_of: Callable[..., None]
) -> None:
    for learned_from, message in ((["train", "dev"], "chose its epoch on dev"), (None, "does not say which splits")):
        record_of(learned_from=learned_from)
        settings, args = parse_recipe(fold_command(base, tmp_path), (FinetuneArguments, RoadworkTrainingArguments))
        inputs = prepare_folds(settings, args)
        (text,) = (text for text in inputs.warnings if "optimistic" in text)
        assert message in text
        assert fold_record(inputs)["base_learned_from"] == ["train", "dev"]


def test_splits_of_another_cut_are_refused(base: Path, tmp_path: Path, record_of: Callable[..., None]) -> None:
    record_of(splits={"sha256": "0" * 64})
    with pytest.raises(ValueError, match=r"may have learned from these very rows; give the data it was trained on"):
        run_folds(base, tmp_path)


def test_the_base_s_own_data_is_no_target_set_of_its_own(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds the rows that the base 'base' was trained on"):
        run_folds(base, tmp_path, fold_target=base.parent / "photos")


def test_dev_is_drawn_by_the_seed_that_drew_the_base_s(
    base: Path, tmp_path: Path, record_of: Callable[..., None]
) -> None:
    settings, args = parse_recipe(fold_command(base, tmp_path), (FinetuneArguments, RoadworkTrainingArguments))
    trained = load_base(settings)
    data = data_settings(settings, trained)
    assert _split_seed(dataclasses.replace(data, split_seed=7), trained, args) == 7
    assert _split_seed(dataclasses.replace(data, split_seed=None), trained, args) == trained.result.seed == 1
