"""From photos to the views the model reads.

In: photos in any form `photo.load_photo` opens. Out: a `BatchFeature` with `pixel_values` `(B, V, 3, S, S)` and
`view_mask` `(B, V)`, the arguments of the model in `modeling_roadwork`. The processor holds settings only, so it can
be copied to the workers of a data loader.
"""

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BaseImageProcessor, BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.processing_utils import ImagesKwargs

from .photo import DecodedPhoto, PhotoSource, decode_photo
from .resize import RESIZE_BACKENDS, Box
from .views import check_layout, keeps_detail_halved, normalize_views, render_view, valid_views, view_boxes, view_names


GLOBAL_FITS = ("squash", "letterbox")
DECODE_MODES = ("full", "half")
SETTINGS = (
    "view_size",
    "view_layout",
    "squares",
    "global_fit",
    "image_mean",
    "image_std",
    "do_normalize",
    "resample",
    "max_megapixels",
    "decode_mode",
    "resize_backend",
)
BOOKKEEPING_KEYS = {"image_processor_type", "auto_map", "processor_class", "feature_extractor_type"}


class RoadworkImageKwargs(ImagesKwargs, total=False):
    """Settings of `RoadworkImageProcessor` that `from_pretrained` and a single call may override."""

    view_size: int
    view_layout: str
    squares: list[str]
    global_fit: str
    max_megapixels: float
    decode_mode: str
    resize_backend: str


