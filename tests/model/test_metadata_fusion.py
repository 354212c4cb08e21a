import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForImageClassification

from natix_roadwork import RoadworkConfig, RoadworkImageProcessor
from natix_roadwork import RoadworkForImageClassification as Model
from natix_roadwork.model.configuration_roadwork import GPS_ENCODERS, METADATA_FIELDS


Inputs = dict[str, Tensor]
Build = Callable[..., Model]


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(3, 12, 6, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def build(tiny_config: RoadworkConfig) -> Build:
    """Builds a tiny model that reads all metadata and has a weather head."""

    def build_with(**fields: Any) -> Model:
        defaults = {"metadata_fields": list(METADATA_FIELDS), "loss_weights": {"focal": 0.4, "weather": 0.15}}
        torch.manual_seed(0)
        return Model(RoadworkConfig.from_dict(tiny_config.to_dict() | defaults | fields)).eval()

    return build_with


def filled(num_rows: int = 3) -> Inputs:
    """Rows in which every field is there; the first has two weathers, the last an unknown scene."""
    generator = torch.Generator().manual_seed(1)
    gps = torch.tensor([[40.7, -74.0], [34.1, -118.2], [41.9, -87.6]], dtype=torch.float64)
    return {
        "gps": gps[:num_rows],
        "weather_ids": torch.tensor([[0, 3], [1, -1], [6, -1]])[:num_rows],
        "daytime_ids": torch.tensor([[0], [1], [4]])[:num_rows],
        "scene_ids": torch.tensor([[0], [5], [6]])[:num_rows],
        "text_embeddings": torch.randn(num_rows, 384, generator=generator),
    }


def without(inputs: Inputs, rows: list[int], names: list[str] | None = None) -> Inputs:
    """The same with NULL in some rows, in all fields or in those named."""
    changed = {name: values.clone() for name, values in inputs.items()}
    for name in names or changed:
        changed[name][rows] = torch.nan if changed[name].is_floating_point() else -1
    return changed


def encode(model: Model, inputs: Inputs) -> Tensor:
    fields = dict(zip(METADATA_FIELDS, inputs.values(), strict=True))
    return model.metadata_fusion.encoder(fields)


@pytest.mark.parametrize("kind", GPS_ENCODERS)
def test_filled_null_and_mixed_rows_are_704_finite_channels(build: Build, kind: str) -> None:
    model = build(gps_encoder=kind)
    full = encode(model, filled())
    null = encode(model, without(filled(), [0, 1, 2]))
    mixed = encode(model, without(filled(), [1]))
    assert full.shape == null.shape == mixed.shape == (3, 704)
    assert full.isfinite().all() and torch.equal(null, null[:1].expand(3, -1))
    torch.testing.assert_close(mixed, torch.stack([full[0], null[1], full[2]]))


def test_fused_model_has_the_planned_widths(tiny_config: RoadworkConfig) -> None:
    sizes = {"hidden_size": 512, "num_attention_heads": 8, "num_attention_layers": 1}
    fields = {"metadata_fields": list(METADATA_FIELDS), "loss_weights": {"focal": 1.0, "weather": 1.0}}
    with torch.device("meta"):
        model = Model(RoadworkConfig.from_dict(tiny_config.to_dict() | sizes | fields))
    assert model.metadata_fusion.linear.weight.shape == (512, 1216)
    assert model.weather_head.hidden.weight.shape == (256, 512) and model.weather_head.output.weight.shape == (7, 256)


@pytest.mark.parametrize("kind", GPS_ENCODERS)
def test_gradient_reaches_nulls_and_every_other_weight(build: Build, tokens: Tensor, kind: str) -> None:
    model = build(gps_encoder=kind, dropout=0.0, metadata_dropout=0.0, whole_metadata_dropout=0.0).train()
    inputs = without(filled(), [2])
    model(view_features=tokens, labels=torch.tensor([0, 1, 1]), weather_labels=torch.tensor([0, -100, 3]),
          **inputs).loss.backward()  # fmt: skip
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None or not gradient.abs().sum() > 0] == []
    assert all(gradient.isfinite().all() for gradient in trained.values())
    assert sum(name.endswith("null.weight") for name in trained) == 5


