"""Whole ablations at tiny size: the table, what is kept, what is left out, and going on after a stop."""

import gc
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from natix_roadwork.data.fold_intervals import fold_widening
from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.metrics import paired_difference
from natix_roadwork.training import ablation
from natix_roadwork.training.ablation import ablate
from natix_roadwork.training.ablation_bench import AblationBench
from tests.ablation_runs import tiny_ablation, tiny_settings, tiny_training, write_sources


ABLATE = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    """One thread; and what was imported is no garbage, which each of the many small trainings would look through."""
    torch.set_num_threads(1)
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablate_recipe", ABLATE / "ablate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def files_of(folder: Path) -> dict[str, bytes]:
    """Rows and table, by name."""
    return {path.name: path.read_bytes() for path in (*(folder / "rows").iterdir(), folder / "ablation.md")}


def test_recipe_measures_components_of_every_kind(
    recipe: ModuleType, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = vars(tiny_settings(sources)) | {"output_dir": tmp_path, "use_cpu": "true", "disable_tqdm": "true"}
    names = ("dataset_name", "backbone_id", "feature_cache", "view_size", "hidden_size", "evidence_grid", "keep_views")
    names += ("num_attention_heads", "selection_share", "near_duplicates", "output_dir", "use_cpu", "disable_tqdm")
    pairs = [f"--{name}={given[name]}" for name in names]
    rows = [
        "without_mean_token",
        "without_view_fusion",
        "without_standardising",
        "with_letterbox",
        "with_augmentation",
    ]
    rows += ["knn", "metadata_probe", "with_gps_sampling_by_city", "fast_attention", "tta"]
    words = ["--num_folds=2", "--num_train_epochs=1", "--num_attention_layers=1", "--rows", *rows]
    recipe.main(["--config", str(ABLATE / "ablate" / "natix.yaml"), *pairs, "--gps_sampling=off", *words])
    result = json.loads((tmp_path / "result.json").read_text())
    lines = {line["name"]: line for line in result["details"]["ablation"]}
    assert set(rows) <= set(lines) and {"default", "knn", "without_gps_sampling_by_city"} <= set(lines)
    assert (tmp_path / "ablation.md").read_text() in capsys.readouterr().out
    assert lines["fast_attention"]["largest_logit_difference"] == 0.0
    assert lines["tta"]["verdict"] == "not measured here" and set(result["details"]["not_measured"]) == {"tta"}
    assert "of 2 folds" in lines["with_gps_sampling_by_city"]["note"]
    assert result["metrics"]["out_of_fold"]["mcc"] is not None and "knn" in result["baselines"]
    check_difference(tmp_path, lines["without_view_fusion"], seed=42)


def check_difference(folder: Path, line: dict[str, Any], seed: int) -> None:
    """The difference in the table is that of the kept files, every photo scored out of fold."""
    default, other = (read_predictions(folder / "rows" / f"{name}.arrow") for name in ("default", line["name"]))
    assert line["difference_of"] == ["default", line["name"]] and default.held_out.all() and len(default) == 32
    expected = paired_difference(
        default.labels, default.probabilities, other.probabilities, groups=default.groups, seed=seed
    )
    assert line["difference"]["value"] == expected.value
    widening = fold_widening(default.folds)
    assert widening > 1 and line["difference"]["standard_error"] == widening * expected.standard_error


def test_a_stopped_run_goes_on_to_the_same_files(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(sources)
    measured: list[tuple[str, int]] = []
    measure = AblationBench.measure

    def run(folder: str, stop_after: int) -> None:
        measured.clear()

        def counted(bench: AblationBench, row: Any, seed: int, advance: Any) -> Any:  # noqa: ANN401
            if len(measured) == stop_after:
                raise KeyboardInterrupt
            measured.append((row.name, seed))
            return measure(bench, row, seed, advance)

        monkeypatch.setattr(AblationBench, "measure", counted)
        ablate(
            tiny_ablation("with_mixup", num_seeds=2), settings, tiny_training(tmp_path / folder, num_train_epochs=1)
        )

    run("whole", 100)
    assert len(measured) == 4
    with pytest.raises(KeyboardInterrupt):
        run("stopped", 3)
    run("stopped", 100)
    assert measured == [("with_mixup", 1)], "finished rows were measured again"
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")
    assert set(files_of(tmp_path / "whole")) >= {"default.arrow", "default.seed_1.arrow", "with_mixup.seed_1.arrow"}
    run("stopped", 0)  # nothing is left to do


def test_rows_of_other_settings_are_named(sources: Path, tmp_path: Path) -> None:
    args = tiny_training(tmp_path, num_train_epochs=1)
    ablate(tiny_ablation("majority", "knn"), tiny_settings(sources), args)
    kept = files_of(tmp_path)
    with pytest.raises(
        ValueError, match=r"majority\.arrow holds a row of other settings \(settings\.dropout: 0\.1 there"
    ):
        ablate(tiny_ablation("majority"), tiny_settings(sources, dropout=0.2), args)
    with pytest.raises(ValueError, match=r"folds\.number: 2 there, 3 now"):
        ablate(tiny_ablation("majority", num_folds=3), tiny_settings(sources), args)
    with pytest.raises(ValueError, match=r"holds 2 rows of an earlier run.*--existing_run resume"):
        ablate(tiny_ablation("majority"), tiny_settings(sources, existing_run="refuse"), args)
    assert files_of(tmp_path) == kept
    ablate(tiny_ablation("majority"), tiny_settings(sources, existing_run="overwrite", dropout=0.2), args)
    assert set(files_of(tmp_path)) == {"majority.arrow", "ablation.md"}


def test_rows_that_cannot_be_measured_are_named(sources: Path, tmp_path: Path) -> None:
    names = ["with_letterbox", "with_pruning", "stack_weather", "without_metadata_residual"]
    chosen = tiny_ablation(*names, skip_pixel_rows=True)
    bench = AblationBench(chosen, tiny_settings(sources, view_layout="single"), tiny_training(tmp_path))
    rows = {row.name: row for row in ablation._rows_of(bench)}
    assert "skip_pixel_rows" in bench.why_not(rows["with_letterbox"])
    assert bench.why_not(rows["with_pruning"]) == bench.why_not(rows["stack_pruning"]) == "the recipe has one view"
    assert bench.why_not(rows["stack_weather"]) == bench.why_not(rows["default"]) == ""
    found = dict.fromkeys(("stack", "stack_pyramid"))
    assert ablation._measured("stack_pruning", list(rows.values()), found) == "stack"


def test_equal_settings_are_trained_once(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default that is the stack with consistency is that row of the proof."""
    trained: list[str] = []
    measure = AblationBench.measure
    monkeypatch.setattr(
        AblationBench, "measure", lambda bench, row, *rest: trained.append(row.name) or measure(bench, row, *rest)
    )
    settings = tiny_settings(sources, pyramid=False, loss_weights={"focal": 0.4})
    bench = AblationBench(tiny_ablation(), settings, tiny_training(tmp_path, num_train_epochs=1))
    rows = [row for row in ablation._rows_of(bench) if row.name in ("stack", "default")]
    found = ablation.measure_all(bench, rows)
    assert trained == ["stack"] and found["default"][0].member == "default"
    assert (found["default"][0].logits == found["stack"][0].logits).all()


def test_epochs_need_rows_that_choose_them(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="selection_share=0"):
        ablate(tiny_ablation(), tiny_settings(sources, selection_share=0.0), tiny_training(tmp_path))


def test_the_plan_trains_nothing(sources: Path, tmp_path: Path) -> None:
    text = ablation.plan(tiny_ablation("with_mixup", num_seeds=3), tiny_settings(sources), tiny_training(tmp_path))
    assert "with_mixup" in text and "12 heads to train on 32 photos" in text and not list(tmp_path.iterdir())
