from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import DINOv3ViTConfig

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.predictions import Predictions
from natix_roadwork.inference.error_report import ReportData, build_report
from natix_roadwork.runs import RunRecorder, RunResult
from tests.report_rows import member_of, report_folder


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedRows:
    return load_rows(str(report_folder(tmp_path_factory.mktemp("rows") / "d", 120)), near_duplicates=False)


@pytest.fixture(scope="session")
def rows(loaded: LoadedRows) -> Dataset:
    return loaded.splits["dev"]


@pytest.fixture(scope="session")
def member(rows: Dataset) -> Predictions:
    """A member that guesses at night."""
    return member_of(rows, np.arange(len(rows)) % 4 == 0)


@pytest.fixture(scope="session")
def run_result() -> RunResult:
    """The record of a run with a baseline and a warning that wants to be escaped."""
    half = {"value": 0.5, "low": 0.25, "high": 0.75}
    with RunRecorder({}, seed=0) as recorder:
        recorder.baselines = {"knn": {"dev": {"mcc": half, "accuracy": half}, "test": {"mcc": half}}}
        recorder.warnings = ["a stand-in <script>"]
        return recorder.result()


def line_of(name: str, against: str | None) -> dict[str, object]:
    """A row of `details.ablation`, as `recipes/ablate.py` writes it."""
    half = {"value": 0.5, "low": 0.25, "high": 0.75}
    words = {"name": name, "component": "3 view pruning", "text": "keep_views 8 -> 12", "note": "", "against": against}
    gain = half | {"value": 0.125, "standard_error": 0.1} if against else None
    return words | {"mcc": half, "difference": gain, "difference_of": None, "verdict": "gains" if against else ""}


def save_model(folder: Path, **settings: object) -> Path:
    """Save a tiny model that keeps 8 of 12 views, with its processor."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2}
    backbone = DINOv3ViTConfig(image_size=32, intermediate_size=32, num_hidden_layers=1, patch_size=16, **sizes)
    views = {"evidence_grid": 2, "evidence_size": 8, "num_attention_layers": 1, "num_views": 12, "view_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = RoadworkConfig(backbone_config=backbone, **views | sizes | settings)
        RoadworkForImageClassification(config).eval().save_pretrained(folder)
    RoadworkImageProcessor(view_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def metadata_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, reading metadata."""
    return save_model(tmp_path_factory.mktemp("model"), metadata_fields=["gps", "weather", "daytime"])


@pytest.fixture(scope="session")
def report(member: Predictions, rows: Dataset, run_result: RunResult, saved_model: Path) -> ReportData:
    return build_report(
        member,
        rows,
        dataset_name="d",
        result=run_result,
        ablation=[line_of("default", None), line_of("without_pruning", "default")],
        model=str(saved_model),
        worst_rows=6,
        progress=False,
    )
