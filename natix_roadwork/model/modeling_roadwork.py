"""The roadwork models.

`RoadworkModel` turns a photo's views into one embedding, `RoadworkForImageClassification` adds the classifier::

    pixels (B, V, 3, S, S) -> frozen backbone -> tokens (B, V, T, D) -> standardised -> evidence pooling (B, V, D)
      -> pruning (B, K, D) -> projection, pyramid (B, K, H) -> gated attention (B, K, H) -> view fusion (B, H)
      (+ masks and detectors, + metadata) -> classifier (B, 2)
"""

from typing import Self

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init

from .attention import AttentionGate, GatedAttentionLayer, MultiScalePyramid, ViewProjection
from .backbone import check_view_size, freeze
from .checkpoint import FrozenBackboneCheckpoint
from .configuration_roadwork import RoadworkConfig
from .evidence import EvidencePooling, FeatureStandardizer
from .heads import Classifier, MaskDecoder, class_presence
from .losses import loss_parts, total_loss
from .metadata_fusion import MetadataFusion, TagTable
from .model_inputs import by_field, check_extra, check_grid, warn_of_unread
from .outputs import RoadworkOutput
from .pruning import ViewPruning
from .side_evidence import SideEvidence
from .targets import hidden_from_signature
from .token_extraction import TokenExtraction
from .view_fusion import GatedViewFusion
from .view_selection import ViewSelector


