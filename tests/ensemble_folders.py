"""An `ensemble.json` and the folders of its members, tiny, for the tests of what is published."""

from pathlib import Path

import numpy as np
import torch

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.calibration import AffineMap
from natix_roadwork.inference.combining import Combination
from natix_roadwork.inference.ensemble import Ensemble
from natix_roadwork.inference.roadwork_ensemble import member_folder
from natix_roadwork.threshold import MccCut
from tests.inference.test_predict_adapters import write_folds
from tests.saved_member import save_member


NAMES = ("first", "second", "base/dora")


def write_ensemble(path: Path, names: tuple[str, ...] = NAMES) -> Ensemble:
    """Weights and a calibration that make each member count."""
    weights = np.linspace(1.0, 2.0, len(names))[:, None]
    combination = Combination("margins", ((weights, np.array([0.1])),))
    cut = MccCut(threshold=0.0, low=0.0, high=0.0, calibrated=0.0, mcc=1.0, largest_mcc=1.0, standard_error=0.1)
    ensemble = Ensemble("mean", names, combination, AffineMap(1.5, -0.2), cut, None, 10, ("dev",))
    ensemble.save(path)
    return ensemble


def write_members(folder: Path, model: RoadworkForImageClassification) -> Path:
    """Three members on one backbone, the third with fold adapters on it."""
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        for part in model.classifier.modules():
            if isinstance(part, torch.nn.Linear):
                part.reset_parameters()
        save_member(folder / member_folder(name), model)
    adapted = folder / member_folder("base/dora")
    write_folds(str(adapted), adapted / "adapters")
    return folder
