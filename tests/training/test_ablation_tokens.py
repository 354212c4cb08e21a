"""What is cut from stored tokens equals what the backbone would give."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets

from natix_roadwork.data.draws import Draw
from natix_roadwork.training.ablation_tokens import TokenStore
from natix_roadwork.training.arguments import PretrainArguments
from natix_roadwork.training.pretrain_inputs import load_splits
from natix_roadwork.training.pretrain_model import build_model
from tests.ablation_runs import tiny_settings, tiny_training, write_sources


Store = Callable[..., tuple[TokenStore, PretrainArguments]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"), num_rows=10)


@pytest.fixture
def store(sources: Path, tmp_path: Path) -> Store:
    def build(**changes: object) -> tuple[TokenStore, PretrainArguments]:
        torch.set_num_threads(1)
        settings = tiny_settings(sources, **{"feature_cache": str(tmp_path / "tokens")} | changes)
        args = tiny_training(tmp_path)
        splits = load_splits(settings, args)[1]
        model, _ = build_model(settings, splits["train"]["label"][:])
        return TokenStore(concatenate_datasets([splits["train"], splits["dev"]]), settings, args, model), settings

    return build


@pytest.mark.parametrize(
    "changes",
    [
        {"evidence_grid": 0},
        {"feature_pooling": "cls"},
        {"feature_pooling": "mean", "evidence_grid": 0},
        {"view_layout": "single"},
    ],
    ids=str,
)
def test_slices_equal_tokens_of_their_own(
    store: Store, sources: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    stored, _ = store()
    wanted = tiny_settings(sources, feature_cache=str(tmp_path / "tokens"), **changes)
    assert stored.holds(wanted)
    sliced = stored.rows(wanted).read([3, 0])
    own, settings = store(feature_cache=str(tmp_path / "own"), **changes)
    expected = own.rows(settings).read([3, 0])
    assert sliced["view_features"].shape == expected["view_features"].shape
    np.testing.assert_allclose(sliced["view_features"].float(), expected["view_features"].float(), atol=2e-3)
    assert torch.equal(sliced["view_mask"], expected["view_mask"]) and sliced["labels"].tolist() == [1, 0]
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == ["default"]


def test_other_views_have_a_pass_of_their_own(store: Store, sources: Path, tmp_path: Path) -> None:
    stored, _ = store()
    for changes in ({"squares": ["left", "right"]}, {"global_fit": "letterbox"}, {"evidence_grid": 1}):
        assert not stored.holds(tiny_settings(sources, **changes))
    wanted = tiny_settings(sources, feature_cache=str(tmp_path / "tokens"), squares=["left", "right"])
    left, right = (stored.rows(given).read([2])["view_features"] for given in (wanted, stored.settings))
    assert torch.equal(left[0, :10], right[0, :10]) and not torch.equal(left[0, 10:], right[0, 10:])
    assert len(list((tmp_path / "tokens").iterdir())) == 2


def test_clean_rows_are_read_beside_draws(store: Store, sources: Path, tmp_path: Path) -> None:
    draws = {"augmentation": "light", "feature_draws": 2}
    stored, settings = store(**draws)
    clean = tiny_settings(sources, feature_cache=str(tmp_path / "tokens"))
    assert stored.holds(clean) and not store()[0].holds(settings)
    drawn = [Draw(row, 0, row) for row in range(4)]
    plain, changed = stored.rows(clean).read(drawn), stored.rows(settings).read(drawn)
    assert torch.equal(plain["view_features"], stored.rows(settings).read([0, 1, 2, 3])["view_features"])
    assert not torch.equal(plain["view_features"], changed["view_features"])
    assert torch.equal(torch.from_numpy(stored.features().view_features[:4]), plain["view_features"])


def test_selected_rows_keep_their_labels(store: Store) -> None:
    stored, settings = store()
    chosen = stored.rows(settings).select(np.array([5, 2, 7]))
    assert len(chosen) == 3 and chosen.labels == [1, 0, 1] == chosen.read([0, 1, 2])["labels"].tolist()
