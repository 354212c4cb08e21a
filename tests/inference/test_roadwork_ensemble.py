"""A folder with `ensemble.json` and members answers photos as prediction files and `Ensemble.combine` do."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.inference.predict import predict
from natix_roadwork.inference.roadwork_ensemble import RoadworkEnsemble, member_folder
from tests.ensemble_folders import NAMES, write_ensemble, write_members
from tests.saved_member import member_and_photos, save_member


@pytest.fixture
def published(tmp_path: Path, tiny_model: RoadworkForImageClassification) -> Path:
    write_ensemble(tmp_path / "repo" / "ensemble.json")
    return write_members(tmp_path / "repo", tiny_model)


def test_answers_are_those_of_prediction_files(
    published: Path, tmp_path: Path, tiny_model: RoadworkForImageClassification
) -> None:
    torch.set_num_threads(1)
    ensemble, files = RoadworkEnsemble.from_pretrained(published), []
    for number, name in enumerate(NAMES):
        model = published / member_folder(name)
        adapters = str(model / "adapters") if name == "base/dora" else None
        asked = member_and_photos(
            tmp_path, tiny_model, model=str(model), adapters=adapters, output_dir=str(tmp_path / f"run{number}")
        )
        predict(asked)
        files.append(read_predictions(asked.path))
    photos = [str(tmp_path / "photos" / row) for row in files[0].row_ids]
    names = {file.member: name for file, name in zip(files, NAMES, strict=True)}
    assert names == {"first": "first", "second": "second", "dora": "base/dora"}
    logits = np.stack([file.logits for file in files], axis=1).astype(float)
    assert np.array_equal(ensemble.logits(photos, batch_size=4), logits)
    expected = 1 / (1 + np.exp(-ensemble.ensemble.margins(logits)))
    assert np.allclose(ensemble(photos, batch_size=4), expected, atol=1e-12)


def test_paths_bytes_and_pictures_are_photos(published: Path, tmp_path: Path) -> None:
    ensemble = RoadworkEnsemble.from_pretrained(published)
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(path)
    found = ensemble([path, str(path), path.read_bytes(), Image.open(path)])
    assert found.shape == (4,) and np.ptp(found) == 0 and 0 < found[0] < 1
    assert np.allclose(ensemble(path), found[:1], atol=1e-6)
    with pytest.raises(ValueError, match="at least one photo"):
        ensemble([])


def test_members_of_one_backbone_share_its_run(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = RoadworkEnsemble.from_pretrained(published)
    calls = []
    real = RoadworkForImageClassification.extract_tokens
    monkeypatch.setattr(
        RoadworkForImageClassification,
        "extract_tokens",
        lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs),
    )
    ensemble(Image.new("RGB", (128, 96)))
    assert len(calls) == ensemble.num_backbone_runs == 1
    first, *others = [member.model.backbone for member in ensemble.members.values()]
    assert all(other is first for other in others)


def test_members_with_other_backbones_run_their_own(
    published: Path, tiny_model: RoadworkForImageClassification
) -> None:
    with torch.no_grad():
        next(tiny_model.backbone.parameters()).add_(0.1)
    tiny_model.config.backbone_sha256 = None
    save_member(published / "members" / "second", tiny_model)
    assert RoadworkEnsemble.from_pretrained(published).num_backbone_runs == 2


def test_a_missing_member_and_a_name_that_leads_elsewhere_are_refused(published: Path) -> None:
    shutil.rmtree(published / "members" / "second")
    with pytest.raises(ValueError, match="members/second"):
        RoadworkEnsemble.from_pretrained(published)
    for name in ("../other", "/etc", "a/../b", "x/adapters"):
        with pytest.raises(ValueError, match="names no folder"):
            member_folder(name)
