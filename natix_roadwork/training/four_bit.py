"""QLoRA's part: a frozen backbone in 4 bits, so that adapters inside a large one fit into memory.

In comes a model in float32, whose backbone is changed in place. bitsandbytes is an extra; without it nothing here works,
and nothing else needs it.
"""

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.integrations import bitsandbytes as integration
from transformers.utils import is_bitsandbytes_available

from natix_roadwork.model.backbone import freeze


def four_bit_config() -> BitsAndBytesConfig:
    """Return QLoRA's storage: 4-bit NormalFloat with double quantisation, computed in bfloat16.

    Dettmers et al., https://arxiv.org/abs/2305.14314.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def require_bitsandbytes() -> None:
    """Check that 4-bit weights can be had.

    Raises:
        ImportError: If bitsandbytes is not installed.
    """
    if not is_bitsandbytes_available():
        raise ImportError(
            "adapter=qlora keeps the backbone in 4 bits, which needs bitsandbytes: pip install 'natix-roadwork[qlora]', or "
            "choose another adapter"
        )


def quantize_backbone(model: PreTrainedModel) -> None:
    """Bring the linear layers of a model's frozen backbone to 4 bits; the head stays as it is.

    The weights become 4-bit numbers when the model is moved to its device.

    Raises:
        ImportError: If bitsandbytes is not installed.
    """
    require_bitsandbytes()
    config = four_bit_config()
    plain = {name: layer for name, layer in model.backbone.named_modules() if type(layer) is nn.Linear}
    integration.replace_with_bnb_linear(model.backbone, quantization_config=config)
    for name, layer in plain.items():
        new = model.backbone.get_submodule(name)
        new.weight = type(new.weight)(
            layer.weight.data,
            requires_grad=False,
            quant_type=config.bnb_4bit_quant_type,
            compress_statistics=config.bnb_4bit_use_double_quant,
            module=new,
        )
        new.bias = layer.bias
        new.support_avx512bf16_for_cpu = False  # the packed layout of inference on a CPU has no gradient
    model.is_loaded_in_4bit = True  # by which peft knows that these layers need its own 4-bit kind
    freeze(model.backbone)
