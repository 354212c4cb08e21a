import json

import numpy as np
import pytest

from natix_roadwork.gps.coordinates import US_BOUNDS
from natix_roadwork.gps.gate import SamplingPlan, plan_sampling
from natix_roadwork.gps.settings import GPSArguments
from tests.gps.places import PITTSBURGH, around, near_and_far


TARGETS = around(PITTSBURGH, 40, seed=9)


def plan(num_near: int, num_far: int, **settings: object) -> SamplingPlan:
    return plan_sampling(near_and_far(num_near, num_far, 10), TARGETS, GPSArguments(**settings))


def test_plan_refuses_and_names_shares_thresholds_and_ways_out() -> None:
    with pytest.raises(ValueError) as error:
        plan(20, 980, gps_sampling="brackets", gps_gate="refuse")
    text = str(error.value)
    assert "so nothing is trained: 25.4% of the draws lie within 50 km, at least 50% must" in text
    assert "the mean distance is" in text and "must be below 150 km" in text
    assert "--gps_near_weight 7.5 --gps_far_weight 0.2 would fail too" in text
    assert "No weights with an effective sample size of 50%" in text and "--gps_gate warn" in text


def test_plan_trains_where_the_check_passes() -> None:
    found = plan(600, 400, gps_sampling="brackets", gps_gate="refuse", gps_bounds=list(US_BOUNDS))
    assert found.check.passed and not found.warnings
    assert found.weights is not None and set(found.weights[:1000]) == {5.0, 0.3}


def test_default_warns_with_the_expected_shares() -> None:
    found = plan(250, 750, gps_sampling="brackets")
    assert found.weights is not None and found.check.expected.within[50.0] > 0.8
    assert (
        len(found.warnings) == 1
        and "mean distance" in found.warnings[0]
        and "expected: 84.7% <= 50 km" in found.warnings[0]
    )


def test_default_falls_back_to_no_weights_where_none_can_reach_the_target() -> None:
    found = plan(20, 980, gps_sampling="brackets")
    assert found.weights is None and found.check.expected == found.unweighted
    assert "25.4% of the draws" in found.warnings[0] and "GPS sampling is off. No weights" in found.warnings[1]
    solved = plan(20, 980, gps_sampling="solved")
    assert solved.weights is None and "weights bring the share of near draws to 16.1% at most" in solved.warnings[0]


def test_solved_weights_pass_without_a_warning() -> None:
    found = plan(300, 700, gps_sampling="solved")
    assert found.weights is not None and not found.warnings
    assert found.check.expected.within[50.0] == pytest.approx(0.7) and found.check.effective_share >= 0.5


def test_infeasible_share_is_refused_at_a_strict_gate() -> None:
    with pytest.raises(ValueError, match=r"target_share=0\.7 within 50 km cannot be reached"):
        plan(20, 980, gps_sampling="solved", gps_gate="refuse")


def test_every_row_is_seen_where_enough_are_near() -> None:
    found = plan(900, 100, gps_sampling="solved")
    assert found.weights is None and "no weights are needed" in found.notes[1]


def test_share_of_positives_among_the_draws_is_told() -> None:
    labels = np.repeat([1, 0], [300, 710])
    train = near_and_far(300, 700, 10)
    found = plan_sampling(train, TARGETS, GPSArguments(gps_sampling="solved"), labels)
    assert found.positive_share == pytest.approx(0.7 * 1000 / 1010)


def test_record_is_json_and_has_no_rows() -> None:
    record = plan(300, 700, gps_sampling="solved").as_dict()
    assert len(json.dumps(record)) < 3000
    assert (record["sampling"], record["train_rows"], record["train_rows_without_gps"]) == ("solved", 1010, 10)
    assert record["check"]["expected"]["within_50_km"] == pytest.approx(0.7) and record["targets"] == 40


def test_both_sides_are_checked() -> None:
    with pytest.raises(ValueError, match=r"train GPS: row 9 is .*: the coordinates look swapped"):
        plan_sampling(near_and_far(9, 9)[:, ::-1], TARGETS, GPSArguments())
    with pytest.raises(ValueError, match=r"target GPS: all 40 coordinates .* radians"):
        plan_sampling(near_and_far(9, 9), np.radians(TARGETS), GPSArguments())
    with pytest.raises(ValueError, match=r"train GPS: row 0 is .* outside latitudes 25 to 35"):
        plan(9, 9, gps_bounds=[25, 35, -125, -65])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gps_near_weight": 0.0}, "gps_near_weight=0.0 must be positive"),
        ({"gps_within_km": float("nan")}, "gps_within_km=nan"),
        ({"gps_target_share": 1.0}, "gps_target_share=1.0"),
        ({"gps_min_effective_share": 0.0}, "gps_min_effective_share=0.0"),
        ({"gps_target": "somewhere"}, "gps_target='somewhere' must be dev, test, or a .npy file"),
        ({"gps_bounds": [1.0]}, r"bounds=\[1.0\] must be four degrees"),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPSArguments(**settings)
