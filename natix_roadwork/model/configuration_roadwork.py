"""Configuration of the roadwork classifier.

Comes in: keyword arguments or a `config.json`. Goes out: a checked `RoadworkConfig`, the only thing the modules of
this room are built from.
"""

import copy
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig

from .config_values import is_number, is_vocabulary, is_whole, read_backbone_config, read_feature_dim


FEATURE_POOLINGS = ("cls", "mean", "cls_mean")
GATES = ("headwise", "elementwise", "none")
LOSS_TERMS = ("focal", "consistency", "weather", "mask")
# What a mask marks, one channel each.
MASK_CLASSES = ("cone", "barrier", "sign", "worker", "vehicle", "equipment")
METADATA_FIELDS = ("gps", "weather", "daytime", "scene", "text")
GPS_ENCODERS = ("sinusoids", "capped", "spherical_harmonics", "wrap")
DEFAULT_VOCABULARIES = {
    "weather": ["sunny", "rainy", "foggy", "cloudy", "clear", "overcast", "snowy"],
    "daytime": ["day", "night", "dawn", "dusk", "light"],
    "scene": ["urban", "highway", "residential", "rural", "industrial", "commercial"],
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class RoadworkConfig(PreTrainedConfig):
    """Everything needed to build a `RoadworkModel`; `RoadworkConfig()` alone is valid.

    Attributes:
        backbone_config: The frozen vision backbone; default a DINOv3 ViT-S/16.
        backbone_id: Hub id of the backbone's weights, for checkpoints that leave them out.
        backbone_revision: Commit id of those weights.
        backbone_sha256: Hash of the weights (see `backbone.hash_weights`), checked when they are loaded by id.
        backbone_in_checkpoint: Whether the checkpoint beside this config holds the backbone's weights.
        feature_dim: Width D of a backbone token; taken from `backbone_config` when None.
        feature_pooling: Pooled tokens of a view: class token, mean of the patch tokens, or both as two tokens.
            A backbone without a class token gives the mean.
        evidence_grid: G; besides the pooled tokens a view has G x G averaged cells of its patch grid. 0 = none.
        num_views: Views V of a photo.
        keep_views: Views K kept by the pruning; lowered to `num_views` when larger.
        view_chunk: Views the backbone runs over at a time, which bounds its memory; None = all of a batch.
        view_size: Side S of a view in pixels, a multiple of the backbone's patch.
        select_views: Views that the backbone runs on, chosen by thumbnails (`view_selection.ViewSelector`); the others
            are masked. None, or a number not below `num_views`, is all of them.
        thumbnail_size: Side of the selection's thumbnails in pixels, a multiple of the backbone's patch.
        wide_views: Indices of the views that see most of the photo; the consistency term compares only these.
        image_mean: Per-channel mean of [0, 1] pixels, the same as the image processor's.
        image_std: Per-channel deviation of [0, 1] pixels, the same as the image processor's.
        hidden_size: Width H after the projection; a multiple of 4 and of `num_attention_heads`.
        evidence_size: Hidden width E of the evidence pooling; even, and a multiple of `num_evidence_queries`.
        num_evidence_queries: Learned queries of the evidence pooling; each pools one slice of E.
        token_dropout: Share in [0, 1) of the tokens that the evidence pooling does not see in a training step.
        pyramid: Whether the projected views pass the multi-scale pyramid before the attention.
        num_attention_layers: Layers of gated attention over the kept views.
        num_attention_heads: Heads of each attention layer.
        attention_gate: One gate a head, one a channel, or none.
        feed_forward: Whether an attention layer ends with a feed-forward block.
        view_positions: Whether each view gets a learned position embedding.
        dropout: Dropout in [0, 1) of the head.
        metadata_fields: Metadata the model reads, some of gps, weather, daytime, scene, text; empty = images only, and
            no module for metadata exists. They are kept in this order.
        vocabularies: Known tags of weather, daytime and scene; the position in its list is a tag's id, and the
            length of the list the id of a tag that is not in it.
        gps_encoder: `capped` (waves of at least 25 km), `sinusoids` (the plan's), `spherical_harmonics`, `wrap`.
        gps_jitter_km: Deviation of the normal steps by which positions move in training, >= 0.
        metadata_dropout: Probability in [0, 1) that a field of a row counts as missing in training.
        whole_metadata_dropout: Share in [0, 1) of the rows that lose all metadata in training, and such a share that lose
            their extra evidence.
        metadata_residual: Whether metadata corrects the embedding, or the fused vector replaces it as in the plan.
        loss_weights: Weight of each loss term; a term that is absent is off, and its head does not exist.
        mask_size: Side m of the masks that a `mask` term decodes from the global view's patch grid, in cells.
        mask_evidence: Whether what the decoded masks show, a number a class, corrects the embedding; needs a `mask` term.
        extra_evidence_size: Width F of evidence from elsewhere, such as a detector's figures; 0 = none is read.
        focal_gamma: Focusing exponent of the focal term, >= 0.
        focal_alpha: Weight of each class in the focal term.
        label_smoothing: Share of the target spread over the classes, in [0, 1).
        initializer_range: Deviation of the normal distribution that new embeddings start from; linear layers start
            from Xavier's uniform one.

    Raises:
        ValueError: A field is out of its range; the message names the field and the value.
    """

    model_type = "natix_roadwork"
    sub_configs: ClassVar[dict[str, Any]] = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None
    backbone_id: str | None = None
    backbone_revision: str | None = None
    backbone_sha256: str | None = None
    backbone_in_checkpoint: bool = True
    feature_dim: int | None = None
    feature_pooling: str = "cls_mean"
    evidence_grid: int = 2
    num_views: int = 12
    keep_views: int = 8
    view_chunk: int | None = None
    view_size: int = 512
    select_views: int | None = None
    thumbnail_size: int = 112
    wide_views: list[int] | tuple[int, ...] = (0, 10, 11)
    image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_STD
    hidden_size: int = 512
    evidence_size: int = 128
    num_evidence_queries: int = 1
    token_dropout: float = 0.0
    pyramid: bool = True
    num_attention_layers: int = 4
    num_attention_heads: int = 8
    attention_gate: str = "headwise"
    feed_forward: bool = True
    view_positions: bool = True
    dropout: float = 0.1
    metadata_fields: list[str] | tuple[str, ...] = ()
    vocabularies: dict[str, list[str]] | None = None
    gps_encoder: str = "capped"
    gps_jitter_km: float = 1.0
    metadata_dropout: float = 0.5
    whole_metadata_dropout: float = 0.2
    metadata_residual: bool = True
    loss_weights: dict[str, float] | None = None
    mask_size: int = 128
    mask_evidence: bool = False
    extra_evidence_size: int = 0
    focal_gamma: float = 2.0
    focal_alpha: list[float] | tuple[float, ...] = (1.0, 1.0)
    label_smoothing: float = 0.1
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills what follows from other fields, then checks every field."""
        self.backbone_config = read_backbone_config(self.backbone_config)
        if self.id2label is None:
            self.id2label = {0: "None", 1: "Roadwork"}
            self.label2id = {"None": 0, "Roadwork": 1}
        if self.loss_weights is None:
            self.loss_weights = {"focal": 0.4, "consistency": 0.25}
        if self.vocabularies is None:
            self.vocabularies = DEFAULT_VOCABULARIES
        self.vocabularies = copy.deepcopy(self.vocabularies)
        if self.feature_dim is None:
            self.feature_dim = read_feature_dim(self.backbone_config)
        for name in ("wide_views", "image_mean", "image_std", "metadata_fields", "focal_alpha"):
            setattr(self, name, list(getattr(self, name)))
        kwargs.pop("keys_to_ignore_at_inference", None)
        super().__post_init__(**kwargs)
        self._check_sizes()
        self.keep_views = min(self.keep_views, self.num_views)
        if self.select_views is not None and self.select_views >= self.num_views:
            self.select_views = None
        self.wide_views = [view for view in self.wide_views if view < self.num_views]
        self._check_choices()
        self._check_metadata()

    @property
    def keys_to_ignore_at_inference(self) -> list[str]:
        """Outputs that are not predictions: everything but `logits`."""
        return [
            "loss_parts",
            "loss_counts",
            "embedding",
            "view_logits",
            "view_indices",
            "view_weights",
            "token_weights",
            "weather_logits",
            "mask_logits",
        ]

    @property
    def has_mask_head(self) -> bool:
        """Whether masks are decoded, from the patch grid of the global view."""
        return "mask" in self.loss_weights

    def _check_sizes(self) -> None:
        for name in ("feature_dim", "num_views", "keep_views", "view_size", "hidden_size", "evidence_size"):
            self._require(is_whole(getattr(self, name), lowest=1), name, "a whole number of at least 1")
        if self.view_chunk is not None:
            self._require(is_whole(self.view_chunk, lowest=1), "view_chunk", "a whole number of at least 1, or None")
        for name in ("num_evidence_queries", "num_attention_heads", "thumbnail_size", "mask_size"):
            self._require(is_whole(getattr(self, name), lowest=1), name, "a whole number of at least 1")
        chosen = self.select_views
        self._require(chosen is None or is_whole(chosen, lowest=1), "select_views", "None or at least 1")
        for name in ("num_attention_layers", "evidence_grid", "extra_evidence_size"):
            self._require(is_whole(getattr(self, name), lowest=0), name, "a whole number of at least 0")
        self._require(
            all(is_whole(view, lowest=0) for view in self.wide_views), "wide_views", "whole numbers of at least 0"
        )
        self._require(self.hidden_size % 4 == 0, "hidden_size", "a multiple of 4 (the pyramid has H, H/2 and H/4)")
        heads = self.num_attention_heads
        self._require(self.hidden_size % heads == 0, "hidden_size", f"a multiple of num_attention_heads={heads}")
        queries = self.num_evidence_queries
        whole = self.evidence_size % 2 == 0 and self.evidence_size % queries == 0
        self._require(whole, "evidence_size", f"even, and a multiple of num_evidence_queries={queries}")
        patch = getattr(self.backbone_config, "patch_size", None)
        checked = ("view_size",) if self.select_views is None else ("view_size", "thumbnail_size")
        for name in checked if isinstance(patch, int) else ():  # of timm's, `backbone.check_view_size` knows the patch
            value = getattr(self, name)
            near = value // patch * patch or patch
            self._require(
                value % patch == 0, name, f"a multiple of the backbone's patch of {patch} pixels, e.g. {near}"
            )

    def _check_choices(self) -> None:
        self._require(self.feature_pooling in FEATURE_POOLINGS, "feature_pooling", f"one of {FEATURE_POOLINGS}")
        self._require(self.attention_gate in GATES, "attention_gate", f"one of {GATES}")
        for name in ("dropout", "token_dropout", "label_smoothing"):
            value = getattr(self, name)
            self._require(is_number(value) and 0 <= value < 1, name, "in [0, 1)")
        self._require(is_number(self.focal_gamma) and self.focal_gamma >= 0, "focal_gamma", "at least 0")
        for name, length in (("image_mean", 3), ("image_std", 3), ("focal_alpha", 2)):
            values = getattr(self, name)
            self._require(
                len(values) == length and all(map(is_number, values)),
                name,
                f"{length} numbers, one for each {'channel' if length == 3 else 'class'}",
            )
        for name in ("image_std", "focal_alpha"):
            self._require(min(getattr(self, name)) > 0, name, "above 0")
        self._require(len(self.id2label) == 2, "id2label", "the names of two labels, none and roadwork")
        self._require(len(self.wide_views) >= 1, "wide_views", "at least one view index below num_views")
        self._require(
            all(name in LOSS_TERMS and is_number(weight) and weight > 0 for name, weight in self.loss_weights.items()),
            "loss_weights",
            f"a positive weight for some of {LOSS_TERMS}",
        )
        self._require("focal" in self.loss_weights, "loss_weights", "with a weight for focal")
        decoded = self.has_mask_head or not self.mask_evidence
        self._require(decoded, "mask_evidence", "False without a weight for mask in loss_weights")

    def _check_metadata(self) -> None:
        fields = self.metadata_fields
        known = all(name in METADATA_FIELDS for name in fields) and len(set(fields)) == len(fields)
        self._require(known, "metadata_fields", f"some of {METADATA_FIELDS}, each once")
        self.metadata_fields = [name for name in METADATA_FIELDS if name in fields]
        wanted = f"lists of different tags under {tuple(DEFAULT_VOCABULARIES)}"
        tables = self.vocabularies
        self._require(isinstance(tables, dict) and set(tables) == set(DEFAULT_VOCABULARIES), "vocabularies", wanted)
        self._require(all(is_vocabulary(tags) for tags in tables.values()), "vocabularies", wanted)
        self._require(self.gps_encoder in GPS_ENCODERS, "gps_encoder", f"one of {GPS_ENCODERS}")
        self._require(is_number(self.gps_jitter_km) and self.gps_jitter_km >= 0, "gps_jitter_km", "at least 0")
        for name in ("metadata_dropout", "whole_metadata_dropout"):
            value = getattr(self, name)
            self._require(is_number(value) and 0 <= value < 1, name, "in [0, 1)")

    def _require(self, holds: bool, name: str, wanted: str) -> None:
        if not holds:
            raise ValueError(f"RoadworkConfig: {name}={getattr(self, name)!r} must be {wanted}.")
