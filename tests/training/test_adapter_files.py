"""Adapter folders: read back exactly, switched exactly, merged, averaged, and never put on another base."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.training.adapter_files import (
    adapter_folders,
    identify,
    layer_weights,
    load_adapters,
    merge,
    merged_soup,
    weight_changes,
    write_adapter,
)
from natix_roadwork.training.adapters import KINDS, AdapterSettings, adapted, adapter_config, quiet_peft, take_off
from tests.training_rows import weights


WITHOUT_EXTRA = [kind for kind in KINDS if kind != "qlora"]
Write = Callable[..., dict[str, Tensor]]


def logits(model: torch.nn.Module) -> Tensor:
    pixels = torch.randn(3, 12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(pixel_values=pixels).logits


@torch.no_grad()
def move(wearing: PeftModel, seed: int, size: float = 0.2) -> None:
    """Stands in for training: every trained weight changes."""
    draw = torch.Generator().manual_seed(seed)
    for weight in wearing.parameters():
        if weight.requires_grad:
            weight.add_(size * torch.randn(weight.shape, generator=draw))


@pytest.fixture
def write(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> Write:
    """Writes K adapters of the tiny model and returns the logits of each in memory, by name."""

    def make(kind: str = "dora", num_folds: int = 2, size: float = 0.2, classifier: bool = False) -> dict[str, Tensor]:
        base, found = identify(tiny_model, "tiny"), {}
        settings = AdapterSettings(kind=kind, rank=2, train_classifier=classifier)
        for fold in range(num_folds):
            torch.manual_seed(fold)
            with adapted(tiny_model, adapter_config(tiny_model, kind, settings, total_steps=10)) as wearing:
                move(wearing, fold, size)
                found[f"fold{fold}"] = logits(wearing)
                write_adapter(wearing, tmp_path / "adapters" / f"fold{fold}", base)
        return found

    return make


@pytest.mark.parametrize("classifier", [False, True])
@pytest.mark.parametrize("kind", WITHOUT_EXTRA)
def test_adapters_are_read_back_and_switched_exactly(
    write: Write, tiny_model: RoadworkForImageClassification, tmp_path: Path, kind: str, classifier: bool
) -> None:
    plain, expected = logits(tiny_model), write(kind, classifier=classifier)
    model = load_adapters(tiny_model, tmp_path / "adapters")
    for name in ("fold0", "fold1", "fold0"):
        model.set_adapter(name)
        assert torch.equal(logits(model), expected[name]), name
    assert not torch.equal(expected["fold0"], expected["fold1"])
    assert torch.equal(logits(take_off(model)), plain)


@pytest.mark.parametrize("kind", WITHOUT_EXTRA)
def test_merged_weights_answer_as_the_adapter(
    write: Write, tiny_model: RoadworkForImageClassification, tmp_path: Path, kind: str
) -> None:
    plain, expected = logits(tiny_model), write(kind, size=0.05, classifier=True)
    merged = merge(tiny_model, tmp_path / "adapters", "fold1")
    assert merged is tiny_model and not any(".lora_" in name for name in merged.state_dict())
    torch.testing.assert_close(logits(merged), expected["fold1"], atol=1e-5, rtol=0)
    assert not torch.allclose(logits(merged), plain, atol=1e-3)


def test_soup_averages_merged_weights(
    write: Write, tiny_model: RoadworkForImageClassification, tmp_path: Path
) -> None:
    write("dora", num_folds=3, classifier=True)
    folds = [weights(merge(copy.deepcopy(tiny_model), tmp_path / "adapters", f"fold{fold}")) for fold in range(3)]
    base = weights(tiny_model)
    soup = weights(merged_soup(tiny_model, tmp_path / "adapters"))
    for name, value in soup.items():
        torch.testing.assert_close(value, torch.stack([fold[name] for fold in folds]).mean(0), atol=1e-6, rtol=0)
    changed = {name for name in base if not torch.equal(base[name], soup[name])}
    assert {name.split(".")[0] for name in changed} == {"attention_layers", "classifier"}


def test_soup_is_no_average_of_factors(
    write: Write, tiny_model: RoadworkForImageClassification, tmp_path: Path
) -> None:
    """Averaging A, B and m would make another model: the update is their product."""
    write("dora")
    wearing = load_adapters(copy.deepcopy(tiny_model), tmp_path / "adapters")
    factors = [dict(load_file(path / "adapter_model.safetensors")) for path in (tmp_path / "adapters").iterdir()]
    layer = "base_model.model.attention_layers.0.attention.out_proj"
    a, b, m = (
        sum(each[f"{layer}.{name}"] for each in factors) / 2
        for name in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
    )
    weight = tiny_model.attention_layers[0].attention.out_proj.weight.detach()
    direction = weight + 16 * (b @ a)
    averaged = m[:, None] * direction / direction.norm(dim=1, keepdim=True)
    take_off(wearing)
    soup = merged_soup(tiny_model, tmp_path / "adapters").attention_layers[0].attention.out_proj.weight.detach()
    assert (averaged - soup).norm() > 0.1 * (soup - weight).norm()


def test_adapter_of_another_base_is_refused(
    write: Write, tiny_model: RoadworkForImageClassification, tiny_config: RoadworkConfig, tmp_path: Path
) -> None:
    write()
    torch.manual_seed(7)
    other = RoadworkForImageClassification(tiny_config)
    with pytest.raises(ValueError, match=r"fold0 is an adapter of another base: it was trained on 'tiny' with"):
        load_adapters(other, tmp_path / "adapters")
    with torch.no_grad():  # a backbone of other weights is another base as well
        next(tiny_model.backbone.parameters()).add_(1e-3)
    with pytest.raises(ValueError, match="an adapter of another base"):
        load_adapters(tiny_model, tmp_path / "adapters")


def test_folders_that_cannot_be_used_are_named(
    write: Write, tiny_model: RoadworkForImageClassification, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"nowhere holds no adapter folders fold0"):
        load_adapters(tiny_model, tmp_path / "nowhere")
    write()
    with pytest.raises(ValueError, match=r"fold='fold7' is not among the adapters \['fold0', 'fold1'\]"):
        merge(tiny_model, tmp_path / "adapters", "fold7")
    wearing = load_adapters(tiny_model, tmp_path / "adapters")
    with pytest.raises(ValueError, match="wears an adapter already"):
        load_adapters(wearing.get_base_model(), tmp_path / "adapters")
    take_off(wearing)
    (tmp_path / "adapters/fold1/base.json").unlink()
    with pytest.raises(ValueError, match=r"fold1 has no base.json"):
        load_adapters(tiny_model, tmp_path / "adapters")


def test_folders_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("fold10", "fold2", "fold0", "folder", ".fold3.part"):
        (tmp_path / name).mkdir()
    assert list(adapter_folders(tmp_path)) == ["fold0", "fold2", "fold10"]


def test_folder_is_peft_s_and_names_the_base_only(
    write: Write, tiny_model: RoadworkForImageClassification, tmp_path: Path
) -> None:
    expected, folder = write(), tmp_path / "adapters" / "fold0"
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    }
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny" and config["use_dora"] and config["inference_mode"]
    assert json.loads((folder / "base.json").read_text())["sha256"] == identify(tiny_model, "").sha256
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in folder.iterdir())
    with quiet_peft():
        alone = PeftModel.from_pretrained(tiny_model, str(folder))
    assert torch.equal(logits(alone), expected["fold0"])


@pytest.mark.parametrize(("classifier", "limit"), [(False, 2**20), (True, 1.5 * 2**20)])
def test_adapter_is_small_at_the_plan_s_sizes(
    tiny_config: RoadworkConfig, tmp_path: Path, classifier: bool, limit: float
) -> None:
    sizes = {"hidden_size": 512, "num_attention_heads": 8, "num_attention_layers": 4}
    model = RoadworkForImageClassification(RoadworkConfig(**tiny_config.to_dict() | sizes))
    settings, base = AdapterSettings(train_classifier=classifier), identify(model, "plan")
    with adapted(model, adapter_config(model, "dora", settings, total_steps=1)) as wearing:
        write_adapter(wearing, tmp_path / "fold0", base)
        with pytest.raises(ValueError, match="wears an adapter already"):
            identify(model, "plan")
    assert sum(path.stat().st_size for path in (tmp_path / "fold0").iterdir()) <= limit


def test_writing_again_gives_the_same_bytes(write: Write, tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        torch.manual_seed(0)
        write(classifier=True)
        contents.append({path: path.read_bytes() for path in (tmp_path / "adapters").rglob("*") if path.is_file()})
    assert contents[0] == contents[1]


def test_weight_change_is_that_of_the_merged_weights(tiny_model: RoadworkForImageClassification) -> None:
    settings = AdapterSettings(kind="lora", rank=2, train_classifier=True)
    with quiet_peft():
        wearing = get_peft_model(tiny_model, adapter_config(tiny_model, "lora", settings, total_steps=1))
    assert weight_changes(wearing)[0] == 0.0
    move(wearing, 0)
    change, by_layer = weight_changes(wearing)
    layers = {name: (after, before) for name, after, before in layer_weights(wearing) if name.endswith(".weight")}
    adapted_layers = [pair for name, pair in layers.items() if name.startswith("attention_layers.")]
    part = wearing.get_base_model().attention_layers[0].attention.out_proj
    update = part.scaling["default"] * part.lora_B["default"].weight @ part.lora_A["default"].weight
    name = "attention_layers.0.attention.out_proj.weight"
    assert by_layer[name] == pytest.approx((update.norm() / layers[name][1].norm()).item(), rel=1e-4)
    squares = [(after - before).square().sum() for after, before in adapted_layers]
    whole = torch.stack(squares).sum() / torch.stack([before.square().sum() for _, before in adapted_layers]).sum()
    assert change == pytest.approx(whole.sqrt().item(), rel=1e-4)
    assert by_layer["classifier.hidden.weight"] > 0
