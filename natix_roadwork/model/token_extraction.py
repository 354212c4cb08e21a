"""The backbone over the views of a batch: pixels in, tokens and the global view's patch grid out."""

import torch
from torch import Tensor

from .backbone import is_frozen, patch_features, pooled_tokens
from .model_inputs import check_pixels, check_tokens
from .views import normalize_views


class TokenExtraction:
    """What `RoadworkModel` does with pixels; it brings `config`, `backbone` and activation checkpointing."""

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
        return self._extract(pixel_values, view_chunk, wants_grid=False)[0]

    def extract_tokens_and_grid(self, pixel_values: Tensor, view_chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """Runs the backbone as `extract_tokens` does, and keeps the whole patch grid of the global view, view 0.

        Returns:
            Tokens `(B, V, T, D)` and the grid `(B, h, w, D)`.

        Raises:
            ValueError: As `extract_tokens`.
        """
        return self._extract(pixel_values, view_chunk, wants_grid=True)

    def _tokens_and_mask(
        self,
        pixel_values: Tensor | None,
        view_features: Tensor | None,
        view_mask: Tensor | None,
        global_grid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Checks the inputs; returns tokens `(B, V, T, D)`, the mask of valid views `(B, V)` and the global view's grid."""
        if (pixel_values is None) == (view_features is None):
            raise ValueError("Give exactly one of pixel_values and view_features.")
        if view_features is not None:
            return *check_tokens(self.config, view_features, view_mask), global_grid
        found: dict[str, Tensor | None] = {"grid": None}

        def extract(pixels: Tensor) -> Tensor:
            """Tokens of `(B, k, 3, S, S)`, the global view first; keeps its grid where masks are decoded."""
            if not self.config.has_mask_head:
                return self.extract_tokens(pixels)
            tokens, found["grid"] = self.extract_tokens_and_grid(pixels)
            return tokens

        if self.view_selector is not None:
            tokens, view_mask = self.view_selector(self.backbone, extract, pixel_values, view_mask)
        else:
            tokens = extract(pixel_values)
        return *check_tokens(self.config, tokens, view_mask), found["grid"]

    def _extract(self, pixel_values: Tensor, view_chunk: int | None, wants_grid: bool) -> tuple[Tensor, Tensor]:
        pixel_values = check_pixels(pixel_values, self.config.view_size)
        views, num_views = pixel_values.flatten(0, 1), pixel_values.shape[1]
        with_gradient = torch.is_grad_enabled() and not is_frozen(self.backbone)
        again = with_gradient and self.training and self.gradient_checkpointing
        view_chunk = self.config.view_chunk if view_chunk is None else view_chunk
        if view_chunk is None:  # checkpointing all views as one would save nothing
            view_chunk = self.config.num_views if again else len(views)
        if view_chunk < 1:
            raise ValueError(f"view_chunk={view_chunk} must be at least 1, or None for all views at a time.")
        tokens, grids = [], []
        with torch.set_grad_enabled(with_gradient):
            for start in range(0, len(views), view_chunk):
                chunk = views[start : start + view_chunk]
                # A slice, not numbers, which a GPU would have to be sent and waited for.
                kept = slice(-start % num_views, None, num_views) if wants_grid else slice(0)
                if again:
                    found = self._gradient_checkpointing_func(self._chunk_tokens, chunk, kept)
                else:
                    found = self._chunk_tokens(chunk, kept)
                tokens.append(found[0])
                grids.append(found[1])
        return torch.cat(tokens).unflatten(0, pixel_values.shape[:2]), torch.cat(grids)

    def _chunk_tokens(self, views: Tensor, kept: slice) -> tuple[Tensor, Tensor]:
        """Views `(N, 3, S, S)` to tokens `(N, T, D)` and the patch grids `(n, h, w, D)` of the views that are kept."""
        if views.dtype == torch.uint8:
            views = normalize_views(views, self.config.image_mean, self.config.image_std)
        class_token, patch_map = patch_features(self.backbone, views)
        tokens = pooled_tokens(class_token, patch_map, self.config.feature_pooling, self.config.evidence_grid)
        return tokens, patch_map[kept].permute(0, 2, 3, 1)
