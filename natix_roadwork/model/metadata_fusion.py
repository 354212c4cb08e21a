"""Where, when and what kind of photo: metadata becomes a vector and joins the vision embedding.

Comes in: the metadata arguments of `forward` and the fused views. Goes out: embedding and views of the same width, to
the heads.
"""

import torch
from torch import Tensor, nn
from transformers.utils import logging

from .configuration_roadwork import RoadworkConfig
from .location_encoders import GPS_WIDTH, LocationEncoder, jittered
from .model_inputs import TEXT_WIDTH, is_present, read_fields


logger = logging.get_logger(__name__)

TAG_WIDTH = 64


class TagTable(nn.Embedding):
    """One row for each known tag, then one for unknown tags.

    The unknown tag's row starts at zero (`RoadworkModel._init_weights`): where training never met one, it says no more
    than that some tag was there.
    """


class TagEncoder(nn.Module):
    """Averages the rows of a photo's tags."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.table = TagTable(vocabulary_size + 1, TAG_WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids `(B, L)`, padded with -1, to `(B, 64)`; a row without a tag gives zeros."""
        rows = self.table(ids.clamp_min(0))
        weights = (ids >= 0).to(rows.dtype).unsqueeze(-1)
        return (rows * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


class MetadataField(nn.Module):
    """One field's slice: its encoded value or a learned NULL, plus a learned presence vector, normed.

    The presence bit is a vector for "there" and one for "missing", so that it takes no width of its own. The norm
    brings waves, table rows and text vectors to one scale. Each weight has a gradient in every batch, of zeros where
    no row is missing or none is there: processes that train together need that.

    Args:
        encoder: Maps the field's values to `(B, width)`.
        width: Width of the slice.
    """

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.null = nn.Embedding(1, width)
        self.presence = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, values: Tensor, present: Tensor) -> Tensor:
        """Encodes the values of the rows that are `present` `(B,)`; returns `(B, width)`."""
        state = present.long()
        null = self.null(torch.zeros_like(state))
        encoded = self.encoder(values).to(null.dtype)
        return self.norm(torch.where(present.unsqueeze(-1), encoded, null) + self.presence(state))


class MetadataEncoder(nn.Module):
    """The fields that `metadata_fields` names, side by side: GPS 128, weather, daytime and scene 64 each, text 384.

    All five make 704 channels. In training each field of each row is replaced by NULL with probability
    `metadata_dropout`, and positions move by `gps_jitter_km`.

    Args:
        config: Fields, vocabularies, GPS encoder, dropout and jitter.
    """

    def __init__(self, config: RoadworkConfig) -> None:
        super().__init__()
        self.dropout = config.metadata_dropout
        self.gps_jitter_km = config.gps_jitter_km
        self.fields = nn.ModuleDict()
        for name in config.metadata_fields:
            if name == "gps":
                self.fields[name] = MetadataField(LocationEncoder(config.gps_encoder), GPS_WIDTH)
            elif name == "text":
                self.fields[name] = MetadataField(nn.Linear(TEXT_WIDTH, TEXT_WIDTH), TEXT_WIDTH)
            else:
                self.fields[name] = MetadataField(TagEncoder(len(config.vocabularies[name])), TAG_WIDTH)
        self.width = sum(field.norm.normalized_shape[0] for field in self.fields.values())

    def forward(self, fields: dict[str, Tensor], dropped: Tensor | None = None) -> Tensor:
        """Encodes checked fields.

        Args:
            fields: What `read_fields` returns: `(B, ...)` for each field.
            dropped: `(B,)` rows whose fields all count as missing.

        Returns:
            `(B, width)`.
        """
        slices = []
        for name, field in self.fields.items():
            values = fields[name]
            present = is_present(values)
            if dropped is not None:
                present = present & ~dropped
            if self.training:
                present = present & (torch.rand(len(values), device=values.device) >= self.dropout)
            if values.is_floating_point():
                values = values.nan_to_num(nan=0.0)  # a NaN would reach the gradients even where it is not chosen
            if name == "gps" and self.training and self.gps_jitter_km:
                values = jittered(values, self.gps_jitter_km)
            elif name == "text":
                values = values.to(field.null.weight.dtype)
            slices.append(field(values, present))
        return torch.cat(slices, dim=-1)


class MetadataFusion(nn.Module):
    """Joins metadata and vision: concat, linear layer, GELU, dropout.

    A call without metadata bypasses the fusion: the embedding goes on as it is, and the answer is that of an
    image-only model with the same weights, bit for bit. The classifier must therefore read fused and bare embeddings
    alike. So the fused vector is by default a correction that is added to the bare one (`metadata_residual`; without
    it the fused vector replaces the embedding, as planned), and in training `whole_metadata_dropout` of the rows lose
    all metadata: half of them take the bypass, half become NULL in every field, so that both forms of having none are
    trained. The kept views are fused with the same metadata as the embedding, so that the classifier reads one space.

    Args:
        config: As for `MetadataEncoder`, and width, residual and dropout.
    """

    def __init__(self, config: RoadworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = MetadataEncoder(config)
        self.linear = nn.Linear(config.hidden_size + self.encoder.width, config.hidden_size)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, embedding: Tensor, views: Tensor, metadata: dict[str, Tensor | None]) -> tuple[Tensor, Tensor]:
        """Adds metadata.

        Args:
            embedding: `(B, H)`.
            views: `(B, K, H)`.
            metadata: Field to its argument of `RoadworkModel.forward`, None = not given. A field that is not given
                counts as missing in every row; with none at all the fusion is bypassed.

        Returns:
            Embedding `(B, H)` and views `(B, K, H)`, both fused.

        Raises:
            ValueError: See `model_inputs.read_fields`.
        """
        batch_size = len(embedding)
        fields, given = read_fields(self.config, metadata, batch_size, embedding.device)
        if not given:
            if not self.training:
                return embedding, views
            logger.warning_once(
                f"metadata_fields={self.config.metadata_fields!r}, but batches without any metadata are trained on."
            )
        bypass = torch.full((batch_size,), not given, device=embedding.device)
        dropped = None
        if self.training:
            draw = torch.rand(batch_size, device=embedding.device)
            dropped = draw < self.config.whole_metadata_dropout
            bypass = bypass | (draw < self.config.whole_metadata_dropout / 2)
        encoded = self.encoder(fields, dropped).unsqueeze(1)  # (B, 1, M)
        bypass = bypass[:, None, None]
        fused = self._fuse(embedding.unsqueeze(1), encoded, bypass).squeeze(1)
        return fused, self._fuse(views, encoded, bypass)

    def _fuse(self, views: Tensor, encoded: Tensor, bypass: Tensor) -> Tensor:
        joined = torch.cat([views, encoded.to(views.dtype).expand(-1, views.shape[1], -1)], dim=-1)
        fused = self.dropout(self.activation(self.linear(joined)))
        return torch.where(bypass, views, views + fused if self.config.metadata_residual else fused)