@pytest.mark.parametrize("rows", [[], [0, 1, 2], None])
def test_every_weight_takes_part_whatever_is_missing(build: Build, tokens: Tensor, rows: list[int] | None) -> None:
    model = build(metadata_dropout=0.0).train()
    inputs = {} if rows is None else without(filled(), rows)
    unknown = torch.full((3,), -100)
    model(view_features=tokens, labels=torch.tensor([0, 1, 1]), weather_labels=unknown, **inputs).loss.backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None or not gradient.isfinite().all()] == []


def test_order_of_rows_and_of_tags_is_free(build: Build, tokens: Tensor) -> None:
    model, order = build(), torch.tensor([2, 0, 1])
    inputs = without(filled(), [1], ["gps", "text_embeddings"])
    before = model(view_features=tokens, **inputs)
    after = model(view_features=tokens[order], **{name: values[order] for name, values in inputs.items()})
    for name in ("logits", "embedding", "view_logits", "weather_logits"):
        torch.testing.assert_close(after[name], before[name][order])
    swapped = inputs | {"weather_ids": inputs["weather_ids"].flip(1)}
    torch.testing.assert_close(model(view_features=tokens, **swapped).logits, before.logits)


def image_only_twin(model: Model) -> Model:
    """The model without its metadata."""
    config = copy.deepcopy(model.config)
    config.metadata_fields = []
    twin = Model(config).eval()
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("metadata_fusion.")}
    twin.load_state_dict(weights)
    return twin


@pytest.mark.parametrize("residual", [True, False])
def test_call_without_metadata_has_the_bits_of_the_image_only_model(
    build: Build, tokens: Tensor, residual: bool
) -> None:
    model = build(metadata_residual=residual)
    twin = image_only_twin(model)
    assert not [name for name in twin.state_dict() if "metadata" in name]
    bare, expected = model(view_features=tokens), twin(view_features=tokens)
    assert all(torch.equal(bare[name], expected[name]) for name in ("logits", "embedding", "view_logits"))
    assert torch.equal(twin(view_features=tokens, **filled()).logits, expected.logits)  # unread, hence ignored
    null = model(view_features=tokens, **without(filled(), [0, 1, 2]))
    assert not torch.allclose(null.logits, bare.logits)
    assert torch.equal(null.weather_logits, expected.weather_logits)  # from vision alone


def test_field_that_is_not_given_is_missing(build: Build, tokens: Tensor) -> None:
    model, inputs = build(), filled()
    some = {name: inputs[name] for name in ("gps", "scene_ids")}
    rest = without(inputs, [0, 1, 2], ["weather_ids", "daytime_ids", "text_embeddings"])
    torch.testing.assert_close(model(view_features=tokens, **some).logits, model(view_features=tokens, **rest).logits)


@pytest.mark.parametrize(("name", "fields"), [("weather_ids", slice(128, 192)), ("scene_ids", slice(256, 320))])
def test_unknown_tag_is_neither_missing_nor_known(build: Build, name: str, fields: slice) -> None:
    model, inputs = build(), filled(1)
    size = len(model.config.vocabularies[name.removesuffix("_ids")])
    slices = [encode(model, inputs | {name: torch.tensor([[tag, -1]])})[0, fields] for tag in range(-1, size + 1)]
    distances = torch.cdist(torch.stack(slices), torch.stack(slices)) + 99 * torch.eye(size + 2)
    assert distances.min() > 0.1


def test_tags_of_a_list_are_averaged(build: Build) -> None:
    tags = build().metadata_fusion.encoder.fields["weather"].encoder
    rows = tags.table.weight
    torch.testing.assert_close(tags(torch.tensor([[2, -1, 5]]))[0], (rows[2] + rows[5]) / 2)
    assert (rows[-1] == 0).all() and (rows[:-1].abs().sum(1) > 0).all()  # an unknown tag starts at zero


