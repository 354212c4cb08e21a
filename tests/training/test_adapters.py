"""Adapters on a model: kinds, layers, counts, and that a base comes out as it went in."""

from collections.abc import Iterator

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    ConvNextConfig,
    Dinov2Config,
    DINOv3ViTConfig,
    PreTrainedConfig,
    SiglipVisionConfig,
    TimmWrapperConfig,
    TimmWrapperModel,
)

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.training.adapter_trainer import orthogonality
from natix_roadwork.training.adapters import (
    KINDS,
    AdapterSettings,
    adapted,
    adapter_config,
    attention_projections,
    choose_adapter,
    quiet_peft,
    set_dropout,
    target_pattern,
)
from natix_roadwork.training.four_bit import four_bit_config, quantize_backbone
from tests.training_rows import weights


WITHOUT_EXTRA = [kind for kind in KINDS if kind != "qlora"]
SMALL = AdapterSettings(rank=2)


@pytest.fixture(scope="module")
def planned() -> Iterator[RoadworkForImageClassification]:
    """The plan's head, 512 wide with four layers, on a tiny backbone."""
    backbone = DINOv3ViTConfig(
        hidden_size=16,
        image_size=32,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=1,
        patch_size=16,
    )
    sizes = {"hidden_size": 512, "num_attention_heads": 8, "num_attention_layers": 4}
    yield RoadworkForImageClassification(RoadworkConfig(backbone_config=backbone, view_size=32, **sizes))


def wear(model: RoadworkForImageClassification, settings: AdapterSettings) -> PeftModel:
    with quiet_peft():
        return get_peft_model(model, adapter_config(model, settings.kind, settings, total_steps=10))


def pixels(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 12, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("kind", "classifier", "expected"),
    [
        ("lora", False, 4 * 16 * (512 + 1536 + 512 + 512)),
        ("dora", False, 4 * 16 * (512 + 1536 + 512 + 512) + 4 * (1536 + 512)),
        ("dora", True, 204_800 + 512 * 256 + 256 + 256 * 2 + 2),
        ("vera", False, 4 * (256 + 1536 + 256 + 512)),
        ("ia3", False, 4 * (1536 + 512)),
    ],
)
def test_trainable_parameters_are_counted(
    planned: RoadworkForImageClassification, kind: str, classifier: bool, expected: int
) -> None:
    choice = choose_adapter(planned, AdapterSettings(kind=kind, train_classifier=classifier))
    assert (choice.kind, choice.trainable, choice.reason) == (kind, expected, "as asked for")


def test_auto_takes_the_first_kind_within_the_budget(planned: RoadworkForImageClassification) -> None:
    chosen = {
        budget: choose_adapter(planned, AdapterSettings(kind="auto", parameter_budget=budget))
        for budget in (300_000, 20_000, 9_000)
    }
    assert [choice.kind for choice in chosen.values()] == ["dora", "vera", "ia3"]
    assert "dora 204,800, vera 10,240" in chosen[20_000].reason
    with pytest.raises(ValueError, match=r"parameter_budget=10 is below every kind \(dora 204,800"):
        choose_adapter(planned, AdapterSettings(kind="auto", parameter_budget=10))


@pytest.mark.parametrize(
    ("billions", "kind"), [(0.9, "lora"), (4.0, "adalora"), (31.9, "adalora"), (32.0, "vera"), (70.0, "ia3")]
)
def test_plan_tree_goes_by_the_size_of_the_model(
    tiny_model: RoadworkForImageClassification, billions: float, kind: str
) -> None:
    with torch.device("meta"):  # counted, but nowhere in memory
        tiny_model.pad = nn.Parameter(torch.empty(int(billions * 1e9)), requires_grad=False)
    choice = choose_adapter(tiny_model, AdapterSettings(kind="plan_tree", rank=2))
    assert choice.kind == kind and "the plan's tree" in choice.reason


def test_unknown_kind_is_named(tiny_model: RoadworkForImageClassification) -> None:
    with pytest.raises(ValueError, match=r"adapter='doraa' is unknown; choose one of dora, lora"):
        choose_adapter(tiny_model, AdapterSettings(kind="doraa"))


@pytest.mark.parametrize("kind", WITHOUT_EXTRA)
@torch.no_grad()
def test_base_comes_out_as_it_went_in(tiny_model: RoadworkForImageClassification, kind: str) -> None:
    before, expected = weights(tiny_model), tiny_model(pixel_values=pixels()).logits
    settings = AdapterSettings(kind=kind, rank=2, train_classifier=True)
    with adapted(tiny_model, adapter_config(tiny_model, kind, settings, total_steps=10)) as wearing:
        for weight in wearing.parameters():
            if weight.requires_grad:
                weight.add_(0.5)
        assert not torch.allclose(wearing.eval()(pixel_values=pixels()).logits, expected)
    after = weights(tiny_model)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(tiny_model.eval()(pixel_values=pixels()).logits, expected)


