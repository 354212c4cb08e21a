import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from natix_roadwork.gps.settings import GPSArguments
from natix_roadwork.training.gps_inputs import gps_of, plan_for, sampling_of, target_gps
from natix_roadwork.training.pretrain_model import balanced_alpha
from tests.gps.places import PITTSBURGH, around, missing, near_and_far


ROOT = Path(__file__).parents[2]


def rows_at(gps: np.ndarray) -> Dataset:
    columns = [[None if np.isnan(value) else value for value in column] for column in gps.T]
    row_ids = [f"photos/{row}.jpg" for row in range(len(gps))]
    labels = [row % 2 for row in range(len(gps))]
    return Dataset.from_dict({"row_id": row_ids, "latitude": columns[0], "longitude": columns[1], "label": labels})


def loaded(train: np.ndarray, **others: np.ndarray) -> SimpleNamespace:
    splits = {name: rows_at(gps) for name, gps in {"train": train, **others}.items()}
    return SimpleNamespace(splits=splits, dataset_name="photos")


def test_coordinates_of_chosen_rows_keep_order_and_gaps() -> None:
    gps = near_and_far(3, 2, 2)
    assert np.array_equal(gps_of(rows_at(gps).select([6, 0, 4])), gps[[6, 0, 4]], equal_nan=True)


def test_sampling_is_off_by_default() -> None:
    assert sampling_of(loaded(missing(4)), GPSArguments()) is None


def test_dev_rows_are_the_targets_and_test_is_declared(tmp_path: Path) -> None:
    rows = loaded(near_and_far(30, 70), dev=around(PITTSBURGH, 9), test=around(PITTSBURGH, 5))
    plan = sampling_of(rows, GPSArguments(gps_sampling="solved", gps_target_share=0.6))
    assert plan.check.expected.within[50.0] == pytest.approx(0.6) and len(plan.target_gps) == 9
    assert not any("covariate" in text for text in plan.warnings)
    np.save(tmp_path / "test_gps_coordinates.npy", around(PITTSBURGH, 5))
    for target in ("test", str(tmp_path / "test_gps_coordinates.npy")):
        settings = GPSArguments(gps_sampling="brackets", gps_target=target)
        assert "covariate-shift adaptation" in sampling_of(rows, settings).warnings[-1]
        assert len(target_gps(rows, settings)) == 5


def test_rows_without_any_coordinates_are_named() -> None:
    rows = loaded(near_and_far(3, 3), dev=missing(4))
    assert plan_for(rows, GPSArguments(gps_sampling="solved")) is None
    with pytest.raises(ValueError, match="none of the 4 rows of dev has coordinates"):
        plan_for(rows, GPSArguments(gps_sampling="solved", gps_gate="refuse"))
    with pytest.raises(ValueError, match=r"gps_target='test': 'photos' has the splits \['train', 'dev'\] only"):
        plan_for(rows, GPSArguments(gps_sampling="solved", gps_target="test"))


def test_bad_coordinates_are_named_by_row_id() -> None:
    paris = np.concatenate([around(PITTSBURGH, 4), [(48.86, 2.35)]])
    settings = GPSArguments(gps_sampling="solved", gps_bounds=[25, 50, -125, -65])
    with pytest.raises(ValueError, match=r"GPS of train: row 'photos/4\.jpg' is \(48\.86, 2\.35\), outside"):
        plan_for(loaded(paris, dev=around(PITTSBURGH, 3)), settings)
    with pytest.raises(ValueError, match=r"GPS of dev: row 'photos/4\.jpg' is"):
        plan_for(loaded(around(PITTSBURGH, 3), dev=paris), settings)


def test_class_weights_count_the_draws() -> None:
    assert balanced_alpha([0, 0, 1, 1]) == [1.0, 1.0]
    assert balanced_alpha([0, 0, 1, 1], [1.0, 1.0, 3.0, 3.0]) == pytest.approx([2.0, 2 / 3])


def test_report_recipe_leaves_the_artefacts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, gps in {"train": near_and_far(6, 14), "dev": around(PITTSBURGH, 4)}.items():
        (tmp_path / split).mkdir()
        lines = []
        for row, (latitude, longitude) in enumerate(gps):
            Image.new("RGB", (8, 8), (row, 0, 0)).save(tmp_path / split / f"{row}.png")
            place = {"gps": f"[{latitude}, {longitude}]", "label": row % 2}
            lines.append(json.dumps({"file_name": f"{row}.png", **place}))
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    main = runpy.run_path(str(ROOT / "recipes" / "gps_report.py"))["main"]
    main(["--dataset_name", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--gps_sampling", "solved"])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["details"]["gps"]["check"]["expected"]["within_50_km"] == pytest.approx(0.7)
    assert len(np.load(tmp_path / "out" / "dev_gps_coordinates.npy")) == 4
    assert "planned check" in capsys.readouterr().out and (tmp_path / "out" / "gps_map.png").is_file()
