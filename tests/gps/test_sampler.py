import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from scipy.stats import chisquare
from torch.utils.data import BatchSampler

from natix_roadwork.gps import sampler as module
from natix_roadwork.gps.sampler import GPSWeightedSampler


def test_frequencies_are_the_weights() -> None:
    weights = np.random.default_rng(0).choice([5.0, 2.5, 1.0, 0.3], 200)
    draws = GPSWeightedSampler(weights, 1_000_000, seed=1).draws(0, 1_000_000)
    counts = np.bincount(draws, minlength=200)
    assert chisquare(counts, 1_000_000 * weights / weights.sum()).pvalue > 1e-3


def test_draws_are_independent_of_their_neighbours() -> None:
    draws = GPSWeightedSampler(np.ones(10), 200_000, seed=0).draws(0, 200_000)
    pairs = np.bincount(draws[::2] * 10 + draws[1::2], minlength=100)
    assert chisquare(pairs).pvalue > 1e-3


def test_epoch_is_the_same_drawn_at_once_in_chunks_or_from_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = GPSWeightedSampler(np.arange(50.0), 1000, seed=3)
    whole = sampler.draws(0, 1000).tolist()
    monkeypatch.setattr(module, "CHUNK_DRAWS", 77)
    assert list(sampler) == whole and len(sampler) == 1000
    assert all(sampler.draws(start, 1000).tolist() == whole[start:] for start in (1, 2, 3, 4, 501, 1000))


def test_epoch_and_seed_choose_the_draw() -> None:
    first, again = (GPSWeightedSampler(np.ones(100), 50, seed=3) for _ in range(2))
    assert list(first) == list(again)
    again.set_epoch(1)
    again.set_epoch(1)
    assert list(first) != list(again) and list(again) == first.draws(0, 50, epoch=1).tolist()
    assert list(GPSWeightedSampler(np.ones(100), 50, seed=4)) != list(first)


def test_rows_of_weight_zero_are_never_drawn() -> None:
    draws = GPSWeightedSampler([0, 1, 0, 0, 2, 0], 10_000, seed=0).draws(0, 10_000)
    assert set(draws) == {1, 4}


def test_more_rows_than_multinomial_knows() -> None:
    rows = (1 << 24) + 10
    weights = np.zeros(rows)
    weights[-2:] = 1.0
    assert set(GPSWeightedSampler(weights, 100, seed=0)) == {rows - 2, rows - 1}


def test_ranks_partition_one_draw() -> None:
    def batches(rank: int) -> list[list[int]]:
        draw = BatchSampler(GPSWeightedSampler(np.ones(1000), 64, seed=0), 4, drop_last=False)
        return list(BatchSamplerShard(draw, 2, rank))

    both = [row for pair in zip(batches(0), batches(1), strict=True) for batch in pair for row in batch]
    assert both == list(GPSWeightedSampler(np.ones(1000), 64, seed=0))


@pytest.mark.parametrize(
    ("weights", "num_samples", "message"),
    [
        ([1.0, -1.0], 5, r"weights\[1\]=-1.0"),
        ([1.0, np.nan], 5, r"weights\[1\]=nan"),
        ([0.0, 0.0], 5, "all weights are 0"),
        ([], 5, r"shape \(N,\) with N > 0"),
        ([1.0], 0, "num_samples=0"),
    ],
)
def test_bad_arguments_are_named(weights: list[float], num_samples: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPSWeightedSampler(weights, num_samples, seed=0)