class RoadworkModel(FrozenBackboneCheckpoint, TokenExtraction, PreTrainedModel):
    """Frozen backbone and view fusion: a photo's views in, its embedding out."""

    config: RoadworkConfig
    config_class = RoadworkConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _no_split_modules = ("GatedAttentionLayer",)
    supports_gradient_checkpointing = True
    # A classifier's checkpoint loads into the bare model; its heads are not needed there.
    _keys_to_ignore_on_load_unexpected = (r"^classifier\.", r"^weather_head\.")

    def __init__(self, config: RoadworkConfig, backbone: PreTrainedModel | None = None) -> None:
        """Builds the model; `backbone` keeps its weights and is frozen, without one an untrained one is built."""
        super().__init__(config)
        self.gradient_checkpointing = False
        self.backbone = freeze(AutoModel.from_config(config.backbone_config) if backbone is None else backbone)
        check_view_size(self.backbone, config.view_size)
        self.view_selector = None if config.select_views is None else ViewSelector(config, self.backbone)
        self.standardizer = FeatureStandardizer(config.feature_dim, config.evidence_grid)
        self.evidence_pooling = None
        if config.evidence_grid or config.feature_pooling == "cls_mean":
            self.evidence_pooling = EvidencePooling(
                config.feature_dim, config.evidence_size, config.num_evidence_queries, config.token_dropout
            )
        self.pruning = None
        if config.keep_views < config.num_views:
            self.pruning = ViewPruning(config.feature_dim, config.keep_views)
        self.projection = ViewProjection(
            config.feature_dim, config.hidden_size, config.num_views, config.dropout, config.view_positions
        )
        self.pyramid = MultiScalePyramid(config.hidden_size, config.dropout) if config.pyramid else nn.Identity()
        self.attention_layers = nn.ModuleList(
            GatedAttentionLayer(
                config.hidden_size,
                config.num_attention_heads,
                config.dropout,
                config.attention_gate,
                config.feed_forward,
            )
            for _ in range(config.num_attention_layers)
        )
        self.view_fusion = GatedViewFusion(config.hidden_size, config.num_attention_heads, config.dropout)
        self.mask_decoder = None
        if config.has_mask_head:
            self.mask_decoder = MaskDecoder(config.feature_dim, config.mask_size, config.dropout)
        self.side_evidence = SideEvidence(config) if config.mask_evidence or config.extra_evidence_size else None
        self.metadata_fusion = MetadataFusion(config) if config.metadata_fields else None
        self._add_heads(config)
        self._leave_backbone_out_of_checks()
        self.post_init()

    def _add_heads(self, config: RoadworkConfig) -> None:
        """Adds the heads of a task; the bare model has none."""

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, FeatureStandardizer):
            init.zeros_(module.mean)
            init.ones_(module.std)
        elif isinstance(module, ViewSelector):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, TagTable) and not getattr(module.weight, "_is_hf_initialized", False):
            init.zeros_(module.weight[-1])  # a slice does not know whether the table was loaded
        # transformers calls this only for modules that own tensors, so the gate is a class of its own.
        if isinstance(module, AttentionGate):
            # Nearly open at the start: sigmoid(2) = .88; a gate at .5 would halve every layer.
            init.constant_(module.bias, 2.0)

    def train(self, mode: bool = True) -> Self:
        """Switches the head between training and evaluation; the backbone stays in evaluation."""
        self.training = mode
        for name, child in self.named_children():  # one pass: the trainer calls this in every step
            child.train(mode and name != "backbone")
        return self

    def decode_masks(self, global_grid: Tensor) -> Tensor:
        """Decodes the patch grid of the global view.

        Args:
            global_grid: `(B, h, w, D)` as the backbone gives it.

        Returns:
            `(B, C, m, m)` logits, one mask for each of `MASK_CLASSES`.

        Raises:
            ValueError: The model has no `mask` term.
        """
        if self.mask_decoder is None:
            raise ValueError(f"loss_weights={self.config.loss_weights!r} has no mask term: there is no mask decoder.")
        grid = self.standardizer.of_patches(global_grid).to(self.projection.linear.weight.dtype)
        return self.mask_decoder(grid)

    def _fuse(
        self,
        tokens: Tensor,
        view_mask: Tensor,
        metadata: dict[str, Tensor | None],
        global_grid: Tensor | None,
        extra_evidence: Tensor | None,
    ) -> tuple[RoadworkOutput, Tensor, Tensor, Tensor]:
        """Tokens `(B, V, T, D)`, metadata and other evidence to the embedding.

        Also returns the refined views `(B, K, H)`, their mask `(B, K)` and the embedding `(B, H)` before metadata.
        """
        tokens = self.standardizer(tokens).to(self.projection.linear.weight.dtype)
        token_weights = torch.ones_like(tokens[..., 0])
        views, strength = tokens[:, :, 0], None
        if self.evidence_pooling is not None:
            views, token_weights, strength = self.evidence_pooling(tokens)
        mask = view_mask
        indices = torch.arange(views.shape[1], device=views.device).expand(views.shape[:2])
        if self.pruning is not None and views.shape[1] > self.config.keep_views:
            views, mask, indices = self.pruning(views, view_mask)
            strength = None if strength is None else strength.gather(1, indices)
        hidden = self.pyramid(self.projection(views, indices))  # (B, K, H)
        for layer in self.attention_layers:
            hidden = layer(hidden, mask)
        vision, refined, view_weights = self.view_fusion(hidden, mask, strength)
        embedding = vision
        grid = check_grid(self.config, global_grid, tokens.shape[0]) if self.config.has_mask_head else None
        mask_logits = None if grid is None else self.decode_masks(grid)
        extra = check_extra(self.config, extra_evidence, tokens.shape[0])
        if self.side_evidence is not None:
            presence = class_presence(mask_logits) if self.config.mask_evidence else None
            correction = self.side_evidence(embedding, presence, extra)
            embedding, refined = embedding + correction, refined + correction.unsqueeze(1)
        warn_of_unread(self.config, metadata)
        if self.metadata_fusion is not None:
            embedding, refined = self.metadata_fusion(embedding, refined, metadata)
        output = RoadworkOutput(
            embedding=embedding,
            view_indices=indices,
            view_weights=view_weights,
            token_weights=token_weights,
            mask_logits=mask_logits,
        )
        return output, refined, mask, vision

    def forward(
        self,
        pixel_values: Tensor | None = None,
        view_features: Tensor | None = None,
        view_mask: Tensor | None = None,
        gps: Tensor | None = None,
        weather_ids: Tensor | None = None,
        daytime_ids: Tensor | None = None,
        scene_ids: Tensor | None = None,
        text_embeddings: Tensor | None = None,
        global_grid: Tensor | None = None,
        extra_evidence: Tensor | None = None,
    ) -> RoadworkOutput:
        """Fuses the views of each photo.

        Args:
            pixel_values: `(B, V, 3, S, S)` or `(B, 3, S, S)`, see `extract_tokens`.
            view_features: `(B, V, T, D)` or `(B, V, D)` tokens computed before, instead of `pixel_values`.
            view_mask: `(B, V)` valid views; all when None.
            gps: `(B, 2)` latitude and longitude in degrees, NaN = missing. Metadata that `metadata_fields` does not
                name is ignored with a warning; a field that is None counts as missing, and without any field the
                answer is that of the images alone.
            weather_ids: `(B, L)` tags by their position in `vocabularies`, its length = unknown, padded with -1.
            daytime_ids: `(B, L)`, as `weather_ids`.
            scene_ids: `(B, L)`, as `weather_ids`.
            text_embeddings: `(B, 384)` vectors of all-MiniLM-L6-v2, NaN = missing.
            global_grid: `(B, h, w, D)` patch grid of the global view computed before, beside `view_features`; read by a
                model with a `mask` term.
            extra_evidence: `(B, E, F)` figures of detectors and the like, NaN = missing.

        Returns:
            Embedding, kept views, view weights and token weights.

        Raises:
            ValueError: Both or none of the inputs are given, or a shape does not fit the config.
        """
        tokens, mask, grid = self._tokens_and_mask(pixel_values, view_features, view_mask, global_grid)
        metadata = by_field(gps, weather_ids, daytime_ids, scene_ids, text_embeddings)
        return self._fuse(tokens, mask, metadata, grid, extra_evidence)[0]