class RoadworkImageProcessor(BaseImageProcessor):
    """Turn each photo into a fixed number of normalised square views.

    Args:
        view_size: Side S of a view in pixels; a multiple of the backbone's patch.
        view_layout: `photo12` (the whole photo, 3 x 3 tiles, two squares) or `single` (the whole photo).
        squares: The two squares of `photo12`, each of `center`, `left`, `right`.
        global_fit: `squash` stretches the whole photo to a square, `letterbox` keeps its aspect and pads it.
        image_mean: Mean of each channel on the scale 0..1; also the colour of padding.
        image_std: Standard deviation of each channel on the scale 0..1.
        do_normalize: Give normalised `float32` views; `False` gives `uint8`, a quarter of the memory, which the
            model normalises itself.
        resample: A Pillow resampling filter.
        max_megapixels: Photos with more pixels (in millions) are refused before they are decoded.
        decode_mode: `half` decodes a JPEG at half its size where every view is still filled without enlarging, which
            is faster and loses a little detail; other photos, and `full`, are decoded whole.
        resize_backend: `torch` resizes by the Lanczos filter fast; `pillow` is the reference, equal but for single
            grey levels.
        **kwargs: Bookkeeping entries of a saved processor; any other name is refused.

    Raises:
        ValueError: If a setting is unknown or has an impossible value; it names both.
    """

    model_input_names = ["pixel_values", "view_mask"]  # noqa: RUF012 - the type is fixed by transformers
    valid_kwargs = RoadworkImageKwargs

    def __init__(
        self,
        view_size: int = 512,
        view_layout: str = "photo12",
        squares: Sequence[str] = ("center", "right"),
        global_fit: str = "squash",
        image_mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        image_std: Sequence[float] = IMAGENET_DEFAULT_STD,
        do_normalize: bool = True,
        resample: int = PILImageResampling.LANCZOS,
        max_megapixels: float = 80.0,
        decode_mode: str = "full",
        resize_backend: str = "torch",
        **kwargs: object,
    ) -> None:
        """Check and keep the settings."""
        for name in kwargs.keys() - BOOKKEEPING_KEYS:
            raise ValueError(_unknown_setting(name, kwargs[name]))
        super().__init__(**kwargs)
        check_layout(view_layout, squares)
        self.view_size = _whole_number("view_size", view_size, lowest=1)
        self.view_layout = view_layout
        self.squares = list(squares)
        self.global_fit = _one_of("global_fit", global_fit, GLOBAL_FITS)
        self.image_mean = _channel_values("image_mean", image_mean)
        self.image_std = _channel_values("image_std", image_std, positive=True)
        self.do_normalize = _one_of("do_normalize", do_normalize, (True, False))
        self.resample = int(_one_of("resample", resample, tuple(int(filter_) for filter_ in PILImageResampling)))
        self.max_megapixels = _positive_number("max_megapixels", max_megapixels)
        self.decode_mode = _one_of("decode_mode", decode_mode, DECODE_MODES)
        self.resize_backend = _one_of("resize_backend", resize_backend, RESIZE_BACKENDS)

    @property
    def num_views(self) -> int:
        """Number of views V of a photo, the same for every photo."""
        return len(self.view_names)

    @property
    def view_names(self) -> list[str]:
        """Name of each view in order: `global`, `tile_<row>_<column>`, `<square>_square`."""
        return view_names(self.view_layout, self.squares)

    def settings(self) -> dict[str, Any]:
        """Give the settings that determine the output, as JSON values."""
        return {name: getattr(self, name) for name in SETTINGS}

    def view_boxes(self, width: int, height: int) -> list[Box]:
        """Place the views on an upright photo.

        Args:
            width: Photo width in pixels, after EXIF orientation.
            height: Photo height in pixels, after EXIF orientation.

        Returns:
            V boxes (left, top, right, bottom) in whole photo pixels.
        """
        return view_boxes(width, height, self.view_size, self.view_layout, self.squares)

    def view_mask(self, width: int, height: int) -> list[bool]:
        """Tell which views of a photo are valid.

        Args:
            width: Photo width in pixels, after EXIF orientation.
            height: Photo height in pixels, after EXIF orientation.

        Returns:
            V flags; a degenerate view repeats an earlier one or enlarges what the global view already shows.
        """
        return valid_views(self.view_boxes(width, height), self.view_size)

    def render_views(self, photo: PhotoSource) -> np.ndarray:
        """Cut all views out of one photo, degenerate ones too.

        Args:
            photo: Anything `photo.load_photo` opens.

        Returns:
            `uint8` `(V, S, S, 3)`.

        Raises:
            ValueError: If the photo cannot be read.
        """
        return self.views_and_mask(photo)[0]

    def views_and_mask(self, photo: PhotoSource, name: str | None = None) -> tuple[np.ndarray, list[bool]]:
        """Cut all views out of one photo and tell which of them are valid; the photo is decoded once.

        Args:
            photo: Anything `photo.load_photo` opens.
            name: What to call the photo in an error.

        Returns:
            `uint8` `(V, S, S, 3)`, and V flags as of `view_mask`.

        Raises:
            ValueError: If the photo cannot be read.
        """
        return self.views_mask_and_size(photo, name)[:2]

    def views_mask_and_size(
        self, photo: PhotoSource, name: str | None = None
    ) -> tuple[np.ndarray, list[bool], tuple[int, int]]:
        """Do what `views_and_mask` does, and add the upright photo's width and height in pixels, as `view_boxes` takes them.

        Raises:
            ValueError: If the photo cannot be read.
        """
        decoded = self._decode(photo, name)
        size = decoded.width, decoded.height
        return self._render(decoded), self.view_mask(*size), size

    def preprocess(
        self,
        images: PhotoSource | Sequence[PhotoSource],
        *,
        return_tensors: str | None = "pt",
        **kwargs: object,
    ) -> BatchFeature:
        """Turn one photo or a list of photos into a batch of views.

        Args:
            images: A photo, a list of photos of any sizes, or an array or tensor with a leading batch axis.
            return_tensors: `pt` for torch tensors, `np` for numpy arrays; none means `pt`.
            **kwargs: Settings to use for this call in place of the processor's own.

        Returns:
            `pixel_values` `(B, V, 3, S, S)` (`float32`, or `uint8` without `do_normalize`) and `view_mask` `(B, V)`
            (bool, `False` where a view is degenerate).

        Raises:
            ValueError: If there is no photo, a photo cannot be read (its position is named), or a setting is wrong.
        """
        if kwargs:
            return type(self)(**{**self.settings(), **kwargs}).preprocess(images, return_tensors=return_tensors)
        tensor_type = _one_of("return_tensors", "pt" if return_tensors is None else return_tensors, ("pt", "np"))
        views, masks = [], []
        for photo, name in _named_photos(images):
            cut, valid = self.views_and_mask(photo, name)
            views.append(cut)
            masks.append(valid)
        pixel_values = torch.from_numpy(np.stack(views)).permute(0, 1, 4, 2, 3).contiguous()
        if self.do_normalize:
            pixel_values = normalize_views(pixel_values, self.image_mean, self.image_std)
        data = {"pixel_values": pixel_values, "view_mask": torch.tensor(masks, dtype=torch.bool)}
        return BatchFeature(data if tensor_type == "pt" else {name: value.numpy() for name, value in data.items()})

    def _decode(self, photo: PhotoSource, name: str | None = None) -> DecodedPhoto:
        def may_halve(width: int, height: int) -> bool:
            boxes = self.view_boxes(width, height)
            return keeps_detail_halved(boxes, self.view_size, squash_first=self.global_fit == "squash")

        return decode_photo(photo, self.max_megapixels, name, may_halve if self.decode_mode == "half" else None)

    def _render(self, photo: DecodedPhoto) -> np.ndarray:
        fill = tuple(round(255 * mean) for mean in self.image_mean)
        views = np.empty((self.num_views, self.view_size, self.view_size, 3), dtype=np.uint8)
        rendered: dict[tuple[Box, bool], int] = {}
        for index, box in enumerate(self.view_boxes(photo.width, photo.height)):
            key = box, index == 0 and self.global_fit == "squash"
            if key in rendered:
                views[index] = views[rendered[key]]
                continue
            rendered[key] = index
            views[index] = render_view(
                photo.pixels,
                box,
                self.view_size,
                squash=key[1],
                fill=fill,
                resample=self.resample,
                backend=self.resize_backend,
                shrink=photo.shrink,
            )
        return views


