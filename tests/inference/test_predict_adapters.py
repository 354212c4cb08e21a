"""A model with the adapters of its folds predicts as one member: the mean of what they say."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.predictions import Predictions, read_predictions
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.member import load_member
from natix_roadwork.inference.predict import predict
from natix_roadwork.training.adapter_files import identify, write_adapter
from natix_roadwork.training.adapters import AdapterSettings, adapted, adapter_config
from tests.saved_member import member_and_photos, record_training


Build = Callable[..., PredictArguments]


@pytest.fixture
def settings(tmp_path: Path, tiny_model: RoadworkForImageClassification) -> Build:
    torch.set_num_threads(1)
    return lambda **values: member_and_photos(tmp_path, tiny_model, **values)


def write_folds(model_folder: str, folder: Path, **adapter: object) -> Path:
    """Write two adapters with weights of their own for a saved model."""
    model = load_member(model_folder).model
    base = identify(model, "tiny")
    for fold in range(2):
        with adapted(model, adapter_config(model, "lora", AdapterSettings(rank=2, **adapter), 1)) as wearing:
            draw = torch.Generator().manual_seed(fold)
            for weight in wearing.parameters():
                if weight.requires_grad:
                    weight.data.copy_(0.3 * torch.randn(weight.shape, generator=draw))
            write_adapter(wearing, folder / f"fold{fold}", base)
    return folder


def predicted(asked: PredictArguments) -> Predictions:
    predict(asked)
    return read_predictions(asked.path)


def test_fold_adapters_answer_with_their_mean(settings: Build, tmp_path: Path) -> None:
    plain = settings(output_dir=str(tmp_path / "plain"))
    both = write_folds(plain.model, tmp_path / "both" / "adapters")
    found = {"plain": predicted(plain)}
    for name in ("fold0", "fold1"):
        alone = tmp_path / name / "adapters"
        alone.mkdir(parents=True)
        (alone / "fold0").symlink_to(both / name)
        found[name] = predicted(settings(output_dir=str(tmp_path / f"run_{name}"), adapters=str(alone)))
    mean = predicted(settings(output_dir=str(tmp_path / "mean"), adapters=str(both)))
    np.testing.assert_allclose(mean.logits, (found["fold0"].logits + found["fold1"].logits) / 2, atol=1e-6)
    assert np.abs(mean.logits - found["plain"].logits).max() > 1e-3
    assert mean.record["model_sha256"] == found["plain"].record["model_sha256"]
    assert list(mean.record["adapters"]) == ["fold0", "fold1"] and found["plain"].record["adapters"] == {}


def test_rows_the_adapters_learned_from_are_not_held_out(settings: Build, tmp_path: Path) -> None:
    asked = settings(output_dir=str(tmp_path / "plain"))
    record_training(Path(asked.model), Path(asked.dataset_name), ["train"])
    adapters = str(write_folds(asked.model, tmp_path / "folds" / "adapters"))
    assert predicted(asked).held_out.all()
    unknown = predicted(settings(output_dir=str(tmp_path / "unknown"), adapters=adapters))
    assert unknown.record["learned_from"] == ["train", "dev", "test"]
    (tmp_path / "folds" / "folds.json").write_text(json.dumps({"fold_target": "dev"}))
    known = predicted(settings(output_dir=str(tmp_path / "known"), adapters=adapters))
    assert known.record["learned_from"] == ["train", "dev"] and not known.held_out.any()


def test_adapters_of_another_base_or_in_the_backbone_are_refused(settings: Build, tmp_path: Path) -> None:
    asked = settings(output_dir=str(tmp_path / "plain"))
    inside = write_folds(asked.model, tmp_path / "inside" / "adapters", backbone_blocks=1)
    with pytest.raises(ValueError, match=r"adapters=.*change the backbone.*soup"):
        predict(settings(output_dir=str(tmp_path / "run"), adapters=str(inside)))
    other = write_folds(asked.model, tmp_path / "other" / "adapters")
    record = json.loads((other / "fold1" / "base.json").read_text()) | {"sha256": "0" * 64}
    (other / "fold1" / "base.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"fold1 is an adapter of another base"):
        predict(settings(output_dir=str(tmp_path / "run"), adapters=str(other)))
