"""TTA aggregation: each mode's weights by hand, one filter for all members, what was fitted, and bad input named."""

import dataclasses
import json

import numpy as np
import pytest

from natix_roadwork.data.predictions import Predictions, joined
from natix_roadwork.inference.tta import (
    MODES,
    Aggregation,
    aggregate,
    combine,
    fit_aggregation,
    fit_weights,
    variant_weights,
)
from natix_roadwork.inference.tta_variants import Variants, side_by_side
from tests.tta_members import drawn_member, drawn_statistics, lines_of


def variants_of(*names: str, count: int = 16, rows: int = 40) -> Variants:
    members = [drawn_member(name, rows=rows, count=count, seed=number) for number, name in enumerate(names)]
    return side_by_side(members, {name: drawn_statistics(name) for name in names})


def weights_of(variants: Variants, mode: str, **fitted: object) -> np.ndarray:
    return variant_weights(variants, Aggregation(mode, variants.columns, **fitted))


@pytest.mark.parametrize("mode", MODES)
def test_weights_of_every_mode_are_shares(mode: str) -> None:
    variants = variants_of("one", "two")
    found = fit_aggregation(variants, mode)
    weights, likely = variant_weights(variants, found), combine(variants, found)
    assert weights.shape == (40, 32) and (weights >= 0).all()
    assert weights.sum(axis=1) == pytest.approx(1.0)
    assert (
        (likely >= variants.probabilities.min(axis=1) - 1e-12) & (likely <= variants.probabilities.max(axis=1))
    ).all()


def test_none_and_mean_are_plain_means() -> None:
    variants = variants_of("one", "two")
    likely = variants.probabilities
    none, mean = (combine(variants, Aggregation(mode, variants.columns)) for mode in ("none", "mean"))
    assert none == pytest.approx(likely[:, [0, 16]].mean(axis=1))
    assert mean == pytest.approx(likely.mean(axis=1))


@pytest.mark.parametrize(
    ("names", "count", "kept"), [(("one",), 16, 13), (("one", "two", "three"), 13, 31)], ids=["16", "39"]
)
def test_the_filter_runs_once_over_all_members(names: tuple[str, ...], count: int, kept: int) -> None:
    variants = variants_of(*names, count=count)
    weights = weights_of(variants, "foods", tau=1.0)
    assert ((weights > 0).sum(axis=1) == kept).all()
    assert (weights[:, variants.is_original] > 0).all() and variants.is_original.sum() == len(names)
    dropped = np.where(weights == 0, variants.mahalanobis, np.inf).min(axis=1)
    others = (weights > 0) & ~variants.is_original
    assert (np.where(others, variants.mahalanobis, 0).max(axis=1) <= dropped).all()
    if len(names) > 1:  # not the same number from each member: one filter, not one a member
        assert len(set((weights[:, :count] > 0).sum(axis=1))) > 1


def test_weights_of_foods_follow_the_formula() -> None:
    variants = variants_of("one")
    weights, far = weights_of(variants, "foods", tau=0.2), variants.mahalanobis
    kept = weights > 0
    unscaled = np.where(kept, np.exp(-(far - np.where(kept, far, np.inf).min(axis=1, keepdims=True)) / 0.2), 0)
    assert weights == pytest.approx(unscaled / unscaled.sum(axis=1, keepdims=True))
    equal = weights_of(variants, "foods", tau=1e6)
    assert equal[kept] == pytest.approx(1 / 13, rel=1e-4)


def test_knn_drops_what_lies_beyond_the_threshold_but_never_the_original() -> None:
    variants = variants_of("one")
    weights, far = weights_of(variants, "knn"), variants.neighbours
    assert (weights[:, 1:] > 0).tolist() == (far[:, 1:] <= 1).tolist() and (weights[:, 0] > 0).all()
    assert 0 < (far[:, 1:] > 1).mean() < 1 and (far[:, 0] > 1).any()
    row = int(np.flatnonzero((far <= 1).sum(axis=1) > 2)[0])
    first, second = np.flatnonzero(weights[row])[:2]
    assert weights[row, first] / weights[row, second] == pytest.approx(far[row, second] / far[row, first])


def test_distances_are_in_units_of_each_member_s_own_training() -> None:
    member = drawn_member()
    loud = dataclasses.replace(member, member="loud", embeddings=7 * member.embeddings)
    statistics = {"one": drawn_statistics(), "loud": drawn_statistics()}
    rows = drawn_statistics().features
    assert np.median(statistics["one"].mahalanobis(rows)) == pytest.approx(1.0)
    variants = side_by_side([member, loud], statistics)
    assert variants.mahalanobis[:, :16] == pytest.approx(variants.mahalanobis[:, 16:], rel=1e-4)
    assert not np.allclose(variants.neighbours[:, :16], variants.neighbours[:, 16:])


def test_learned_weights_find_the_good_transforms() -> None:
    draw, labels = np.random.default_rng(0), np.arange(2000) % 2
    noise = np.array([0.5, 4.0, 0.5, 4.0, 4.0])
    margins = 3 * (2 * labels[:, None] - 1) + 3 * noise * draw.standard_normal((2000, 5))
    likely = 1 / (1 + np.exp(-margins))
    weights = fit_weights(likely, labels)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all() and weights[[0, 2]].sum() > 0.9
    assert fit_weights(likely, labels, l2_rows=1e6) == pytest.approx(0.2, abs=1e-3)


