"""Detectors of transformers at a size that a test can run, with random weights."""

import string
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    DFineConfig,
    DFineForObjectDetection,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    HGNetV2Config,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    PreTrainedModel,
    RfDetrConfig,
    RfDetrForInstanceSegmentation,
    RfDetrForObjectDetection,
    RfDetrImageProcessor,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    SwinConfig,
)
from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config


LABELS = {0: "cone", 1: "person", 2: "truck"}
NUM_QUERIES = 8
GROUNDED = {
    "grounding-dino": (GroundingDinoConfig, GroundingDinoForObjectDetection),
    "mm-grounding-dino": (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection),
}
_LABELLED = {"id2label": LABELS, "label2id": {label: number for number, label in LABELS.items()}}
_DETR = {
    "d_model": 16,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "decoder_in_channels": [16, 16, 16],
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [16, 16, 16],
    "num_denoising": 0,
    "num_queries": NUM_QUERIES,
    **_LABELLED,
}


def save_grounded(kind: str, folder: Path) -> Path:
    """Save a tiny detector that is asked in words, one of `GROUNDED`, with its processor."""
    config_class, model_class = GROUNDED[kind]
    config = config_class(
        backbone_config=SwinConfig(
            image_size=64, window_size=4, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], out_indices=[2, 3, 4]
        ),
        text_config=BertConfig(
            vocab_size=1100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        d_model=32,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        decoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        encoder_layers=1,
        max_text_len=64,
        num_queries=NUM_QUERIES,
    )
    _save(model_class, config, folder)
    picture = GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})
    GroundingDinoProcessor(picture, _tokenizer()).save_pretrained(folder)
    return folder


def save_labelled(kind: str, folder: Path) -> Path:
    """Save a tiny detector with `LABELS`: `d_fine`, `rt_detr_v2`, `rf_detr` or `rf_detr_masks`, with its image processor."""
    stages = ["stage2", "stage3", "stage4"]
    if kind == "d_fine":
        _save(DFineForObjectDetection, DFineConfig(backbone_config=_hgnet(), lqe_hidden_dim=8, **_DETR), folder)
    elif kind == "rt_detr_v2":
        backbone = RTDetrResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1] * 4, layer_type="basic", out_features=stages
        )
        _save(RTDetrV2ForObjectDetection, RTDetrV2Config(backbone_config=backbone, **_DETR), folder)
    else:
        _save(RfDetrForObjectDetection if kind == "rf_detr" else RfDetrForInstanceSegmentation, _rf_detr(), folder)
    rf_detr = kind.startswith("rf_detr")
    side = 56 if rf_detr else 64
    (RfDetrImageProcessor if rf_detr else RTDetrImageProcessor)(size={"height": side, "width": side}).save_pretrained(
        folder
    )
    return folder


def _save(model_class: type[PreTrainedModel], config: object, folder: Path) -> None:
    """Save weights that are random and large enough for boxes and scores to differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)


def _hgnet() -> HGNetV2Config:
    return HGNetV2Config(
        depths=[1] * 4,
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        out_features=["stage2", "stage3", "stage4"],
        stage_in_channels=[8, 8, 16, 16],
        stage_mid_channels=[8] * 4,
        stage_num_blocks=[1] * 4,
        stage_numb_of_layers=[1] * 4,
        stage_out_channels=[8, 16, 16, 16],
        stem_channels=[3, 8, 8],
    )


def _rf_detr() -> RfDetrConfig:
    backbone = RfDetrDinov2Config(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=56,
        num_windows=2,
        out_features=["stage2", "stage3"],
    )
    return RfDetrConfig(
        backbone_config=backbone,
        d_model=16,
        decoder_cross_attention_heads=2,
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_self_attention_heads=2,
        group_detr=2,
        intermediate_size=16,
        num_queries=NUM_QUERIES,
        **_LABELLED,
    )


def _tokenizer() -> BertTokenizer:
    """Single letters, with the special tokens where Grounding DINO looks for them: 101, 102, 1012 and 1029."""
    words = [f"[unused{number}]" for number in range(1030)]
    places = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    for number, word in places.items():
        words[number] = word
    words += [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})
