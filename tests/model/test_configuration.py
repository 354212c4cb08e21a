import json
from typing import Any

import pytest
from transformers import ConvNextV2Config, DINOv3ViTConfig, TimmWrapperConfig

from natix_roadwork import RoadworkConfig, RoadworkOutput


BAD_FIELDS = [
    ("num_views", 0),
    ("num_views", True),
    ("keep_views", 0),
    ("view_size", 518),
    ("view_size", -16),
    ("hidden_size", 510),
    ("hidden_size", "512"),
    ("hidden_size", 36),  # not a multiple of the eight heads
    ("evidence_size", 0),
    ("evidence_grid", -1),
    ("num_evidence_queries", 5),
    ("token_dropout", 1.0),
    ("num_attention_layers", -1),
    ("num_attention_heads", 0),
    ("feature_dim", 2.5),
    ("feature_pooling", "max"),
    ("attention_gate", "open"),
    ("dropout", 1.0),
    ("dropout", float("nan")),
    ("label_smoothing", -0.1),
    ("focal_gamma", -1.0),
    ("focal_alpha", [1.0]),
    ("focal_alpha", [1.0, 0.0]),
    ("image_mean", [0.5, 0.5]),
    ("image_mean", [0.5, 0.5, float("inf")]),
    ("image_std", [0.5, 0.5, 0.0]),
    ("wide_views", [-1]),
    ("wide_views", [12]),
    ("loss_weights", {"focal": 0.4, "dice": 0.2}),
    ("loss_weights", {"focal": 0.0}),
    ("loss_weights", {"focal": "much"}),
    ("loss_weights", {"consistency": 0.25}),
    ("metadata_fields", ["auto"]),
    ("metadata_fields", ["weather", "weather"]),
    ("vocabularies", {"weather": ["sunny"], "daytime": ["day"]}),
    ("vocabularies", {"weather": ["sunny", "sunny"], "daytime": ["day"], "scene": ["urban"]}),
    ("vocabularies", {"weather": [], "daytime": ["day"], "scene": ["urban"]}),
    ("vocabularies", ["sunny"]),
    ("gps_encoder", "geoclip"),
    ("gps_jitter_km", -1.0),
    ("metadata_dropout", 1.0),
    ("whole_metadata_dropout", "often"),
    ("id2label", {0: "None", 1: "Roadwork", 2: "Maybe"}),
]


def test_default_config_is_valid_and_names_the_labels() -> None:
    config = RoadworkConfig()
    assert config.id2label == {0: "None", 1: "Roadwork"}
    assert config.label2id == {"None": 0, "Roadwork": 1}
    assert config.num_labels == 2
    assert set(config.loss_weights) == {"focal", "consistency"}
    assert config.metadata_fields == []


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_bad_field_is_named_with_its_value(field: str, value: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError) as error:
        RoadworkConfig(**{field: value})
    assert field in str(error.value)
    if field != "wide_views":  # indices beyond the views are taken out before the check for none left
        assert repr(value) in str(error.value)


def test_keep_views_is_lowered_to_the_number_of_views() -> None:
    config = RoadworkConfig(num_views=3, keep_views=8)
    assert config.keep_views == 3
    assert config.wide_views == [0]


def test_view_size_error_names_the_patch_and_a_size_that_fits() -> None:
    with pytest.raises(ValueError, match=r"view_size=518.*16 pixels.*512"):
        RoadworkConfig(view_size=518)
    assert RoadworkConfig(backbone_config={"model_type": "dinov2", "patch_size": 14}, view_size=518).view_size == 518


@pytest.mark.parametrize(
    ("backbone_config", "width"),
    [
        (DINOv3ViTConfig(hidden_size=64), 64),
        (ConvNextV2Config(hidden_sizes=[8, 16, 32, 64]), 64),
        (TimmWrapperConfig(architecture="tf_efficientnet_lite0", num_features=1280), 1280),
        ({"model_type": "vit", "hidden_size": 32}, 32),
    ],
)
def test_feature_dim_follows_from_the_backbone(backbone_config: Any, width: int) -> None:  # noqa: ANN401
    assert RoadworkConfig(backbone_config=backbone_config).feature_dim == width


def test_backbone_without_a_width_needs_feature_dim() -> None:
    backbone = TimmWrapperConfig(architecture="vit_huge_plus_patch16_dinov3")
    with pytest.raises(ValueError, match=r"feature_dim=None.*timm_wrapper"):
        RoadworkConfig(backbone_config=backbone)
    assert RoadworkConfig(backbone_config=backbone, feature_dim=1280).feature_dim == 1280


def test_unknown_backbone_type_is_named() -> None:
    with pytest.raises(ValueError, match="model_type='no_such_model'"):
        RoadworkConfig(backbone_config={"model_type": "no_such_model"})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pyramid": False},
        {"num_views": 1, "loss_weights": {"focal": 1.0}, "focal_alpha": [0.3, 0.7]},
        {
            "backbone_config": TimmWrapperConfig(
                architecture="vit_huge_plus_patch16_dinov3", model_args={"embed_dim": 32}
            ),
            "feature_dim": 32,
        },
    ],
)
def test_json_round_trip_gives_an_equal_config(fields: dict[str, Any]) -> None:
    config = RoadworkConfig(backbone_id="acme/backbone", backbone_revision="abc", **fields)
    again = RoadworkConfig.from_dict(json.loads(config.to_json_string()))
    assert again.to_dict() == config.to_dict()
    assert type(again.backbone_config) is type(config.backbone_config)


def test_only_logits_count_as_predictions(tiny_config: RoadworkConfig) -> None:
    outputs = set(RoadworkOutput.__dataclass_fields__)
    assert outputs - set(tiny_config.keys_to_ignore_at_inference) == {"loss", "logits"}