def test_presence_is_told_without_more_width(build: Build) -> None:
    model = build()
    before = encode(model, filled())
    for field in model.metadata_fusion.encoder.fields.values():
        nn.init.normal_(field.presence.weight[1])
    after = encode(model, filled())
    assert before.shape == after.shape
    assert all((before - after)[:, start:stop].abs().sum() > 0 for start, stop in ((0, 128), (128, 192), (320, 704)))
    null = without(filled(), [0, 1, 2])
    torch.testing.assert_close(encode(model, null), encode(build(), null))


def test_subset_of_fields_makes_a_narrower_encoder_in_a_fixed_order(build: Build, tokens: Tensor) -> None:
    model = build(metadata_fields=["scene", "gps"])
    assert model.config.metadata_fields == ["gps", "scene"]
    assert model.metadata_fusion.encoder.width == 192
    assert model(view_features=tokens, gps=filled()["gps"]).logits.isfinite().all()


def test_training_drops_fields_at_the_rate_asked(build: Build) -> None:
    torch.manual_seed(0)
    encoder = build(metadata_fields=["weather"], metadata_dropout=0.3).metadata_fusion.encoder
    known, null = encoder({"weather": torch.tensor([[2], [-1]])})
    drawn = encoder.train()({"weather": torch.full((20_000, 1), 2)})
    shares = [(drawn - row).abs().sum(1).lt(1e-5).float().mean().item() for row in (known, null)]
    assert shares == pytest.approx([0.7, 0.3], abs=0.015)


def test_whole_dropout_trains_the_bypass_and_the_nulls(build: Build) -> None:
    torch.manual_seed(0)
    model = build(metadata_fields=["weather"], metadata_dropout=0.0, whole_metadata_dropout=0.4, dropout=0.0)
    fusion, rows = model.metadata_fusion, 20_000
    embedding, views = torch.randn(1, 16).expand(rows, -1), torch.zeros(rows, 1, 16)
    metadata = {"weather": torch.full((rows, 1), 2)}
    known = fusion(embedding[:1], views[:1], {"weather": metadata["weather"][:1]})[0]
    null = fusion(embedding[:1], views[:1], {"weather": torch.tensor([[-1]])})[0]
    drawn = fusion.train()(embedding, views, metadata)[0]
    shares = [(drawn - row).abs().sum(1).lt(1e-4).float().mean().item() for row in (known, null, embedding[:1])]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.015)


def test_jitter_acts_in_training_only(build: Build) -> None:
    model = build(metadata_fields=["gps"], metadata_dropout=0.0, gps_jitter_km=5.0)
    encoder, fields = model.metadata_fusion.encoder, {"gps": filled()["gps"]}
    assert torch.equal(encoder(fields), encoder(fields))
    encoder.train()
    assert not torch.allclose(encoder(fields), encoder(fields))


def test_weather_term_is_the_cross_entropy_of_known_weather(build: Build, tokens: Tensor) -> None:
    model, labels = build(), torch.tensor([0, 1, 1])
    output = model(view_features=tokens, labels=labels, weather_labels=torch.tensor([2, -100, 5]))
    log_p = output.weather_logits.log_softmax(1)
    torch.testing.assert_close(output.loss_parts["weather"], -(log_p[0, 2] + log_p[2, 5]) / 2)
    assert output.loss_counts["weather"] == 2
    expected = (0.4 * output.loss_parts["focal"] + 0.15 * output.loss_parts["weather"]) / 0.55
    torch.testing.assert_close(output.loss, expected)


def test_weather_term_without_labels_does_not_weigh(build: Build, tokens: Tensor) -> None:
    model, labels = build(), torch.tensor([0, 1, 1])
    for given in ({}, {"weather_labels": torch.full((3,), -100)}):
        output = model(view_features=tokens, labels=labels, **given)
        torch.testing.assert_close(output.loss, output.loss_parts["focal"])
    with pytest.raises(ValueError, match=r"weather term.*label_names"):
        model.train()(view_features=tokens, labels=labels)


