"""`torch_compile` through the trainer's own arguments."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.trainer import RoadworkTrainer
from tests.training_rows import accuracy_as_mcc, pixel_model, pixel_rows, token_rows


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def trainer_of(model: RoadworkForImageClassification, rows: list, folder: Path, **settings: object) -> RoadworkTrainer:
    defaults = {"use_cpu": True, "disable_tqdm": True, "max_steps": 2, "per_device_train_batch_size": 4, "seed": 1}
    quiet = {"save_strategy": "no", "load_best_model_at_end": False, "logging_steps": 1, "eval_strategy": "no"}
    args = RoadworkTrainingArguments(output_dir=str(folder), **defaults | quiet | settings)
    return RoadworkTrainer(
        model=model, args=args, train_dataset=rows, eval_dataset=rows[:6], compute_metrics=accuracy_as_mcc
    )


def losses(trainer: RoadworkTrainer) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, pytest.mark.process])]
)
@pytest.mark.parametrize("live", [False, True], ids=["tokens", "pixels"])
def test_compiled_training_learns_the_same(tmp_path: Path, live: bool, backend: str) -> None:
    """Graphs have no break, and a last batch of another size costs one more compilation, not one a size."""
    rows = pixel_rows(16)
    if not live:
        model = pixel_model()
        tokens = model.extract_tokens(torch.stack([row["pixel_values"] for row in rows]))
        rows = [{"view_features": token, "labels": row["labels"]} for token, row in zip(tokens, rows, strict=True)]
    eager = trainer_of(pixel_model(dropout=0.0), rows, tmp_path / "eager")
    eager.train()
    chosen = {"torch_compile": True, "torch_compile_backend": backend}
    compiled = trainer_of(
        pixel_model(dropout=0.0), rows, tmp_path / "compiled", per_device_eval_batch_size=4, **chosen
    )
    compiled.train()
    torch.testing.assert_close(losses(compiled), losses(eager), rtol=1e-4, atol=1e-5)
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] == 1
    metrics = compiled.evaluate()  # batches of four and two, without gradient
    assert metrics["eval_loss"] == pytest.approx(eager.evaluate()["eval_loss"], rel=1e-4)
    assert counters["stats"]["unique_graphs"] <= 3


def test_pruning_and_masks_compile_without_a_break(tiny_model: RoadworkForImageClassification) -> None:
    rows = token_rows(3)
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    compiled = torch.compile(tiny_model, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(**batch).logits, tiny_model(**batch).logits)