def test_only_the_gated_attention_is_adapted(tiny_model: RoadworkForImageClassification) -> None:
    trained = [name for name, weight in wear(tiny_model, SMALL).named_parameters() if weight.requires_grad]
    layers = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in trained}
    assert layers == {f"attention_layers.{i}.attention.{name}" for i in (0, 1) for name in ("qkv_proj", "out_proj")}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DINOv3ViTConfig, ["q_proj", "k_proj", "v_proj", "o_proj"]),
        (Dinov2Config, ["q_proj", "k_proj", "v_proj", "o_proj"]),
        (CLIPVisionConfig, ["k_proj", "v_proj", "q_proj", "out_proj"]),
        (SiglipVisionConfig, ["k_proj", "v_proj", "q_proj", "out_proj"]),
    ],
)
def test_attention_of_any_backbone_is_found(config: type[PreTrainedConfig], expected: list[str]) -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 16}
    backbone = AutoModel.from_config(config(**sizes, image_size=32, patch_size=16))
    names = attention_projections(backbone, 2)
    assert sorted(name.rsplit(".", 1)[-1] for name in names[: len(names) // 2]) == sorted(expected)
    assert len(names) == 2 * len(expected) and all(".1." in name or ".2." in name for name in names)


def test_attention_of_a_timm_backbone_is_found() -> None:
    arguments = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
    config = TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=arguments, do_pooling=False)
    names = attention_projections(TimmWrapperModel(config), 1)
    assert [name.split("blocks.")[1] for name in names] == ["1.attn.qkv", "1.attn.proj"]


def test_backbone_without_attention_is_refused(tiny_model: RoadworkForImageClassification) -> None:
    with pytest.raises(
        ValueError, match=r"backbone_blocks=3, but DINOv3ViTModel has 2 attention blocks; set it to at"
    ):
        target_pattern(tiny_model, 3)
    convolutional = AutoModel.from_config(ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4))
    with pytest.raises(ValueError, match=r"has 0 attention blocks.*convolutional"):
        attention_projections(convolutional, 1)


def test_gradient_reaches_the_last_backbone_blocks_only(tiny_model: RoadworkForImageClassification) -> None:
    """Blocks before the adapted ones build no graph, and in training the backbone answers as in evaluation."""
    model = wear(tiny_model, AdapterSettings(kind="lora", rank=2, backbone_blocks=1, dropout=0.5)).train()
    backbone = model.get_base_model().backbone
    outputs: dict[int, torch.Tensor] = {}
    for number, block in enumerate(backbone.model.layer):
        block.register_forward_hook(lambda _, __, output, number=number: outputs.update({number: output}))
    model(pixel_values=pixels(), labels=torch.tensor([0, 1])).loss.backward()
    assert [outputs[number].grad_fn is not None for number in (0, 1)] == [False, True]
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None and "lora_B" in name}
    assert {name.split("backbone.")[1].split(".")[2] for name in reached if "backbone." in name} == {"1"}
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == {
        name for name, weight in model.named_parameters() if weight.requires_grad
    }
    assert not any(part.training for part in backbone.modules()), "positions would be jittered"
    tokens = [model.get_base_model().extract_tokens(pixels()) for _ in range(2)]
    assert torch.equal(*tokens)


def test_dropout_of_the_head_is_set(tiny_model: RoadworkForImageClassification) -> None:
    set_dropout(tiny_model, 0.37)
    head = {p.p for n, p in tiny_model.named_modules() if isinstance(p, nn.Dropout) and not n.startswith("backbone.")}
    assert head == {0.37} and tiny_model.config.dropout == 0.37
    assert 0.37 not in {part.p for part in tiny_model.backbone.modules() if isinstance(part, nn.Dropout)}


def test_adalora_ranks_fit_the_steps(tiny_model: RoadworkForImageClassification) -> None:
    for steps in (1, 2, 7, 500):
        config = adapter_config(tiny_model, "adalora", AdapterSettings(rank=8), total_steps=steps)
        assert config.total_step == steps and config.tinit < steps - config.tfinal
        assert (config.init_r, config.target_r) == (12, 8)


def test_orthogonality_is_that_of_peft(tiny_model: RoadworkForImageClassification) -> None:
    """peft adds it in `AdaLoraModel.forward`, which a plain `PeftModel` does not call."""
    model = wear(tiny_model, AdapterSettings(kind="adalora", rank=2)).eval()
    labels = torch.tensor([0, 1])
    plain = model(pixel_values=pixels(), labels=labels).loss
    with_penalty = model.base_model(pixel_values=pixels(), labels=labels).loss
    weight = model.peft_config["default"].orth_reg_weight
    assert weight * orthogonality(model).item() == pytest.approx((with_penalty - plain).item(), rel=1e-4)


def test_rslora_scales_by_the_root_of_the_rank(tiny_model: RoadworkForImageClassification) -> None:
    settings = AdapterSettings(rank=16)
    scales = {}
    for kind in ("lora", "rslora"):
        config = adapter_config(tiny_model, kind, settings, total_steps=1)
        assert isinstance(config, LoraConfig)
        with adapted(tiny_model, config) as wearing:
            scales[kind] = wearing.get_base_model().attention_layers[0].attention.qkv_proj.scaling["default"]
    assert scales == {"lora": 2.0, "rslora": 8.0}


def test_qlora_keeps_four_bit_normal_floats() -> None:
    config = four_bit_config()
    assert config.load_in_4bit and config.bnb_4bit_use_double_quant and config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_compute_dtype == torch.bfloat16 and config.quantization_method() == "nf4"


def test_qlora_without_bitsandbytes_is_an_error_that_says_so(
    tiny_model: RoadworkForImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natix_roadwork.training.four_bit.is_bitsandbytes_available", lambda: False)
    settings = AdapterSettings(kind="qlora", rank=2, backbone_blocks=1)
    for use in (lambda: choose_adapter(tiny_model, settings), lambda: quantize_backbone(tiny_model)):
        with pytest.raises(ImportError, match=r"needs bitsandbytes: pip install 'natix-roadwork\[qlora\]'"):
            use()
