"""View selection before the backbone: thumbnails say which views of a photo the backbone sees in full.

Comes in: the pixels of V views. Goes out: the indices of the k views that the backbone runs on; the others are masked,
so that the head is the same with and without selection. Pruning (`pruning.py`) chooses after the backbone and saves next
to nothing; this saves backbone time.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from .backbone import check_view_size, view_tokens
from .configuration_roadwork import RoadworkConfig
from .model_inputs import check_mask, check_pixels
from .pruning import best_views, gather_views, scatter_views
from .views import normalize_views


class ViewSelector(nn.Module):
    """Scores views by their thumbnails, seen by the frozen backbone itself.

    A thumbnail of side t costs about (t / S)² of a view of side S: with 112 and 512 pixels, twelve thumbnails cost as
    much as 0.6 views. A view scores as high as the best cell of its thumbnail, since the evidence may be small.
    """

    def __init__(self, config: RoadworkConfig, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.config = config
        check_view_size(backbone, config.thumbnail_size, "thumbnail_size")
        # Buffers: the choice has no gradient, `training.view_selection` fits them on photo labels. Zeros choose the first.
        self.register_buffer("weight", torch.zeros(config.feature_dim))
        self.register_buffer("bias", torch.zeros(1))

    def thumbnail_tokens(self, backbone: PreTrainedModel, pixel_values: Tensor) -> Tensor:
        """Runs the backbone on the thumbnails of `(B, V, 3, S, S)`, normalised or uint8; returns `(B, V, T, D)`."""
        config = self.config
        side = (config.thumbnail_size, config.thumbnail_size)
        thumbnails = F.interpolate(pixel_values.flatten(0, 1).float(), side, mode="area")
        if pixel_values.dtype == torch.uint8:
            thumbnails = normalize_views(thumbnails, config.image_mean, config.image_std)
        tokens = view_tokens(backbone, thumbnails, "mean", config.evidence_grid)
        return tokens.unflatten(0, pixel_values.shape[:2])

    def scores(self, tokens: Tensor) -> Tensor:
        """Scores thumbnails `(B, V, T, D)`; returns `(B, V)`, higher where roadwork is likelier to be seen."""
        return (tokens.float() @ self.weight.float() + self.bias.float()).amax(dim=2)

    def forward(
        self,
        backbone: PreTrainedModel,
        extract_tokens: Callable[[Tensor], Tensor],
        pixel_values: Tensor,
        view_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Chooses views by their thumbnails and runs the backbone on them alone.

        Args:
            backbone: The frozen backbone.
            extract_tokens: From `(B, k, 3, S, S)` to tokens `(B, k, T, D)`.
            pixel_values: `(B, V, 3, S, S)` or `(B, 3, S, S)`, normalised or uint8.
            view_mask: `(B, V)` valid views; all when None.

        Returns:
            Tokens `(B, V, T, D)`, zeros for views that were not selected, and the mask `(B, V)`, there False.

        Raises:
            ValueError: A shape does not fit the config.
        """
        pixel_values = check_pixels(pixel_values, self.config.view_size)
        view_mask = check_mask(view_mask, pixel_values)
        num_views = pixel_values.shape[1]
        if num_views <= self.config.select_views:
            return extract_tokens(pixel_values), view_mask
        scores = self.scores(self.thumbnail_tokens(backbone, pixel_values))
        indices = best_views(scores, view_mask, self.config.select_views)
        tokens = scatter_views(extract_tokens(gather_views(pixel_values, indices)), indices, num_views)
        return tokens, scatter_views(view_mask.gather(1, indices), indices, num_views)
