import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from natix_roadwork.data.draws import (
    BLOCK_POSITIONS,
    Draw,
    DrawRows,
    Indices,
    address,
    chosen_draws,
    whole_batch,
)


class Numbers(DrawRows):
    """Three rows that show how they were asked for."""

    def __len__(self) -> int:
        return 3

    def read(self, draws: Indices) -> dict[str, torch.Tensor]:
        return {"rows": torch.from_numpy(address(draws)[0])}


def choose(epoch: int, positions: list[int], num_views: int = 12, num_draws: int = 4, seed: int = 0) -> np.ndarray:
    places = np.array(positions)
    return chosen_draws(seed, np.full(len(places), epoch), places, num_views, num_draws)


def test_address_of_draws_and_of_bare_rows() -> None:
    rows, epochs, positions = address([Draw(5, 1, 7), Draw(5, 1, 8)])
    assert (rows.tolist(), epochs.tolist(), positions.tolist()) == ([5, 5], [1, 1], [7, 8])
    rows, epochs, positions = address([4, 2])
    assert rows.tolist() == [4, 2] and epochs is None and positions is None


def test_choice_is_a_function_of_seed_epoch_position_and_view() -> None:
    block = choose(3, list(range(100)))
    np.testing.assert_array_equal(choose(3, [70, 2]), block[[70, 2]])
    for other in (choose(4, list(range(100))), choose(3, list(range(100)), seed=1)):
        assert 0.15 < (other == block).mean() < 0.35
    assert (block[:, 0] != block[:, 1]).any(), "the views of a photo are chosen independently"
    assert (block[:-1] != block[1:]).any(axis=1).mean() > 0.9, "a repeated row gets other draws"


def test_choices_are_uniform_and_never_clean() -> None:
    counts = np.bincount(choose(0, list(range(4000)), num_draws=5).ravel(), minlength=6)
    assert counts[0] == 0 and len(counts) == 6
    np.testing.assert_allclose(counts[1:] / counts.sum(), 0.2, atol=0.01)


def test_choice_of_a_batch_over_two_blocks_is_that_of_its_parts() -> None:
    edge = [BLOCK_POSITIONS - 1, BLOCK_POSITIONS, BLOCK_POSITIONS + 1]
    np.testing.assert_array_equal(choose(0, edge), np.concatenate([choose(0, [place]) for place in edge]))


def test_without_augmented_draws_every_view_is_clean() -> None:
    assert not choose(0, [1, 2], num_draws=0).any()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loader_gives_ready_batches(num_workers: int) -> None:
    loader = DataLoader(Numbers(), batch_size=2, collate_fn=whole_batch, num_workers=num_workers)
    assert [batch["rows"].tolist() for batch in loader] == [[0, 1], [2]]
    assert Numbers()[Draw(2, 0, 0)]["rows"].item() == 2
