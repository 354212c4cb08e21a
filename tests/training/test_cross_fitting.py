import numpy as np
import pytest
import torch

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.training.arguments import PretrainArguments
from natix_roadwork.training.cross_fitting import city_folds, grouped_folds, head_on


LABELS = np.arange(40) % 2
GROUPS = np.array([f"video {row // 4}" for row in range(40)])


def test_each_row_is_held_out_once_and_groups_stay_together() -> None:
    folds = grouped_folds(LABELS, GROUPS, 4, seed=0, selection_share=0.3)
    assert sorted(np.concatenate([fold.held_out for fold in folds]).tolist()) == list(range(40))
    for fold in folds:
        groups = [set(GROUPS[rows]) for rows in fold.parts.values()]
        assert all(groups) and not any(a & b for a, b in zip(groups, groups[1:] + groups[:1], strict=True))
        assert sum(len(rows) for rows in fold.parts.values()) == 40
        assert all(set(LABELS[rows]) == {0, 1} for rows in fold.parts.values())


def test_folds_depend_on_the_seed_alone() -> None:
    first, again, other = (grouped_folds(LABELS, GROUPS, 4, seed=seed) for seed in (0, 0, 1))
    assert all((a.held_out == b.held_out).all() for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.held_out, b.held_out) for a, b in zip(first, other, strict=True))


def test_a_city_is_held_out_whole() -> None:
    cities = np.array(["Boston", "Austin", "Denver", "", "Boston"])[np.arange(40) // 4 % 5]
    folds = city_folds(LABELS, GROUPS, cities, seed=0, selection_share=0.3)
    assert [fold.name for fold in folds] == ["Austin", "Boston", "Denver"]
    assert all(set(cities[fold.held_out]) == {fold.name} for fold in folds)
    assert all(fold.name not in cities[np.concatenate([fold.train, fold.selection])] for fold in folds)
    with pytest.raises(ValueError, match="at least two cities"):
        city_folds(LABELS, GROUPS, [""] * 40, seed=0)


def test_a_head_shares_the_loaded_backbone(tiny_model: RoadworkForImageClassification) -> None:
    settings = PretrainArguments("any", view_size=32, hidden_size=8, evidence_grid=1, num_attention_heads=2)
    tiny_model.config.image_mean = [0.1, 0.2, 0.3]
    head = head_on(tiny_model, settings, [0, 0, 0, 1])
    assert head.backbone is tiny_model.backbone and head.config.hidden_size == 8 and head.config.num_views == 12
    assert head.config.focal_alpha == pytest.approx([2 / 3, 2.0]) and head.config.image_mean == [0.1, 0.2, 0.3]
    with torch.no_grad():
        assert head(view_features=torch.zeros(2, 12, 3, 16)).logits.shape == (2, 2)
