"""The roadwork models.

`RoadworkModel` turns a photo's views into one embedding, `RoadworkForImageClassification` adds the classifier::

    pixels (B, V, 3, S, S) -> frozen backbone -> tokens (B, V, T, D) -> standardised -> evidence pooling (B, V, D)
      -> pruning (B, K, D) -> projection, pyramid (B, K, H) -> gated attention (B, K, H) -> view fusion (B, H)
      (+ metadata) -> classifier (B, 2)
"""

from typing import Self

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init

from .attention import AttentionGate, GatedAttentionLayer, MultiScalePyramid, ViewProjection
from .backbone import check_view_size, freeze, is_frozen, view_tokens
from .checkpoint import FrozenBackboneCheckpoint
from .configuration_roadwork import RoadworkConfig
from .evidence import EvidencePooling, FeatureStandardizer
from .heads import Classifier
from .losses import loss_parts, total_loss
from .metadata_fusion import MetadataFusion, TagTable
from .model_inputs import by_field, check_pixels, check_tokens, hidden_from_signature, warn_of_unread
from .outputs import RoadworkOutput
from .pruning import ViewPruning
from .view_fusion import GatedViewFusion
from .view_selection import ViewSelector
from .views import normalize_views


class RoadworkModel(FrozenBackboneCheckpoint, PreTrainedModel):
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

    def extract_tokens(self, pixel_values: Tensor, view_chunk: int | None = None) -> Tensor:
        """Runs the backbone, once for each view.

        A frozen backbone runs without gradient. Where a weight of it is trained, the gradient goes through, and
        activation checkpointing keeps a chunk's tokens alone and runs its backbone again in the backward pass.

        Args:
            pixel_values: `(B, V, 3, S, S)`, or `(B, 3, S, S)` for one view; float = already normalised,
                uint8 = normalised here with the config's `image_mean` and `image_std`.
            view_chunk: Views the backbone runs over at a time, which bounds the memory; None = the config's.

        Returns:
            `(B, V, T, D)` tokens: pooled ones, then the G x G grid row by row.

        Raises:
            ValueError: The shape is not the one above, S is not `view_size`, or `view_chunk` is below 1.
        """
        pixel_values = check_pixels(pixel_values, self.config.view_size)
        views = pixel_values.flatten(0, 1)
        with_gradient = torch.is_grad_enabled() and not is_frozen(self.backbone)
        again = with_gradient and self.training and self.gradient_checkpointing
        view_chunk = self.config.view_chunk if view_chunk is None else view_chunk
        if view_chunk is None:  # checkpointing all views as one would save nothing
            view_chunk = self.config.num_views if again else len(views)
        if view_chunk < 1:
            raise ValueError(f"view_chunk={view_chunk} must be at least 1, or None for all views at a time.")
        with torch.set_grad_enabled(with_gradient):
            tokens = [
                self._gradient_checkpointing_func(self._chunk_tokens, chunk) if again else self._chunk_tokens(chunk)
                for chunk in views.split(view_chunk)
            ]
        return torch.cat(tokens).unflatten(0, pixel_values.shape[:2])

    def _chunk_tokens(self, views: Tensor) -> Tensor:
        """Views `(N, 3, S, S)` to tokens `(N, T, D)`."""
        if views.dtype == torch.uint8:
            views = normalize_views(views, self.config.image_mean, self.config.image_std)
        return view_tokens(self.backbone, views, self.config.feature_pooling, self.config.evidence_grid)

    def _tokens_and_mask(
        self, pixel_values: Tensor | None, view_features: Tensor | None, view_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Checks the inputs; returns tokens `(B, V, T, D)` and the mask of valid views `(B, V)`."""
        if (pixel_values is None) == (view_features is None):
            raise ValueError("Give exactly one of pixel_values and view_features.")
        if view_features is None and self.view_selector is not None:
            view_features, view_mask = self.view_selector(self.backbone, self.extract_tokens, pixel_values, view_mask)
        tokens = self.extract_tokens(pixel_values) if view_features is None else view_features
        return check_tokens(self.config, tokens, view_mask)

    def _fuse(
        self, tokens: Tensor, view_mask: Tensor, metadata: dict[str, Tensor | None]
    ) -> tuple[RoadworkOutput, Tensor, Tensor, Tensor]:
        """Tokens `(B, V, T, D)` and metadata to the embedding.

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
        warn_of_unread(self.config, metadata)
        if self.metadata_fusion is not None:
            embedding, refined = self.metadata_fusion(vision, refined, metadata)
        output = RoadworkOutput(
            embedding=embedding,
            view_indices=indices,
            view_weights=view_weights,
            token_weights=token_weights,
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

        Returns:
            Embedding, kept views, view weights and token weights.

        Raises:
            ValueError: Both or none of the inputs are given, or a shape does not fit the config.
        """
        tokens, mask = self._tokens_and_mask(pixel_values, view_features, view_mask)
        return self._fuse(tokens, mask, by_field(gps, weather_ids, daytime_ids, scene_ids, text_embeddings))[0]


class RoadworkForImageClassification(RoadworkModel):
    """Roadwork or none for a photo, from its views."""

    _keys_to_ignore_on_load_unexpected = None

    def _add_heads(self, config: RoadworkConfig) -> None:
        self.classifier = Classifier(config.hidden_size, config.num_labels, config.dropout)
        self.weather_head = None
        if "weather" in config.loss_weights:
            self.weather_head = Classifier(config.hidden_size, len(config.vocabularies["weather"]), config.dropout)

    @hidden_from_signature("weather_labels")
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
        labels: Tensor | None = None,
        weather_labels: Tensor | None = None,
    ) -> RoadworkOutput:
        """Classifies each photo.

        Args:
            pixel_values: As for `RoadworkModel.forward`, and so are the next seven.
            view_features: Tokens instead of pixels.
            view_mask: Valid views.
            gps: Degrees.
            weather_ids: Tags.
            daytime_ids: Tags.
            scene_ids: Tags.
            text_embeddings: Vectors of the text.
            labels: `(B,)` class indices, 1 = roadwork, or `(B, 2)` class probabilities.
            weather_labels: `(B,)` positions in the vocabulary, -100 = unknown; read with a `weather` term only.

        Returns:
            Logits and everything `RoadworkModel` returns; with `labels` also the loss and its parts.

        Raises:
            ValueError: Both or none of the inputs are given, or a shape or value does not fit the config.
        """
        tokens, view_mask = self._tokens_and_mask(pixel_values, view_features, view_mask)
        metadata = by_field(gps, weather_ids, daytime_ids, scene_ids, text_embeddings)
        output, refined, mask, vision = self._fuse(tokens, view_mask, metadata)
        result = RoadworkOutput(
            logits=self.classifier(output.embedding),
            view_logits=self.classifier(refined),
            weather_logits=None if self.weather_head is None else self.weather_head(vision),
            **output,
        )
        if labels is None:
            return result
        parts, counts = loss_parts(self.config, result, mask, labels, weather_labels, training=self.training)
        loss = total_loss(parts, counts, self.config.loss_weights)
        # Built anew, so that the fields keep their declared order: loss first, as callers by position expect.
        return RoadworkOutput(loss=loss, loss_parts=parts, loss_counts=counts, **result)


__all__ = ["RoadworkForImageClassification", "RoadworkModel", "RoadworkOutput"]
