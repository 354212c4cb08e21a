import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModel, DINOv3ViTConfig, TimmWrapperConfig

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor, RoadworkModel
from natix_roadwork.model.backbone import hash_weights
from natix_roadwork.model.checkpoint import check_image_processor, is_hub_id


COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_ID = "acme/tiny-dinov3"
HEAD = {"view_size": 32, "evidence_grid": 2, "evidence_size": 8, "hidden_size": 16, "num_attention_heads": 2}
Model = RoadworkForImageClassification


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (2, 12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))


def save_backbone(config: Any, folder: Path, seed: int = 0) -> Path:  # noqa: ANN401
    torch.manual_seed(seed)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def backbone_folder(tiny_backbone_config: DINOv3ViTConfig, tmp_path: Path) -> Path:
    return save_backbone(tiny_backbone_config, tmp_path / "backbone")


@pytest.fixture
def hub_cache(backbone_folder: Path, tmp_path: Path) -> Path:
    """The Hub's cache as it is after a download of `HUB_ID`."""
    cache = tmp_path / "hub"
    repository = cache / f"models--{HUB_ID.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(backbone_folder.iterdir())):
        shutil.copy(file, repository / "blobs" / f"blob{number}")
        os.symlink(repository / "blobs" / f"blob{number}", snapshot / file.name)
    return cache


@pytest.fixture
def model(hub_cache: Path) -> Model:
    torch.manual_seed(1)
    return Model.from_backbone(HUB_ID, cache_dir=hub_cache, **HEAD).eval()


def saved_names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def config_json(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    "config",
    [
        DINOv3ViTConfig(
            hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=1, num_register_tokens=4
        ),
        TimmWrapperConfig(
            architecture="vit_huge_plus_patch16_dinov3",
            model_args={"embed_dim": 16, "depth": 1, "num_heads": 2},
        ),
        TimmWrapperConfig(architecture="tf_efficientnet_lite0"),
    ],
    ids=["dinov3", "timm_vit", "timm_cnn"],
)
def test_from_backbone_keeps_the_pretrained_weights(config: Any, tmp_path: Path) -> None:  # noqa: ANN401
    folder = save_backbone(config, tmp_path / "backbone")
    expected = hash_weights(AutoModel.from_pretrained(folder))
    model = Model.from_backbone(folder, **HEAD)
    assert model.backbone_hash() == model.config.backbone_sha256 == expected
    model.save_pretrained(tmp_path / "saved")
    assert Model.from_pretrained(tmp_path / "saved").backbone_hash() == expected


def test_from_backbone_notes_where_the_weights_are(model: Model) -> None:
    assert model.config.backbone_id == HUB_ID
    assert model.config.backbone_revision == COMMIT


def test_pretrained_backbone_keeps_its_fast_attention(model: Model) -> None:
    assert model.backbone.config._attn_implementation == "sdpa"


def test_unknown_field_is_refused_with_the_nearest_name(backbone_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no field keep_view \(value 4\); did you mean keep_views"):
        Model.from_backbone(backbone_folder, keep_view=4)


@pytest.mark.parametrize("include_backbone", [True, False, None])
def test_backbone_is_in_the_file_as_asked(model: Model, tmp_path: Path, include_backbone: bool | None) -> None:
    model.save_pretrained(tmp_path / "saved", include_backbone=include_backbone)
    inside = any(name.startswith("backbone.") for name in saved_names(tmp_path / "saved"))
    assert inside == bool(include_backbone)  # by default a Hub id is enough
    assert config_json(tmp_path / "saved")["backbone_in_checkpoint"] == inside
    assert any(name.startswith("classifier.") for name in saved_names(tmp_path / "saved"))


def test_backbone_from_a_folder_is_in_the_file_by_default(backbone_folder: Path, tmp_path: Path) -> None:
    Model.from_backbone(backbone_folder, **HEAD).save_pretrained(tmp_path / "saved")
    assert any(name.startswith("backbone.") for name in saved_names(tmp_path / "saved"))


@pytest.mark.parametrize("include_backbone", [True, False])
@pytest.mark.parametrize("model_class", [Model, RoadworkModel])
def test_saved_model_gives_the_same_bits(
    model: Model, hub_cache: Path, tmp_path: Path, pixels: Tensor, include_backbone: bool, model_class: type
) -> None:
    model.save_pretrained(tmp_path / "saved", include_backbone=include_backbone)
    loaded, info = model_class.from_pretrained(tmp_path / "saved", cache_dir=hub_cache, output_loading_info=True)
    assert not any(info.values()), info
    assert not loaded.training
    assert torch.equal(loaded(pixel_values=pixels).embedding, model(pixel_values=pixels).embedding)
    assert not any(parameter.requires_grad for parameter in loaded.backbone.parameters())


def test_left_out_backbone_comes_from_the_hub_cache(
    model: Model, hub_cache: Path, tmp_path: Path, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path / "saved")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    loaded = Model.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded(pixel_values=pixels).logits, model(pixel_values=pixels).logits)


