import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from natix_roadwork.inference.combining import METHODS
from natix_roadwork.inference.ensemble import Ensemble, fit_ensemble, splits_of
from natix_roadwork.inference.member_table import member_table
from natix_roadwork.metrics import mcc
from tests.inference.member_rows import changed, members


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_ensemble_combines_new_predictions_alike(method: str, tmp_path: Path) -> None:
    table = member_table(members([0.5, 1.0, 0.8]))
    fitted = fit_ensemble(table, method, seed=2, with_bootstrap=True)
    fitted.save(tmp_path / "ensemble.json")
    read = Ensemble.load(tmp_path / "ensemble.json")
    new = members([0.5, 1.0, 0.8], seed=1)
    logits = np.stack([member.logits.astype(np.float64) for member in new], axis=1)
    np.testing.assert_array_equal(read.combine(new), fitted.margins(logits))
    assert read.cut == fitted.cut and read.cut.interval is not None
    assert mcc(new[0].labels, (read.combine(new) > 0).astype(int)) > 0.4


def test_members_are_matched_by_name_and_rows_by_id() -> None:
    fitted = fit_ensemble(member_table(members([0.5, 1.0, 0.8])), "stacking")
    first, second, third = members([0.5, 1.0, 0.8], seed=1)
    expected = fitted.combine([first, second, third])
    np.testing.assert_array_equal(fitted.combine([third, first, second]), expected)
    backwards = np.arange(len(first))[::-1]
    np.testing.assert_array_equal(fitted.combine([second.select(backwards), third, first]), expected[::-1])


def test_members_that_do_not_fit_are_named() -> None:
    fitted = fit_ensemble(member_table(members([0.5, 1.0, 0.8])), "mean")
    first, second, third = members([0.5, 1.0, 0.8])
    with pytest.raises(ValueError, match=r"\['a', 'b', 'c'\] lacks the member\(s\) \['b'\]"):
        fitted.combine([first, third])
    with pytest.raises(ValueError, match=r"does not know the member\(s\) \['d'\]"):
        fitted.combine([first, second, third, changed(third, member="d")])
    with pytest.raises(ValueError, match="member 'c' lacks 1 of the 240 rows of member 'a'"):
        fitted.combine([first, second, third.select(np.arange(1, 240))])
    with pytest.raises(ValueError, match=r"row 'dev/0000\.jpg' has transform 3"):
        fitted.combine([first, second, changed(third, transforms=np.full(240, 3))])


def test_the_best_cut_is_at_half_and_serves_the_prior() -> None:
    table = member_table(members([0.6, 0.9], rows=2000, share=0.85))
    as_data = fit_ensemble(table, "mean")
    at_half = fit_ensemble(table, "mean", target_prior=0.5)
    decided = [(fitted.margins(table.logits) > 0).mean() for fitted in (as_data, at_half)]
    assert decided[1] < decided[0] and at_half.target_prior == 0.5
    assert mcc(table.labels, (as_data.margins(table.logits) > 0).astype(int)) == pytest.approx(as_data.cut.mcc)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, "its format_version is not 2, so fit it anew"),
        ({"members": ["a"]}, "layers do not lead from 1 numbers"),
        ({"calibration": {"scale": -1.0, "offset": 0.0}}, "the scale positive"),
        ({"cut": None}, "cannot be read as an ensemble"),
        ({"code": "import os"}, "unexpected keyword argument 'code'"),
    ],
)
def test_a_damaged_file_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ensemble.json"
    fitted = fit_ensemble(member_table(members([0.5, 1.0])), "mean")
    path.write_text(json.dumps(fitted.as_dict() | change))
    with pytest.raises(ValueError, match=message):
        Ensemble.load(path)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("[1, 2]")
    for name in ("absent", "text"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as an ensemble"):
            Ensemble.load(tmp_path / name)


def test_the_splits_it_was_fitted_on_are_those_of_the_rows_that_were_kept(tmp_path: Path) -> None:
    splits = np.where(np.arange(240) < 80, "dev", np.where(np.arange(240) < 120, "test", "train"))
    made = [changed(member, splits=splits) for member in members([0.5, 1.0])]
    table = member_table(made)
    assert len(table) == 80 and splits_of(table, made) == ("dev",)
    fit_ensemble(table, "mean", fitted_on=splits_of(table, made)).save(tmp_path / "ensemble.json")
    assert Ensemble.load(tmp_path / "ensemble.json").fitted_on == ("dev",)
    out_of_fold = members([0.5, 1.0], num_folds=3)
    assert splits_of(member_table(out_of_fold), out_of_fold) == ("train",)


def test_the_ensemble_keeps_its_facts() -> None:
    fitted = fit_ensemble(member_table(members([0.5, 1.0])), "mean", target_prior=0.5)
    values = dataclasses.asdict(fitted)
    assert (values["method"], values["members"], values["num_rows"]) == ("mean", ("a", "b"), 240)
