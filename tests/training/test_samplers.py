from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler
from transformers import TrainerCallback

from natix_roadwork.data.draws import Draw, DrawRows, Indices, address, whole_batch
from natix_roadwork.gps.sampler import GPSWeightedSampler
from natix_roadwork.training.samplers import DrawSampler, EpochSampler, train_sampler
from natix_roadwork.training.trainer import RoadworkTrainer
from tests.training_rows import pixel_rows, pixel_trainer, weights


SAMPLING_WEIGHTS = np.linspace(0.1, 3.0, 20)


@pytest.fixture
def weighted(tmp_path: Path) -> Callable[..., RoadworkTrainer]:
    torch.set_num_threads(1)
    return lambda name, **settings: pixel_trainer(tmp_path / name, sampling_weights=SAMPLING_WEIGHTS, **settings)


def test_weights_choose_the_sampler() -> None:
    assert isinstance(train_sampler(20, None, 0, 4), EpochSampler)
    drawn = train_sampler(22, np.ones(22), 0, 4)
    assert isinstance(drawn, GPSWeightedSampler) and len(drawn) == 20
    assert len(train_sampler(3, np.ones(3), 0, 4)) == 3


def test_one_weight_for_each_row_is_needed() -> None:
    with pytest.raises(ValueError, match="sampling_weights has 3 weights for 20 train rows"):
        train_sampler(20, np.ones(3), 0, 4)


def test_trainer_draws_by_weight_in_every_epoch(weighted: Callable[..., RoadworkTrainer]) -> None:
    trainer = weighted("run")
    loader = trainer.get_train_dataloader()
    expected = GPSWeightedSampler(SAMPLING_WEIGHTS, 20, trainer.args.seed)
    for epoch in range(2):
        trainer._sampler.set_epoch(epoch)
        pixels = torch.cat([batch["pixel_values"] for batch in loader])
        rows = expected.draws(0, 20, epoch)
        assert torch.equal(pixels, torch.stack([trainer.train_dataset[row]["pixel_values"] for row in rows]))


class StopAt(TrainerCallback):
    """Ends the run after a step, as a kill would between two checkpoints."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_run_resumed_in_mid_epoch_ends_alike(weighted: Callable[..., RoadworkTrainer]) -> None:
    whole = weighted("whole")
    whole.train()
    stopped = weighted("stopped")
    stopped.add_callback(StopAt(7))  # five steps an epoch; the last checkpoint is that of step 6
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = weighted("stopped")
    resumed.train(resume_from_checkpoint=True)
    expected, found = weights(whole.model), weights(resumed.model)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


class Asked(DrawRows):
    """Three views of noise for each row, keeping note of what it was asked for."""

    def __init__(self, num_rows: int) -> None:
        self.rows, self.asked = pixel_rows(num_rows), []

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, draws: Indices) -> dict[str, torch.Tensor]:
        self.asked.append(draws)
        chosen = [self.rows[row] for row in address(draws)[0]]
        return {name: torch.stack([row[name] for row in chosen]) for name in chosen[0]}


def drawing_trainer(folder: Path, **settings: object) -> tuple[RoadworkTrainer, Asked]:
    trainer, rows = pixel_trainer(folder, **settings), Asked(20)
    trainer.train_dataset, trainer.eval_dataset, trainer.data_collator = rows, rows, whole_batch
    return trainer, rows


@pytest.mark.parametrize("rows", [EpochSampler(22, 3, 4), GPSWeightedSampler(SAMPLING_WEIGHTS, 20, 3)])
def test_draws_carry_row_epoch_and_position(rows: EpochSampler | GPSWeightedSampler) -> None:
    draws = DrawSampler(rows)
    for epoch in (0, 2):
        draws.set_epoch(epoch)
        draws.set_epoch(epoch)
        assert list(draws) == [Draw(row, epoch, position) for position, row in enumerate(rows)]
    assert len(draws) == 20


def test_positions_are_places_in_the_draw_of_all_processes() -> None:
    draws = DrawSampler(EpochSampler(16, 0, 8))
    batches = BatchSampler(draws, 4, drop_last=False)
    ranks = [list(BatchSamplerShard(batches, 2, rank)) for rank in range(2)]
    assert [draw.position for batch in ranks[1] for draw in batch] == [4, 5, 6, 7, 12, 13, 14, 15]
    whole = [draw for pair in zip(*ranks, strict=True) for batch in pair for draw in batch]
    assert whole == list(draws)


def test_train_rows_are_asked_for_by_draws_and_dev_rows_bare(tmp_path: Path) -> None:
    trainer, rows = drawing_trainer(tmp_path, save_strategy="no", eval_strategy="no", load_best_model_at_end=False)
    trainer.train()
    found = [draw for batch in rows.asked for draw in batch]
    expected = []
    for epoch in range(3):
        sampler = EpochSampler(20, trainer.args.seed, 4)
        sampler.set_epoch(epoch)
        expected += [Draw(row, epoch, position) for position, row in enumerate(sampler)]
    assert found[:48] == expected[:48]  # twelve steps of four; the loader may have read ahead
    rows.asked.clear()
    trainer.evaluate(rows)
    assert [row for batch in rows.asked for row in batch] == list(range(20))


def test_resumed_epoch_goes_on_with_the_same_draws(tmp_path: Path) -> None:
    whole, everything = drawing_trainer(tmp_path / "whole")
    whole.train()
    stopped, _ = drawing_trainer(tmp_path / "stopped")
    stopped.add_callback(StopAt(7))
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed, rest = drawing_trainer(tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=True)
    draws = [[draw for batch in rows.asked for draw in batch if isinstance(draw, Draw)] for rows in (everything, rest)]
    assert draws[1][0] == Draw(draws[0][24].row, 1, 4) and draws[1] == draws[0][24:]
