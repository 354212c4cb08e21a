import numpy as np
import pytest
import torch
from torch import Tensor

from natix_roadwork.data.mixing import cutmix, mix_batch, mixup
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification


def _batch(rows: int = 4, views: int = 12) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "view_features": torch.randn(rows, views, 2, 5, generator=generator),
        "view_mask": torch.rand(rows, views, generator=generator) > 0.3,
        "labels": torch.arange(rows) % 2,
        "gps": torch.rand(rows, 2, generator=generator),
        "weather_ids": torch.ones(rows, 3, dtype=torch.long),
    }


def test_mixup_blends_views_and_labels_and_hides_metadata() -> None:
    batch, partners = _batch(), torch.tensor([1, 0, 2, 0])
    mixed = mixup(batch, partners, torch.tensor([0.75, 1.0, 0.6, 0.5]))
    views = batch["view_features"]
    assert torch.allclose(mixed["view_features"][0], 0.75 * views[0] + 0.25 * views[1], atol=1e-6)
    assert torch.allclose(mixed["view_features"][3], (views[3] + views[0]) / 2, atol=1e-6)
    assert mixed["labels"].tolist() == [[0.75, 0.25], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]
    assert torch.equal(mixed["view_features"][2], views[2])  # its own partner
    assert torch.equal(mixed["gps"][2], batch["gps"][2]) and mixed["gps"][[0, 1, 3]].isnan().all()
    assert mixed["weather_ids"].tolist() == [[-1] * 3, [-1] * 3, [1] * 3, [-1] * 3]
    assert torch.equal(mixed["view_mask"], batch["view_mask"])


def test_mixup_rounds_pixels() -> None:
    pixels = torch.tensor([[[[[10]]]], [[[[21]]]]], dtype=torch.uint8)
    batch = {"pixel_values": pixels, "labels": torch.tensor([0, 1])}
    mixed = mixup(batch, torch.tensor([1, 0]), torch.tensor([0.6, 0.9]))
    assert mixed["pixel_values"].dtype == torch.uint8
    assert mixed["pixel_values"].flatten().tolist() == [14, 20]


def test_cutmix_takes_whole_views_and_the_larger_label() -> None:
    batch = _batch()
    taken = torch.zeros(4, 12, dtype=torch.bool)
    taken[0, 3], taken[1, 4] = True, True
    mixed = cutmix(batch, torch.tensor([1, 0, 3, 3]), taken)
    views = batch["view_features"]
    assert torch.equal(mixed["view_features"][0, 3], views[1, 3])
    assert torch.equal(mixed["view_features"][0, 4], views[0, 4])
    assert mixed["view_mask"][0, 3] == batch["view_mask"][1, 3]
    assert mixed["labels"].tolist() == [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    assert mixed["gps"][:2].isnan().all() and torch.equal(mixed["gps"][2:], batch["gps"][2:])  # nothing was taken


@pytest.mark.parametrize(
    "alphas", [{"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}]
)
def test_a_mixed_batch_depends_on_its_generator_only(alphas: dict[str, float]) -> None:
    batch = _batch(rows=200)
    kept = {name: values.clone() for name, values in batch.items()}
    first, again, other = (
        mix_batch(batch, np.random.default_rng(seed), **alphas, wide_views=(0, 10, 11)) for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name].nan_to_num(7), again[name].nan_to_num(7)) for name in first)
    assert not torch.equal(first["view_features"], other["view_features"])
    assert all(torch.equal(batch[name], kept[name]) for name in kept)
    assert 0.3 < first["gps"].isnan().any(dim=1).float().mean() < 0.6  # about half of the rows
    assert torch.allclose(first["labels"].sum(dim=1), torch.ones(200))


def test_cutmix_leaves_the_wide_views_to_one_photo() -> None:
    batch = _batch(rows=50)
    mixed = mix_batch(batch, np.random.default_rng(0), cutmix_alpha=1.0, wide_views=(0, 10, 11))
    wide = [0, 10, 11]
    assert torch.equal(mixed["view_features"][:, wide], batch["view_features"][:, wide])
    assert not torch.equal(mixed["view_features"], batch["view_features"])


def test_the_patch_grid_goes_with_the_global_view_and_masks_are_lost() -> None:
    grid, masks = torch.randn(3, 2, 2, 5).half(), torch.rand(3, 6, 4, 4)
    batch = _batch(rows=3) | {"global_grid": grid, "mask_labels": masks, "extra_evidence": torch.ones(3, 2, 4)}
    partners, shares = torch.tensor([1, 0, 2]), torch.tensor([0.75, 0.5, 0.6])
    mixed = mixup(batch, partners, shares)
    expected = 0.75 * grid[0].float() + 0.25 * grid[1].float()
    torch.testing.assert_close(mixed["global_grid"][0].float(), expected, atol=2e-3, rtol=0)
    assert mixed["global_grid"].dtype == torch.float16 and torch.equal(mixed["global_grid"][2], grid[2])
    for name in ("mask_labels", "extra_evidence"):
        assert mixed[name][:2].isnan().all() and torch.equal(mixed[name][2], batch[name][2])
    taken = torch.zeros(3, batch["view_features"].shape[1], dtype=torch.bool)
    taken[0, 0], taken[1, 2] = True, True
    cut = cutmix(batch, partners, taken)
    assert torch.equal(cut["global_grid"], grid[[1, 1, 2]])  # row 0 took its partner's global view, row 1 a tile
    assert cut["mask_labels"][:2].isnan().all() and torch.equal(cut["mask_labels"][2], masks[2])


def test_off_changes_nothing() -> None:
    batch = _batch()
    assert mix_batch(batch, np.random.default_rng(0))["labels"] is batch["labels"]


def test_the_model_takes_a_mixed_batch(tiny_model: RoadworkForImageClassification) -> None:
    tokens = tiny_model.extract_tokens(torch.rand(4, 12, 3, 32, 32))
    batch = {"view_features": tokens, "labels": torch.tensor([0, 1, 0, 1])}
    plain = tiny_model(**batch).loss
    same = mixup(batch, torch.arange(4), torch.full((4,), 0.5))
    assert torch.allclose(tiny_model(**same).loss, plain)
    assert tiny_model(**mixup(batch, torch.tensor([1, 2, 3, 0]), torch.full((4,), 0.5))).loss.isfinite()


def test_what_cannot_be_mixed_is_named() -> None:
    with pytest.raises(ValueError, match=r"\['something'\] cannot be mixed; set mixup_alpha and cutmix_alpha to 0"):
        mix_batch(_batch() | {"something": torch.zeros(4)}, np.random.default_rng(0), mixup_alpha=1.0)
    with pytest.raises(ValueError, match=r"cutmix_alpha=1.0 needs views besides the wide ones, of 1 there are none"):
        mix_batch(_batch(views=1), np.random.default_rng(0), cutmix_alpha=1.0)
    with pytest.raises(ValueError, match="must hold one of"):
        mixup({"labels": torch.zeros(1, dtype=torch.long)}, torch.zeros(1, dtype=torch.long), torch.ones(1))