def test_left_out_backbone_may_lie_elsewhere(
    model: Model, backbone_folder: Path, tmp_path: Path, pixels: Tensor
) -> None:
    model.save_pretrained(tmp_path / "saved")
    loaded = Model.from_pretrained(tmp_path / "saved", backbone_id=str(backbone_folder))
    assert torch.equal(loaded(pixel_values=pixels).logits, model(pixel_values=pixels).logits)
    loaded.save_pretrained(tmp_path / "again")  # that place is not on the Hub, so the weights go along
    assert any(name.startswith("backbone.") for name in saved_names(tmp_path / "again"))


def test_wrong_backbone_is_refused(model: Model, tiny_backbone_config: DINOv3ViTConfig, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "saved")
    other = save_backbone(tiny_backbone_config, tmp_path / "other", seed=9)
    found = hash_weights(AutoModel.from_pretrained(other))
    with pytest.raises(ValueError, match=rf"{found}.*{model.config.backbone_sha256}"):
        Model.from_pretrained(tmp_path / "saved", backbone_id=str(other))


def test_left_out_backbone_without_an_id_is_an_error(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path, include_backbone=False)
    with pytest.raises(ValueError, match=r"saved without its backbone.*backbone_id=FOLDER_OR_HUB_ID"):
        Model.from_pretrained(tmp_path)


def test_a_config_of_the_caller_does_not_hide_that_the_backbone_is_missing(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path, include_backbone=False)
    with pytest.raises(ValueError, match="saved without its backbone"):
        Model.from_pretrained(tmp_path, config=tiny_model.config)


