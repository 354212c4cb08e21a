"""Ways to make one margin of the margins of several members, each fitted on held-out rows.

In comes a `MemberTable`; out goes a `Combination`, plain numbers that apply to new logits and go into `ensemble.json`.
The ways differ in how much they fit: nothing but each member's scale (`mean`), one weight a member, or a small network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier

from natix_roadwork.calibration import AffineMap, fit_platt, log_loss
from natix_roadwork.inference.member_table import MemberTable
from natix_roadwork.threshold import largest_mcc


C_GRID = (0.001, 0.01, 0.1, 1.0, 10.0)
DEFAULT_C = 0.01
INNER_FOLDS = 3
GREEDY_STEPS = 30
MLP_PENALTY = 1.0

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Combination:
    """A margin from the logits of M members: linear layers with tanh between them; one layer is a weighted sum.

    Attributes:
        inputs: `margins`, M of them, or `logits`, 2M of them.
        layers: Weights `(in, out)` and offsets `(out,)` of each layer; the last has one output.
    """

    inputs: str
    layers: tuple[tuple[FloatArray, FloatArray], ...]

    def __call__(self, logits: FloatArray) -> FloatArray:
        """Map logits `(N, M, 2)` to margins `(N,)`."""
        values = logits.reshape(len(logits), -1) if self.inputs == "logits" else logits[:, :, 1] - logits[:, :, 0]
        for number, (weights, offsets) in enumerate(self.layers):
            values = (np.tanh(values) if number else values) @ weights + offsets
        return values[:, 0]

    @property
    def weights(self) -> FloatArray | None:
        """`(M,)` weight of each member's margin; None for a network."""
        return self.layers[0][0][:, 0] if len(self.layers) == 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        layers = [{"weights": weights.tolist(), "offsets": offsets.tolist()} for weights, offsets in self.layers]
        return {"inputs": self.inputs, "layers": layers}

    @classmethod
    def from_dict(cls, values: dict[str, Any], num_members: int) -> "Combination":
        """Read what `as_dict` wrote.

        Raises:
            ValueError: If the inputs are unknown, the layers do not fit together, or a number is not finite.
        """
        if values["inputs"] not in ("margins", "logits"):
            raise ValueError(f"inputs={values['inputs']!r} is neither margins nor logits")
        layers = tuple(
            (np.array(entry["weights"], float), np.array(entry["offsets"], float)) for entry in values["layers"]
        )
        widths = [num_members * (2 if values["inputs"] == "logits" else 1), *(len(offsets) for _, offsets in layers)]
        fits = all(weights.shape == sizes for (weights, _), sizes in zip(layers, pairwise(widths), strict=True))
        if (
            widths[-1] != 1
            or not layers
            or not fits
            or not all(np.isfinite(part).all() for layer in layers for part in layer)
        ):
            raise ValueError(f"layers do not lead from {widths[0]} numbers of {num_members} members to one margin")
        return cls(values["inputs"], layers)


def fit_combination(table: MemberTable, method: str, seed: int = 0) -> Combination:
    """Fit one way of combining.

    Args:
        table: Held-out rows of both classes.
        method: One of `METHODS`.
        seed: Seed of inner folds and networks.

    Raises:
        ValueError: If the method is unknown or there is one class only.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}")
    return METHODS[method](table, seed)


def _mean(table: MemberTable, _: int) -> Combination:
    """Equal weights of the members' log-odds: Platt's line of each member makes them comparable."""
    return _weighted(_lines(table), np.ones(len(table.names)))


def _mcc_weighted(table: MemberTable, _: int) -> Combination:
    """Weights as the MCC of each member at its best cut: next to equal ones where members are alike."""
    scores = np.array([largest_mcc(column, table.labels) for column in table.margins.T])
    return _weighted(_lines(table), scores if scores.sum() > 0 else np.ones(len(scores)))


def _best_member(table: MemberTable, _: int) -> Combination:
    """The member of the largest MCC at its best cut, of the smallest log loss if equal."""
    lines = _lines(table)
    columns = _log_odds(table, lines).T
    ranks = [(largest_mcc(column, table.labels), -log_loss(column, table.labels)) for column in columns]
    return _weighted(lines, np.eye(len(columns))[ranks.index(max(ranks))])


def _greedy_log_loss(table: MemberTable, _: int) -> Combination:
    return _greedy(table, lambda margins: -log_loss(margins, table.labels))


def _greedy_mcc(table: MemberTable, _: int) -> Combination:
    return _greedy(table, lambda margins: largest_mcc(margins, table.labels))


def _greedy(table: MemberTable, score: Callable[[FloatArray], float]) -> Combination:
    """Add the member that helps most, with replacement, while one helps (Caruana et al. 2004).

    See https://doi.org/10.1145/1015330.1015432.
    """
    lines = _lines(table)
    log_odds = _log_odds(table, lines)
    counts, total, best = np.zeros(log_odds.shape[1]), np.zeros(len(table)), -np.inf
    for size in range(1, GREEDY_STEPS + 1):
        scores = [score((total + column) / size) for column in log_odds.T]
        if max(scores) <= best:
            break
        chosen, best = int(np.argmax(scores)), max(scores)
        counts[chosen] += 1
        total += log_odds[:, chosen]
    return _weighted(lines, counts)


def _stacking(table: MemberTable, seed: int) -> Combination:
    """L2 logistic regression on standardised margins; C by grouped cross-validation of the log loss."""
    margins = table.margins
    centre, spread = _standard(margins)
    inputs = (margins - centre) / spread
    losses = np.zeros(len(C_GRID))
    for fit, rest in _inner_folds(table, seed):
        for number, c in enumerate(C_GRID):
            model = _logistic(c).fit(inputs[fit], table.labels[fit])
            losses[number] += len(rest) * log_loss(model.decision_function(inputs[rest]), table.labels[rest])
    best = C_GRID[int(losses.argmin())] if losses.any() else DEFAULT_C
    model = _logistic(best).fit(inputs, table.labels)
    weights = model.coef_[0] / spread
    return Combination("margins", ((weights[:, None], model.intercept_ - centre @ weights),))


def _logistic(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=2000)


def _mlp(table: MemberTable, seed: int) -> Combination:
    """The plan's 6-4-2 network: M margins, 4 units, 2 classes (their difference is the one output)."""
    return _network(table, "margins", (4,), seed)


