from pathlib import Path

import pytest
import torch
from torch import Tensor

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.training import memory
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.memory import MemoryEstimate, _LiveBytes, check_memory, estimate_memory, free_memory
from tests.training_rows import pixel_model, pixel_rows, token_rows


Row = dict[str, Tensor]


def arguments(folder: Path, **settings: object) -> RoadworkTrainingArguments:
    return RoadworkTrainingArguments(output_dir=str(folder), use_cpu=True, **settings)


def stacked(rows: list[Row]) -> Row:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def step_bytes(model: RoadworkForImageClassification, rows: list[Row]) -> int:
    """Most bytes alive in a real step, beyond weights and inputs."""
    batch, model = stacked(rows), model.train()
    with _LiveBytes() as live:
        for tensor in [*model.parameters(), *model.buffers(), *batch.values()]:
            live.count(tensor)
        before = live.peak = live.live
        model(**batch).loss.backward()
    return live.peak - before


def test_step_on_tokens_is_what_a_real_one_holds(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> None:
    rows = token_rows(8)
    estimate = estimate_memory(tiny_model, rows[0], 8, arguments(tmp_path))
    assert estimate.step == pytest.approx(step_bytes(tiny_model, rows), rel=0.01)


@pytest.mark.parametrize("trained", [False, True])
def test_step_on_pixels_is_what_a_real_one_holds(tmp_path: Path, trained: bool) -> None:
    model, rows = pixel_model(), pixel_rows(8)
    model.backbone.requires_grad_(trained)
    estimate = estimate_memory(model, rows[0], 8, arguments(tmp_path))
    assert estimate.step == pytest.approx(step_bytes(model, rows), rel=0.1)


def test_weights_optimizer_and_batches_are_counted(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> None:
    row = token_rows(1)[0]
    estimate = estimate_memory(tiny_model, row, 4, arguments(tmp_path, ema_decay=0.9))
    trained = 4 * sum(weight.numel() for weight in tiny_model.parameters() if weight.requires_grad)
    assert estimate.optimizer == 3 * trained
    assert estimate.batches == 2 * 4 * (4 * 12 * 6 * 16 + 12 + 8)
    assert estimate.weights > trained
    assert estimate.further == estimate.optimizer + estimate.batches + estimate.step


def test_chunks_and_checkpointing_lower_the_estimate(tmp_path: Path) -> None:
    model, row = pixel_model(), pixel_rows(1)[0]

    def step(**settings: object) -> int:
        return estimate_memory(model, row, 32, arguments(tmp_path, **settings)).step

    whole = step()
    model.config.view_chunk = 6
    assert step() < 0.5 * whole
    model.backbone.requires_grad_(True)
    assert step(activation_checkpointing=True) < 0.5 * step()


def test_estimating_changes_nothing(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> None:
    state, before = torch.get_rng_state(), [weight.clone() for weight in tiny_model.parameters()]
    estimate_memory(tiny_model, token_rows(1)[0], 4, arguments(tmp_path))
    assert torch.equal(torch.get_rng_state(), state) and not tiny_model.training
    assert all(map(torch.equal, tiny_model.parameters(), before))
    assert all(weight.grad is None for weight in tiny_model.parameters())


def test_a_real_step_after_an_estimate_is_real(tmp_path: Path) -> None:
    """Backbones cache tensors by shape: a fake one left there would end in the real step's gradients."""
    model = pixel_model(view_size=80).train()  # a size that no other test has left in the cache
    row = {"pixel_values": torch.zeros(3, 3, 80, 80, dtype=torch.uint8), "labels": torch.tensor(0)}
    estimate_memory(model, row, 4, arguments(tmp_path))
    model(**stacked([row] * 4)).loss.backward()
    found = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert found and all(type(gradient) is Tensor and gradient.isfinite().all() for gradient in found)


def test_table_has_a_row_for_each_batch_size(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> None:
    table = check_memory(tiny_model, token_rows(1)[0], arguments(tmp_path, per_device_train_batch_size=4), "a/b")
    assert "a/b" in table and [line.split()[0] for line in table.splitlines()[2:]] == ["2", "4", "8"]


def test_what_cannot_fit_is_refused_with_the_keys_that_help(
    tiny_model: RoadworkForImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _: 2**20)
    monkeypatch.setattr(memory, "estimate_memory", lambda *a: MemoryEstimate(a[2], 0, 2**19, 0, 2**19 + 1))
    with pytest.raises(
        ValueError, match=r"per_device_train_batch_size=4 needs about 1 MiB.*1 MiB are free"
    ) as refusal:
        check_memory(tiny_model, {}, arguments(tmp_path, per_device_train_batch_size=4), "a/b")
    for key in ("view_chunk", "activation_checkpointing", "feature_cache"):
        assert key in str(refusal.value)


def test_free_memory_heeds_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, taken = tmp_path / "limit", tmp_path / "taken"
    monkeypatch.setattr(memory, "CGROUP_FILES", [(str(limit), str(taken))])
    cpu = torch.device("cpu")
    assert free_memory(cpu) > 1000
    limit.write_text("1500\n")
    taken.write_text("500\n")
    assert free_memory(cpu) == 1000
    limit.write_text("max\n")
    assert free_memory(cpu) > 1000