def test_learned_weights_are_the_optimum() -> None:
    variants = variants_of("one", count=4)
    labels, likely = variants.originals.labels, variants.probabilities
    weights = fit_weights(likely, labels)

    def loss(tried: np.ndarray) -> float:
        mixed = np.where(labels == 1, likely @ tried, 1 - likely @ tried)
        return -np.log(mixed).mean() + 4 / len(labels) * ((tried - 0.25) ** 2).sum()

    tries = np.random.default_rng(0).dirichlet(np.ones(4), 2000)
    assert loss(weights) <= min(loss(tried) for tried in tries) + 1e-9


def test_tau_is_the_best_of_its_range() -> None:
    margins = np.tile([[3.0, 3.0, -3.0, -3.0, 3.0]], (40, 1)) * np.where(np.arange(40) % 2, 1, -1)[:, None]
    variants = variants_of("one", count=5)
    member = lines_of("one", margins, np.arange(40) % 2, np.arange(40))
    near = np.tile([1.0, 1.1, 2.0, 2.1, 1.2], (40, 1))
    known = dataclasses.replace(variants, originals=side_by_side([member]).originals, mahalanobis=near)
    known = dataclasses.replace(known, probabilities=side_by_side([member]).probabilities)
    assert fit_aggregation(known, "foods").tau < 0.2  # near variants are right, far ones wrong
    assert fit_aggregation(dataclasses.replace(known, mahalanobis=3 - near), "foods").tau == pytest.approx(100)


def test_an_aggregation_survives_json_and_is_applied_to_new_rows() -> None:
    members, statistics = [drawn_member()], {"one": drawn_statistics()}
    for mode in MODES:
        fitted = fit_aggregation(side_by_side(members, statistics), mode)
        again = Aggregation(**json.loads(json.dumps(dataclasses.asdict(fitted))))
        assert again == fitted
        result = aggregate([drawn_member(seed=5)], again, statistics)
        assert len(result) == 80 and result.member == "tta" and result.embeddings.shape == (80, 0)
        assert result.held_out.all() == (mode not in ("learned", "foods"))


def test_rows_may_stand_in_any_order() -> None:
    members, statistics = (
        [drawn_member("one"), drawn_member("two", seed=1)],
        dict.fromkeys(("one", "two"), drawn_statistics()),
    )
    shuffled = members[1].select(np.random.default_rng(0).permutation(len(members[1])))
    first, second = (side_by_side([members[0], member], statistics) for member in (members[1], shuffled))
    assert np.array_equal(first.probabilities, second.probabilities) and first.columns == second.columns
    assert np.array_equal(first.mahalanobis, second.mahalanobis)


def test_probabilities_pass_into_the_member_and_back() -> None:
    member = drawn_member(noise=5, signal=9)
    for mode in ("none", "mean"):
        variants = side_by_side([member])
        expected = combine(variants, Aggregation(mode, variants.columns))
        assert aggregate([member], Aggregation(mode, variants.columns)).probabilities == pytest.approx(
            expected, abs=2e-7
        )


def test_a_row_is_held_out_only_where_it_is_from_every_member() -> None:
    one, two = drawn_member("one"), drawn_member("two", seed=1)
    taught = dataclasses.replace(
        one, record={"learned_from": ["train", "dev"]}, folds=np.arange(len(one)) // 16 % 2 - 1
    )
    variants = side_by_side([taught, two])
    assert variants.originals.held_out.tolist() == [False, True] * 40


def _without(member: Predictions, line: int) -> Predictions:
    return member.select(np.arange(len(member)) != line)


def test_what_cannot_be_aggregated_is_named() -> None:
    one, statistics = drawn_member(), {"one": drawn_statistics()}
    folds = dataclasses.replace(one, folds=np.zeros(len(one), dtype=np.int64))
    other = dataclasses.replace(one, record={"model_sha256": "xyz"})
    cases = [
        (([],), "members is empty"),
        (([_without(one, 5)],), "row 'dev:0' lacks transform 5"),
        (([_without(one, 16)],), "row 'dev:1' lacks transform 0 beside"),
        (([one.select(one.transforms > 0)],), "has no line of transform 0"),
        (([one, one],), "two members are called 'one'"),
        (([one, _without(drawn_member("two"), 16)],), "lacks 1 of the 80 rows"),
        (([drawn_member("two")], statistics), "none of member 'two'"),
        (([folds], statistics), "one model a fold"),
        (([other], statistics), "of the model xyz, its statistics of abc"),
    ]
    for arguments, named in cases:
        with pytest.raises(ValueError, match=named):
            side_by_side(*arguments)


def test_an_aggregation_that_does_not_fit_is_named() -> None:
    one = drawn_member()
    variants = side_by_side([one])
    with pytest.raises(ValueError, match=r"\('one', 15\)"):
        aggregate([one.select(one.transforms < 15)], Aggregation("mean", variants.columns))
    with pytest.raises(ValueError, match="needs the statistics"):
        aggregate([one], Aggregation("knn", variants.columns))
    for mode, named in (("median", "mode='median' is unknown"), ("foods", "tau=None"), ("learned", "16 columns")):
        with pytest.raises(ValueError, match=named):
            Aggregation(mode, variants.columns)


def test_parts_of_different_members_are_not_joined() -> None:
    with pytest.raises(ValueError, match=r"\['one', 'two'\]"):
        joined([drawn_member("one"), drawn_member("two")])
    with pytest.raises(ValueError, match="cannot be joined"):
        joined([])