def _named_photos(images: PhotoSource | Sequence[PhotoSource]) -> list[tuple[PhotoSource, str | None]]:
    """List one photo or several; each of several is named by its position, so that an error can point at it."""
    if isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
        images = list(images)
    if not isinstance(images, list | tuple):
        return [(images, None)]
    if not images:
        raise ValueError("images is empty; give at least one photo")
    return [(image, None if isinstance(image, str) else f"images[{index}]") for index, image in enumerate(images)]


def _unknown_setting(name: str, value: object) -> str:
    close = difflib.get_close_matches(name, SETTINGS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known settings are {SETTINGS}"
    return f"RoadworkImageProcessor has no setting {name!r} (value {value!r}); {hint}"


def _one_of(name: str, value: Any, allowed: tuple) -> Any:  # noqa: ANN401 - any JSON value may arrive here
    if isinstance(value, bool) is not isinstance(allowed[0], bool) or value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    return value


def _whole_number(name: str, value: object, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise ValueError(f"{name} must be a whole number of at least {lowest}, got {value!r}")
    return value


def _positive_number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name} must be a number above 0, got {value!r}")
    return float(value)


def _channel_values(name: str, values: object, positive: bool = False) -> list[float]:
    is_triple = isinstance(values, list | tuple) and len(values) == 3
    if not is_triple or not all(isinstance(value, int | float) and np.isfinite(value) for value in values):
        raise ValueError(f"{name} must be three finite numbers, one for each of red, green and blue, got {values!r}")
    if positive and min(values) <= 0:
        raise ValueError(f"{name} must be above 0 in every channel, got {values!r}")
    return [float(value) for value in values]