def test_no_local_path_is_written(backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = Model.from_backbone("backbone", **HEAD)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # from here "backbone" would look like a Hub id
    model.save_pretrained(tmp_path / "saved")
    written = config_json(tmp_path / "saved")
    assert written.get("backbone_id") is None
    assert str(tmp_path) not in json.dumps(written)
    assert any(name.startswith("backbone.") for name in saved_names(tmp_path / "saved"))


def test_saving_changes_nothing_in_memory(model: Model, tmp_path: Path, pixels: Tensor) -> None:
    model.save_pretrained(tmp_path / "first")  # transformers notes dtype and class name on the config
    config, logits = model.config.to_dict(), model(pixel_values=pixels).logits
    model.save_pretrained(tmp_path / "second", include_backbone=True)
    model.save_pretrained(tmp_path / "third")
    assert model.config.to_dict() == config
    assert model.config.backbone_id == HUB_ID
    assert torch.equal(model(pixel_values=pixels).logits, logits)
    assert (tmp_path / "first/model.safetensors").read_bytes() == (tmp_path / "third/model.safetensors").read_bytes()
    assert config_json(tmp_path / "first") == config_json(tmp_path / "third")


def test_a_loaded_model_saves_again_as_it_was(model: Model, hub_cache: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "first")
    loaded = Model.from_pretrained(tmp_path / "first", cache_dir=hub_cache)
    loaded.save_pretrained(tmp_path / "second")
    assert saved_names(tmp_path / "first") == saved_names(tmp_path / "second")
    assert config_json(tmp_path / "first") == config_json(tmp_path / "second")


@pytest.mark.parametrize("include_backbone", [True, False])
def test_half_precision_load_is_repeatable_and_close(
    model: Model, hub_cache: Path, tmp_path: Path, pixels: Tensor, include_backbone: bool
) -> None:
    model.save_pretrained(tmp_path / "saved", include_backbone=include_backbone)
    first, second = (
        Model.from_pretrained(tmp_path / "saved", cache_dir=hub_cache, dtype=torch.bfloat16) for _ in range(2)
    )
    assert {parameter.dtype for parameter in first.parameters()} == {torch.bfloat16}
    logits = first(pixel_values=pixels).logits
    assert torch.equal(logits, second(pixel_values=pixels).logits)
    torch.testing.assert_close(logits.float(), model(pixel_values=pixels).logits, atol=2e-2, rtol=0)


@pytest.mark.parametrize("include_backbone", [True, False])
def test_device_map_gives_the_same_bits(
    model: Model, hub_cache: Path, tmp_path: Path, pixels: Tensor, include_backbone: bool
) -> None:
    model.save_pretrained(tmp_path / "saved", include_backbone=include_backbone)
    loaded = Model.from_pretrained(tmp_path / "saved", cache_dir=hub_cache, device_map="cpu")
    assert torch.equal(loaded(pixel_values=pixels).logits, model(pixel_values=pixels).logits)


def test_convolutions_are_channels_last_after_loading(tmp_path: Path) -> None:
    folder = save_backbone(TimmWrapperConfig(architecture="tf_efficientnet_lite0"), tmp_path / "backbone")
    Model.from_backbone(folder, **HEAD).save_pretrained(tmp_path / "saved")
    kernels = [weight for weight in Model.from_pretrained(tmp_path / "saved").parameters() if weight.dim() == 4]
    assert kernels and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)


def test_statistics_of_the_standardizer_are_saved(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.standardizer.fit(3 * torch.randn(20, 12, 6, 16) + 1)
    tiny_model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path)
    assert torch.equal(loaded.standardizer.mean, tiny_model.standardizer.mean)
    assert torch.equal(loaded.standardizer.std, tiny_model.standardizer.std)


@pytest.mark.parametrize(
    ("backbone_id", "on_the_hub"),
    [
        ("facebook/dinov3-vith16plus-pretrain-lvd1689m", True),
        ("timm/vit_huge_plus_patch16_dinov3.lvd1689m", True),
        ("gpt2", True),
        ("embedded:efficientnet-lite0", False),
        ("/data/backbone", False),
        ("./backbone", False),
        ("a/b/c", False),
        (None, False),
    ],
)
def test_hub_ids_are_told_from_folders(backbone_id: str | None, on_the_hub: bool) -> None:
    assert is_hub_id(backbone_id) == on_the_hub


def test_an_existing_folder_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme" / "backbone").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("acme/backbone")


@pytest.mark.parametrize(
    ("setting", "value"), [("image_mean", [0.5] * 3), ("image_std", [0.5] * 3), ("view_size", 64)]
)
def test_image_processor_that_disagrees_is_refused_at_load(
    tiny_model: Model,
    tmp_path: Path,
    setting: str,
    value: Any,  # noqa: ANN401
) -> None:
    processor = RoadworkImageProcessor(**({"view_size": 32} | {setting: value}))
    with pytest.raises(ValueError, match=setting):
        check_image_processor(tiny_model.config, processor.settings())
    tiny_model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"image processor has {setting}="):
        Model.from_pretrained(tmp_path)


def test_image_processor_that_agrees_is_accepted(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path)
    RoadworkImageProcessor(view_size=32).save_pretrained(tmp_path)
    assert isinstance(Model.from_pretrained(tmp_path), Model)