class RoadworkForImageClassification(RoadworkModel):
    """Roadwork or none for a photo, from its views."""

    _keys_to_ignore_on_load_unexpected = None

    def _add_heads(self, config: RoadworkConfig) -> None:
        self.classifier = Classifier(config.hidden_size, config.num_labels, config.dropout)
        self.weather_head = None
        if "weather" in config.loss_weights:
            self.weather_head = Classifier(config.hidden_size, len(config.vocabularies["weather"]), config.dropout)

    @hidden_from_signature("weather_labels", "mask_labels")
    def forward(
        self,
        pixel_values: Tensor | None = None,
        view_features: Tensor | None = None,
        view_mask: Tensor | None = None,
        gps: Tensor | None = None,
        weather_ids: Tensor | None = None,
        daytime_ids: Tensor | None = None,
        scene_ids: Tensor | None = None,
        text_embeddings: Tensor | None = None,
        global_grid: Tensor | None = None,
        extra_evidence: Tensor | None = None,
        labels: Tensor | None = None,
        weather_labels: Tensor | None = None,
        mask_labels: Tensor | None = None,
    ) -> RoadworkOutput:
        """Classifies each photo.

        Args:
            pixel_values: As for `RoadworkModel.forward`, and so are the next nine.
            view_features: Tokens instead of pixels.
            view_mask: Valid views.
            gps: Degrees.
            weather_ids: Tags.
            daytime_ids: Tags.
            scene_ids: Tags.
            text_embeddings: Vectors of the text.
            global_grid: Patch grid of the global view.
            extra_evidence: Figures of detectors.
            labels: `(B,)` class indices, 1 = roadwork, or `(B, 2)` class probabilities.
            weather_labels: `(B,)` positions in the vocabulary, -100 = unknown; read with a `weather` term only.
            mask_labels: `(B, C, m, m)` share in [0, 1] of each cell of the global view that shows a mask class, NaN =
                unknown; read with a `mask` term only.

        Returns:
            Logits and everything `RoadworkModel` returns; with `labels` also the loss and its parts.

        Raises:
            ValueError: Both or none of the inputs are given, or a shape or value does not fit the config.
        """
        tokens, view_mask, grid = self._tokens_and_mask(pixel_values, view_features, view_mask, global_grid)
        metadata = by_field(gps, weather_ids, daytime_ids, scene_ids, text_embeddings)
        output, refined, mask, vision = self._fuse(tokens, view_mask, metadata, grid, extra_evidence)
        result = RoadworkOutput(
            logits=self.classifier(output.embedding),
            view_logits=self.classifier(refined),
            weather_logits=None if self.weather_head is None else self.weather_head(vision),
            **output,
        )
        if labels is None:
            return result
        parts, counts = loss_parts(self.config, result, mask, labels, weather_labels, mask_labels, self.training)
        loss = total_loss(parts, counts, self.config.loss_weights)
        # Built anew, so that the fields keep their declared order: loss first, as callers by position expect.
        return RoadworkOutput(loss=loss, loss_parts=parts, loss_counts=counts, **result)


__all__ = ["RoadworkForImageClassification", "RoadworkModel", "RoadworkOutput"]