def _mlp_deep(table: MemberTable, seed: int) -> Combination:
    """The plan's 12-6-4-2 network: 2M logits, 6 and 4 units, 2 classes; it overfits a few thousand rows easily."""
    return _network(table, "logits", (6, 4), seed)


METHODS: dict[str, Callable[[MemberTable, int], Combination]] = {
    "mean": _mean,
    "weighted": _mcc_weighted,
    "best_member": _best_member,
    "greedy_log_loss": _greedy_log_loss,
    "greedy_mcc": _greedy_mcc,
    "stacking": _stacking,
    "mlp": _mlp,
    "mlp_deep": _mlp_deep,
}


def _network(table: MemberTable, inputs: str, hidden: tuple[int, ...], seed: int) -> Combination:
    values = table.logits.reshape(len(table), -1) if inputs == "logits" else table.margins
    centre, spread = _standard(values)
    model = MLPClassifier(
        hidden,
        activation="tanh",
        solver="lbfgs",
        alpha=MLP_PENALTY,
        max_iter=10_000,
        max_fun=100_000,
        random_state=seed,
    ).fit((values - centre) / spread, table.labels)
    first = model.coefs_[0] / spread[:, None]
    layers = [
        (first, model.intercepts_[0] - centre @ first),
        *zip(model.coefs_[1:], model.intercepts_[1:], strict=True),
    ]
    return Combination(inputs, tuple(layers))


def _lines(table: MemberTable) -> list[AffineMap]:
    """Platt's line of each member."""
    return [fit_platt(column, table.labels) for column in table.margins.T]


def _log_odds(table: MemberTable, lines: Sequence[AffineMap]) -> FloatArray:
    """`(N, M)` calibrated margins."""
    return np.stack([line(column) for line, column in zip(lines, table.margins.T, strict=True)], axis=1)


def _weighted(lines: Sequence[AffineMap], weights: FloatArray) -> Combination:
    """The weighted mean of log-odds, as weights of the margins themselves."""
    shares = weights / weights.sum()
    scales, offsets = np.array([line.scale for line in lines]), np.array([line.offset for line in lines])
    return Combination("margins", (((shares * scales)[:, None], np.array([shares @ offsets])),))


def _standard(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation of each column; a constant column has deviation 1."""
    spread = values.std(axis=0)
    return values.mean(axis=0), np.where(spread > 0, spread, 1.0)


def _inner_folds(table: MemberTable, seed: int) -> list[tuple[NDArray, NDArray]]:
    """Return grouped folds of rows to fit on and held out; none where a class has fewer groups than two."""
    num_groups = [len(np.unique(table.groups[table.labels == label])) for label in (0, 1)]
    if min(num_groups) < 2:
        return []
    splitter = StratifiedGroupKFold(min(INNER_FOLDS, *num_groups), shuffle=True, random_state=seed)
    folds = splitter.split(table.labels, table.labels, table.groups)
    return [(fit, rest) for fit, rest in folds if len(np.unique(table.labels[fit])) == 2 and len(rest)]