def test_without_the_term_there_is_no_weather_head(tiny_model: Model, tokens: Tensor) -> None:
    output = tiny_model(view_features=tokens, labels=torch.tensor([0, 1, 1]), weather_labels=torch.tensor([0, 1, 2]))
    assert tiny_model.weather_head is None and output.weather_logits is None and "weather" not in output.loss_parts


def test_large_photo_with_mixed_metadata_through_the_whole_model(build: Build) -> None:
    model = build(dropout=0.0).train()
    pixels = np.random.default_rng(0).integers(0, 256, (189, 252, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels).resize((4032, 3024))
    views = RoadworkImageProcessor(view_size=32)(photo, return_tensors="pt")
    inputs = without(filled(1), [0], ["daytime_ids", "text_embeddings"])
    output = model(**views, **inputs, labels=torch.tensor([1]), weather_labels=torch.tensor([3]))
    output.loss.backward()
    assert output.logits.isfinite().all() and output.logits.shape == (1, 2)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in trained)


@pytest.mark.parametrize("kind", GPS_ENCODERS)
def test_bfloat16_is_close_to_float32(build: Build, tokens: Tensor, kind: str) -> None:
    model, inputs = build(gps_encoder=kind), without(filled(), [1])
    expected = model(view_features=tokens, **inputs).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model(view_features=tokens, **inputs).logits.float(), expected, atol=5e-2, rtol=0)
    half = model.to(torch.bfloat16)(view_features=tokens, **inputs).logits
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=5e-2, rtol=0)


@pytest.mark.parametrize("cast", [False, True])
def test_bfloat16_trains_on_full_precision_gps(build: Build, tokens: Tensor, cast: bool) -> None:
    model = build(dropout=0.0).train()
    model = model.to(torch.bfloat16) if cast else model
    labels = {"labels": torch.tensor([0, 1, 1]), "weather_labels": torch.tensor([3, -100, 0])}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not cast):
        model(view_features=tokens, **without(filled(), [1]), **labels).loss.backward()
    fields = model.metadata_fusion.encoder.fields
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in fields.parameters())


def test_saved_model_loads_by_both_auto_classes_to_the_same_bits(build: Build, tokens: Tensor, tmp_path: Path) -> None:
    model = build(vocabularies={"weather": ["dry", "wet"], "daytime": ["day"], "scene": ["urban", "rural"]})
    for field in ("weather", "daytime", "scene"):
        nn.init.normal_(model.metadata_fusion.encoder.fields[field].encoder.table.weight)
    model.save_pretrained(tmp_path)
    inputs = filled() | {name: torch.tensor([[0], [1], [-1]]) for name in ("weather_ids", "daytime_ids", "scene_ids")}
    expected = model(view_features=tokens, **inputs)
    for auto_class in (AutoModel, AutoModelForImageClassification):
        loaded, info = auto_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info.values()), info
        assert torch.equal(loaded(view_features=tokens, **inputs).embedding, expected.embedding)
    assert torch.equal(loaded(view_features=tokens, **inputs).logits, expected.logits)
    code = {"metadata_fusion.py", "location_encoders.py", "model_inputs.py", "outputs.py"}
    assert code <= {file.name for file in tmp_path.iterdir()}


def test_checkpoint_from_before_metadata_loads(tiny_model: Model, tokens: Tensor, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    new = {"vocabularies", "gps_encoder", "gps_jitter_km", "metadata_dropout", "whole_metadata_dropout"}
    assert new | {"metadata_residual"} <= written.keys()
    old = {name: value for name, value in written.items() if name not in new | {"metadata_residual"}}
    (tmp_path / "config.json").write_text(json.dumps(old))
    loaded, info = Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert torch.equal(loaded(view_features=tokens).logits, tiny_model(view_features=tokens).logits)
