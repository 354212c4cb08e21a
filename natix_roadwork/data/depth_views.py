"""The depth of a photo as one more view: grey, as the global view is cut, for the same backbone."""

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.views import render_view


def depth_view(processor: RoadworkImageProcessor, depth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Render the depth map of a whole photo as the processor renders the global view.

    Args:
        processor: Cuts the views.
        depth: `(h, w)` of any size with the photo's aspect, or `(h, w, 3)`.

    Returns:
        The view, `(S, S, 3)` uint8, its channels alike; padding is the grey that the backbone reads as nothing.
    """
    picture = np.ascontiguousarray(depth if depth.ndim == 3 else np.repeat(depth[..., None], 3, axis=2))
    height, width = picture.shape[:2]
    grey = round(255 * sum(processor.image_mean) / 3)
    return render_view(
        picture,
        (0, 0, width, height),
        processor.view_size,
        squash=processor.global_fit == "squash",
        fill=(grey, grey, grey),
        resample=processor.resample,
        backend=processor.resize_backend,
    )
