"""Checks and readings of single values that a config holds; `configuration_roadwork.py` calls them."""

import copy
import math

from transformers import CONFIG_MAPPING, PreTrainedConfig


def is_whole(value: object, lowest: int) -> bool:
    """Whether a value is a whole number of at least `lowest`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def is_number(value: object) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_vocabulary(tags: object) -> bool:
    """Whether a value is a list of different words."""
    if not isinstance(tags, list | tuple) or not tags or not all(isinstance(tag, str) and tag for tag in tags):
        return False
    return len(set(tags)) == len(tags)


def read_backbone_config(config: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    """Turns what the user or `config.json` gave into a config object.

    Raises:
        ValueError: transformers has no such model type.
    """
    if isinstance(config, PreTrainedConfig):
        # A copy: a composite config resets the attention of its parts, and a loaded backbone would lose its SDPA.
        config = copy.deepcopy(config)
        config._name_or_path = ""  # may be a local path
        return config
    if config is None:
        # transformers' own default has no register tokens; every published DINOv3 ViT has four.
        return CONFIG_MAPPING["dinov3_vit"](num_register_tokens=4)
    model_type = config.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"RoadworkConfig: backbone_config has model_type={model_type!r}, which transformers lacks.")
    return CONFIG_MAPPING[model_type].from_dict(config)


def read_feature_dim(config: PreTrainedConfig) -> int:
    """Width of a backbone token by the names that vision configs give it.

    Raises:
        ValueError: The config has none of them.
    """
    sizes = getattr(config, "hidden_sizes", None)
    if sizes:
        return sizes[-1]
    for name in ("hidden_size", "num_features"):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    raise ValueError(
        f"RoadworkConfig: feature_dim=None cannot be read from a {config.model_type!r} backbone_config "
        "(no hidden_size, hidden_sizes or num_features); give feature_dim."
    )
