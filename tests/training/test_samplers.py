from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from natix_roadwork.gps.sampler import GPSWeightedSampler
from natix_roadwork.training.samplers import EpochSampler, train_sampler
from natix_roadwork.training.trainer import RoadworkTrainer
from tests.training_rows import pixel_trainer, weights


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
