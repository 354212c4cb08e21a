import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from natix_roadwork.data.split_manifest import read_manifest
from natix_roadwork.training import audit
from natix_roadwork.training.audit import AuditArguments, duplicate_sets
from tests.leaking_rows import leaking_rows


ROOT = Path(__file__).parents[2]
FILES = {
    "folds_manifest.json",
    "groups.csv",
    "label_noise.html",
    "leaks.json",
    "near_duplicates.html",
    "result.json",
    "split_manifest.json",
}


def test_pairs_become_sets_of_the_rows_that_are_here() -> None:
    pairs = [("a", "b"), ("e", "b"), ("c", "d"), ("c", "gone")]
    assert duplicate_sets(list("abcde"), pairs) == [[0, 1, 4], [2, 3]]
    assert duplicate_sets(list("ab"), [("a", "gone")]) == []


def _features(rows: Dataset, arguments: AuditArguments) -> NDArray[np.float32]:
    """Stands in for a backbone: noise, and the label with some doubt."""
    noise = np.random.default_rng(0).normal(size=(len(rows), 64)).astype(np.float32)
    noise[:, 0] += 6 * np.asarray(rows["label"][:])
    return noise


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an audit of 90 rows whose description leaks."""
    folder = tmp_path_factory.mktemp("audit")
    leaking_rows(folder / "rows", num_rows=90, description=True)
    spec = importlib.util.spec_from_file_location("audit_recipe", ROOT / "recipes" / "audit.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    words = ["--dataset_name", str(folder / "rows"), "--output_dir", str(folder / "out"), "--num_samples", "50"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "global_view_features", _features)
        recipe.main(["--config", str(ROOT / "recipes" / "audit" / "quickstart.yaml"), *words, "--num_folds", "3"])
    return folder / "out"


def test_recipe_writes_its_files(audited: Path) -> None:
    assert {path.name for path in audited.iterdir()} == FILES
    details = json.loads((audited / "result.json").read_text())["details"]
    assert "text" in details["leaks"]["refused"] and "text" not in details["leaks"]["allowed"]
    assert json.loads((audited / "leaks.json").read_text()) == details["leaks"]
    assert details["leak_gap"]["gap"] == pytest.approx(details["leak_gap"]["random"] - details["leak_gap"]["grouped"])
    assert len(details["leave_city_out_mcc"]) == 12


def test_rows_alike_by_embedding_join_their_groups(tmp_path: Path) -> None:
    rows = leaking_rows(tmp_path / "rows", num_rows=40)
    groups = rows["group"][:]
    assert audit.joined_groups(rows, np.empty((0, 2), dtype=int)).tolist() == groups
    first, last = audit.joined_groups(rows, np.array([[0, 39]]))[[0, 39]]
    assert groups[0] != groups[39] and first == last


def test_groups_and_folds_are_those_of_the_manifests(audited: Path) -> None:
    with open(audited / "groups.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    splits = read_manifest(audited / "split_manifest.json")
    folds = read_manifest(audited / "folds_manifest.json")
    assert len(rows) == sum(sum(counts.values()) for counts in splits.counts.values()) == 90
    assert set(folds.counts) == {"fold 0", "fold 1", "fold 2"}
    fold_of = {}
    for row in rows:
        assert fold_of.setdefault(row["group"], row["fold"]) == row["fold"]


def test_global_view_features_come_from_one_view(tmp_path: Path, tiny_backbone_config: DINOv3ViTConfig) -> None:
    torch.manual_seed(0)
    DINOv3ViTModel(tiny_backbone_config).save_pretrained(tmp_path / "backbone")
    rows = leaking_rows(tmp_path / "rows", num_rows=40).select([0, 1, 2, 38, 39])
    arguments = AuditArguments("x", backbone_id=str(tmp_path / "backbone"), view_size=32, feature_cache=str(tmp_path))
    features = audit.global_view_features(rows, arguments)
    assert features.shape == (5, 32) and np.isfinite(features).all()
