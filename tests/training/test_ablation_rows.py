import dataclasses
import itertools
from pathlib import Path

import pytest

from natix_roadwork.training.ablation_rows import AblationRow, ablation_rows, chosen_rows
from natix_roadwork.training.ablation_settings import AblationArguments
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.yaml_args import parse_recipe


ABLATE = Path(__file__).parents[2] / "recipes" / "ablate"
KINDS = (AblationArguments, PretrainArguments, RoadworkTrainingArguments)
Default = tuple[PretrainArguments, RoadworkTrainingArguments]


def default_of(variant: str, *words: str) -> Default:
    return parse_recipe(["--config", str(ABLATE / f"{variant}.yaml"), "--use_cpu", "true", *words], KINDS)[1:]


def rows_of(default: Default, num_views: int = 12) -> dict[str, AblationRow]:
    rows = ablation_rows(*default, num_views)
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


def test_every_component_has_a_row() -> None:
    rows = rows_of(default_of("quickstart"))
    numbers = [int(row.component.split()[0]) for row in rows.values() if row.component[0].isdigit()]
    assert set(numbers) == set(range(1, 21)) and numbers == sorted(numbers)
    assert list(rows)[:12] == [
        *("majority", "metadata_probe", "knn", "logreg_global", "logreg_mean_max", "attention_pool"),
        *("stack", "stack_pruning", "stack_pyramid", "stack_consistency", "stack_weather", "default"),
    ]


@pytest.mark.parametrize("variant", ["quickstart", "natix"])
def test_every_row_changes_the_default_and_can_be_built(variant: str) -> None:
    settings, args = default_of(variant)
    for row in rows_of((settings, args)).values():
        own = {name: value for name, value in row.change.items() if hasattr(settings, name)}
        rest = {name: value for name, value in row.change.items() if name not in own}
        changed = dataclasses.replace(settings, **own), dataclasses.replace(args, **rest)
        if row.component[0].isdigit() and row.kind == "head" and row.against is not None:
            assert row.parts or not row.standardized or changed != (settings, args), row.name


@pytest.mark.parametrize(("variant", "trained"), [("quickstart", "quickstart"), ("natix", "model_1_baseline")])
def test_the_default_is_the_recipe_that_is_trained(variant: str, trained: str) -> None:
    path = ABLATE.parent / "pretrain" / f"{trained}.yaml"
    found = [*default_of(variant), *parse_recipe(["--config", str(path), "--use_cpu", "true"], KINDS[1:])]
    ours, theirs = (vars(found[i]) | vars(found[i + 1]) for i in (0, 2))
    own = {"selection_share", "existing_run", "output_dir", "distributed_state", "logging_dir", "accelerator_config"}
    differing = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert differing <= own


def test_figures_of_detectors_are_taken_away_where_the_default_reads_them() -> None:
    row = rows_of(default_of("quickstart", "--extra_evidence", "figures.arrow"))["without_extra_evidence"]
    assert (row.change, row.has_component, row.component) == ({"extra_evidence": None}, False, "18 masks")
    assert row.text == "extra_evidence figures.arrow -> None"
    assert not [name for name in rows_of(default_of("quickstart")) if "extra_evidence" in name]


def test_a_component_is_switched_to_the_other_side() -> None:
    off = rows_of(default_of("quickstart"))
    assert off["with_pruning"].change == {"keep_views": 8} and off["with_pruning"].has_component
    assert off["without_ema"].change == {"ema_decay": 0.0} and not off["without_ema"].has_component
    assert off["without_consistency"].change == {"loss_weights": {"focal": 0.4}}
    on = rows_of(default_of("natix"))
    assert on["without_pruning"].change == {"keep_views": 12} and "with_ema" in on and "with_refined_loss" in on
    assert on["without_gps_sampling"].change == {"gps_sampling": "off"}
    assert on["without_gps_sampling_by_city"].against == "with_gps_sampling_by_city"


def test_default_loss_weights_may_be_left_to_the_config() -> None:
    rows = rows_of(default_of("quickstart", "--loss_weights", "null"))
    assert rows["without_consistency"].change == {"loss_weights": {"focal": 0.4}}
    assert rows["with_weather"].change["loss_weights"] == {"focal": 0.4, "consistency": 0.25, "weather": 0.15}


def test_the_proof_adds_one_part_at_a_time() -> None:
    rows = rows_of(default_of("natix"))
    steps = [rows[name] for name in ("stack", "stack_pruning", "stack_pyramid", "stack_consistency", "stack_weather")]
    assert steps[0].change == {"loss_weights": {"focal": 0.4}, "keep_views": 12, "pyramid": False}
    for before, after in itertools.pairwise(steps):
        differing = [name for name in after.change if after.change[name] != before.change[name]]
        assert after.against == before.name and len(differing) == 1
    assert steps[0].against == "attention_pool"


def test_chosen_rows_bring_what_they_are_compared_with() -> None:
    rows = ablation_rows(*default_of("quickstart"), 12)
    assert [row.name for row in chosen_rows(rows, ["without_metadata_residual", "knn"])] == [
        *("majority", "knn", "default", "with_metadata", "without_metadata_residual"),
    ]
    assert chosen_rows(rows, []) == rows
    with pytest.raises(ValueError, match=r"'with_pyramid'.*nearest is 'without_pyramid'"):
        chosen_rows(rows, ["with_pyramid"])


def test_settings_are_checked() -> None:
    assert AblationArguments(more_results='{"tta": "a.json"}').more_results == {"tta": "a.json"}
    with pytest.raises(ValueError, match=r"more_results names \['foods'\]"):
        AblationArguments(more_results='{"foods": "a.json"}')
    with pytest.raises(ValueError, match="is no JSON"):
        AblationArguments(more_results="tta=a.json")
    with pytest.raises(ValueError, match="num_seeds=0"):
        AblationArguments(num_seeds=0)


def test_masks_have_a_row_for_the_term_and_one_for_their_evidence() -> None:
    rows = rows_of(default_of("quickstart"))
    assert rows["with_mask_term"].change["loss_weights"]["mask"] == 0.2
    assert rows["with_mask_evidence"].against == "with_mask_term"
    assert rows["with_mask_evidence"].change == rows["with_mask_term"].change | {"mask_evidence": True}
    weights = '{"focal": 0.4, "mask": 0.2}'
    masked = rows_of(default_of("quickstart", "--loss_weights", weights, "--mask_evidence", "true"))
    off = masked["without_mask_term"]
    assert off.change == {"loss_weights": {"focal": 0.4}, "mask_evidence": False} and not off.has_component
    assert masked["without_mask_evidence"].change == {"mask_evidence": False}
