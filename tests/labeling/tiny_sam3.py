"""SAM 3's real classes at a size that a test can run, its tokenizer made of single letters."""

from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTokenizer,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    Sam3VisionConfig,
    Sam3ViTConfig,
)


NUM_QUERIES = 7
_SMALL = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def save_tiny_sam3(folder: Path) -> Path:
    """Save a SAM 3 of random weights with its processor."""
    tiny_sam3().save_pretrained(folder)
    size, grid = {"height": 112, "width": 112}, {"height": 32, "width": 32}
    Sam3Processor(Sam3ImageProcessor(size=size, mask_size=grid), _tokenizer()).save_pretrained(folder)
    return folder


def tiny_sam3() -> Sam3Model:
    """A SAM 3 of 32 channels whose outputs differ from prompt to prompt and query to query."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Sam3Model(_config()).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def _config() -> Sam3Config:
    backbone = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=112,
        pretrain_image_size=56,
        window_size=4,
        global_attn_indexes=[1],
    )
    text = CLIPTextConfig(
        vocab_size=600,
        bos_token_id=512,
        eos_token_id=513,
        hidden_size=32,
        intermediate_size=64,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    return Sam3Config(
        vision_config=Sam3VisionConfig(
            backbone_config=backbone, fpn_hidden_size=32, backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]]
        ),
        text_config=text,
        geometry_encoder_config=_SMALL,
        detr_encoder_config=_SMALL,
        detr_decoder_config={**_SMALL, "num_queries": NUM_QUERIES},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )


def _tokenizer() -> CLIPTokenizer:
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
