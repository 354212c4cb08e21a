"""Saving and loading around a frozen backbone.

The backbone's weights are large, frozen and often not ours to redistribute. So a checkpoint may leave them out, name
them by Hub id and hash, and fetch them when it is loaded.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from torch import Tensor
from transformers import BaseImageProcessor
from transformers.utils import cached_file, extract_commit_hash

from .backbone import freeze, hash_weights, is_frozen, load_backbone
from .configuration_roadwork import RoadworkConfig


HUB_OPTIONS = ("cache_dir", "token", "local_files_only")
AUTO_MAP = {
    "AutoConfig": "configuration_roadwork.RoadworkConfig",
    "AutoModel": "modeling_roadwork.RoadworkModel",
    "AutoModelForImageClassification": "modeling_roadwork.RoadworkForImageClassification",
}


def is_hub_id(backbone_id: str | None) -> bool:
    """Whether an id names a Hub repository: `name` or `owner/name`, and no folder of that name lies here."""
    if backbone_id is None or os.path.isdir(backbone_id):
        return False
    return re.fullmatch(r"\w[\w\-.]*(/\w[\w\-.]*)?", backbone_id) is not None


def check_image_processor(config: RoadworkConfig, settings: Mapping[str, Any]) -> None:
    """Refuses an image processor whose views are not those the model reads.

    Args:
        config: The model's config.
        settings: The processor's settings, as in its `settings()` or its saved JSON; what it lacks is not compared.

    Raises:
        ValueError: `image_mean`, `image_std` or `view_size` differ.
    """
    for name in ("image_mean", "image_std", "view_size"):
        expected = getattr(config, name)
        if settings.get(name, expected) != expected:
            raise ValueError(
                f"The image processor has {name}={settings[name]!r}, but the model's config has {expected!r}; the "
                f"model would read wrong pixels. Give both the same {name}."
            )


class FrozenBackboneCheckpoint:
    """Mixin for a `PreTrainedModel` with a frozen `backbone` and a `RoadworkConfig`."""

    @classmethod
    def from_backbone(
        cls,
        backbone_id: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **config: Any,
    ) -> Self:
        """Builds an untrained head on a pretrained backbone.

        Args:
            backbone_id: Hub id, or a folder that `AutoModel` loads.
            revision: Branch, tag or commit on the Hub; the commit found is kept in the config.
            cache_dir: Where the Hub's files are cached.
            token: Hub token.
            local_files_only: Use the cache only.
            config: Fields of `RoadworkConfig`.

        Raises:
            ValueError: A config field is unknown or does not fit.
        """
        _refuse_unknown_fields(config)
        if os.path.isdir(backbone_id):
            backbone_id = os.path.abspath(backbone_id)  # never to be taken for a Hub id, whatever the folder of a save
        hub_options = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
        commit = _resolve_commit(str(backbone_id), revision, hub_options)
        backbone = load_backbone(str(backbone_id), revision=commit, **hub_options)
        timm_model = getattr(backbone, "timm_model", None)
        if timm_model is not None:  # the config of a timm backbone may lack its width
            config.setdefault("feature_dim", timm_model.num_features)
        resolved = RoadworkConfig(
            backbone_config=backbone.config,
            backbone_id=str(backbone_id),
            backbone_revision=commit,
            backbone_sha256=hash_weights(backbone),
            **config,
        )
        return cls(resolved, backbone=backbone)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Self:
        """Loads a checkpoint, and its backbone by `backbone_id` when the checkpoint leaves it out.

        Takes what `PreTrainedModel.from_pretrained` takes; `cache_dir`, `token` and `local_files_only` also hold for
        the backbone. `backbone_id=...` names another place of the same weights.

        Raises:
            ValueError: The backbone is left out and no id is known, or the weights have another hash; or the image
                processor beside the weights does not fit, see `check_image_processor`.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        hub_options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        _check_saved_processor(model.config, pretrained_model_name_or_path, kwargs)
        # The keys decide as well: a config given by the caller need not know how the checkpoint was saved.
        if not model.config.backbone_in_checkpoint or any(_is_of_backbone(key) for key in info["missing_keys"]):
            model._fetch_backbone(str(pretrained_model_name_or_path), hub_options)
        freeze(model.backbone)  # loading makes new parameters, which want gradients and lose their memory format
        return (model, info) if wants_info else model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        *args: Any,
        include_backbone: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves weights, config and the custom code.

        Args:
            save_directory: Folder to write.
            is_main_process: As for `PreTrainedModel.save_pretrained`.
            state_dict: Tensors to save; None: those of the model.
            args: As for `PreTrainedModel.save_pretrained`.
            include_backbone: Whether the backbone's weights are written. None: unless they can be fetched again,
                frozen ones from a Hub id.
            kwargs: As for `PreTrainedModel.save_pretrained`.
        """
        if include_backbone is None:
            include_backbone = not (is_hub_id(self.config.backbone_id) and is_frozen(self.backbone))
        if state_dict is None:
            state_dict = self.state_dict()
        with self._published_config(include_backbone, state_dict):
            super().save_pretrained(save_directory, is_main_process, state_dict, *args, **kwargs)

    def backbone_hash(self) -> str:
        """The hash that `backbone_sha256` must equal, see `backbone.hash_weights`."""
        return hash_weights(self.backbone)

    @contextmanager
    def _published_config(self, include_backbone: bool, keys: Iterable[str]) -> Iterator[None]:
        """Gives the config, for the time of a save, what a stranger may read: no local path, the code's names."""
        config, kept = self.config, dict(self.config.__dict__)
        ignored = self._keys_to_ignore_on_save
        config.auto_map = dict(AUTO_MAP)
        config.backbone_in_checkpoint = include_backbone
        if config.backbone_sha256 is None:
            config.backbone_sha256 = self.backbone_hash()
        if not is_hub_id(config.backbone_id):
            config.backbone_id = None
        backbone_keys = set() if include_backbone else {key for key in keys if _is_of_backbone(key)}
        self._keys_to_ignore_on_save = set(ignored or ()) | backbone_keys
        try:
            yield
        finally:
            self._keys_to_ignore_on_save = ignored
            # transformers notes dtype and architectures on the config while saving; those stay.
            config.backbone_in_checkpoint, config.backbone_id = kept["backbone_in_checkpoint"], kept["backbone_id"]
            if "auto_map" in kept:
                config.auto_map = kept["auto_map"]
            else:
                del config.auto_map

    def _leave_backbone_out_of_checks(self) -> None:
        """Lets a checkpoint without a backbone load without a report of missing keys: they are fetched afterwards."""
        if not self.config.backbone_in_checkpoint:
            self._keys_to_ignore_on_load_missing = {r"^backbone\."}

    def _fetch_backbone(self, checkpoint: str, hub_options: dict[str, Any]) -> None:
        backbone_id = self.config.backbone_id
        if backbone_id is None:
            raise ValueError(
                f"{checkpoint!r} was saved without its backbone and names no backbone_id. Give the backbone it was "
                "trained on: from_pretrained(..., backbone_id=FOLDER_OR_HUB_ID)."
            )
        loaded = load_backbone(
            backbone_id,
            revision=self.config.backbone_revision if is_hub_id(backbone_id) else None,
            expected_sha256=self.config.backbone_sha256,
            **hub_options,
        )
        if any(parameter.is_meta for parameter in self.backbone.parameters()):
            raise ValueError(
                f"{checkpoint!r} was saved without its backbone, which cannot be fetched into offloaded layers. "
                "Load it with a device_map that keeps the backbone on one device."
            )
        self.backbone.load_state_dict(loaded.state_dict())
        # A backbone in the model now makes the next save decide anew.
        self.config.backbone_in_checkpoint = True


def _is_of_backbone(key: str) -> bool:
    return key.startswith("backbone.")


def _resolve_commit(backbone_id: str, revision: str | None, hub_options: dict[str, Any]) -> str | None:
    """Commit id that a branch or tag of a Hub repository stands for; None for a folder."""
    if not is_hub_id(backbone_id):
        return None
    return extract_commit_hash(cached_file(backbone_id, "config.json", revision=revision, **hub_options), None)


def _refuse_unknown_fields(config: Mapping[str, Any]) -> None:
    known = RoadworkConfig().__dict__
    for name, value in config.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "."
            raise ValueError(f"RoadworkConfig has no field {name} (value {value!r}){hint}")


def _check_saved_processor(
    config: RoadworkConfig, checkpoint: str | os.PathLike[str], options: dict[str, Any]
) -> None:
    """Compares the config with the image processor saved beside the weights, when there is one."""
    names = (*HUB_OPTIONS, "revision", "subfolder")
    hub_options = {name: options[name] for name in names if options.get(name) is not None}
    try:
        settings, _ = BaseImageProcessor.get_image_processor_dict(checkpoint, **hub_options)
    except OSError:
        return  # saved without a processor
    check_image_processor(config, settings)
