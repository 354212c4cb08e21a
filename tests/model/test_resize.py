import numpy as np
import pytest
import torch
from PIL import Image

from natix_roadwork import RoadworkImageProcessor
from natix_roadwork.model import resize
from natix_roadwork.model.photo import DecodedPhoto
from natix_roadwork.model.resize import resize_box


def waves(height: int, width: int) -> np.ndarray:
    """A smooth picture of which the value at any fraction of a pixel is known, in each channel another wave."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([wave(x, y, number) for number in range(3)], axis=2).round().astype(np.uint8)


def wave(x: np.ndarray, y: np.ndarray, number: int) -> np.ndarray:
    return 128 + 60 * np.sin(x / (19 + number)) + 60 * np.cos(y / (23 + number))


@pytest.mark.parametrize("backend", ["torch", "pillow"])
@pytest.mark.parametrize("box", [(40, 20, 360, 340), (41, 20, 361, 340), (41, 21, 360, 342), (0, 0, 399, 359)])
def test_a_box_of_the_halved_photo_lies_where_it_lies_in_the_whole(
    backend: str, box: tuple[int, int, int, int]
) -> None:
    """The picture is given at half its size; a whole pixel is half a pixel of it."""
    width, height = 100, 90
    resized = resize_box(waves(180, 200), box, (width, height), backend=backend, shrink=2)
    x = box[0] / 2 + (np.arange(width) + 0.5) * (box[2] - box[0]) / 2 / width
    y = box[1] / 2 + (np.arange(height) + 0.5) * (box[3] - box[1]) / 2 / height
    expected = np.stack([wave(*np.meshgrid(x, y), number) for number in range(3)], axis=2)
    assert resized.shape == (height, width, 3)
    assert np.abs(resized - expected)[3:-3, 3:-3].max() < 2


@pytest.mark.parametrize("side", [32, 37, 64, 100])
def test_the_plan_of_an_axis_reads_enough_and_starts_where_it_says(side: int) -> None:
    near = 0
    for low in range(1, 60, 2):
        for high in range(low + 2 * side, low + 2 * side + 60):
            step, length = (high - low) / 2 / side, (high + 1) // 2
            plan = resize._plan_axis(low / 2, high / 2, side, length)
            assert 0 <= plan.start < plan.stop <= length
            assert int((plan.stop - plan.start) * plan.scale) >= plan.lead + side
            assert abs(plan.start + plan.lead * step - low / 2) == pytest.approx(plan.miss)
            near += plan.miss <= resize.MAX_MISS
    assert near > 0.5 * 30 * 60


def test_where_no_start_comes_near_pillow_resizes_the_half() -> None:
    box, size = (21, 21, 149, 149), (32, 32)  # steps of two pixels never leave the half pixel they start at
    assert resize._plan_axis(10.5, 74.5, 32, 100).miss == 0.5
    photo = waves(90, 100)
    by_torch, by_pillow = (resize_box(photo, box, size, backend=name, shrink=2) for name in ("torch", "pillow"))
    assert np.array_equal(by_torch, by_pillow)


def test_pixels_outside_of_the_box_do_not_count() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    elsewhere = photo.copy()
    elsewhere[:, 90:] = 0
    for backend in ("torch", "pillow"):
        of_photo, of_other = (
            resize_box(pixels, (10, 5, 90, 85), (32, 32), backend=backend) for pixels in (photo, elsewhere)
        )
        assert np.array_equal(of_photo, of_other)


@pytest.mark.parametrize("shrink", [1, 2])
def test_other_filters_and_a_torch_without_lanczos_are_served_by_pillow(
    shrink: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, box = waves(90, 120), (11 * shrink, 5, 90 * shrink, 85)
    for resample in (Image.Resampling.BICUBIC, Image.Resampling.BOX):
        by_torch, by_pillow = (
            resize_box(photo, box, (32, 32), resample, name, shrink) for name in ("torch", "pillow")
        )
        assert np.array_equal(by_torch, by_pillow)
    by_pillow = resize_box(photo, box, (32, 32), backend="pillow", shrink=shrink)
    monkeypatch.setattr(resize, "has_torch_lanczos", lambda: False)
    assert np.array_equal(resize_box(photo, box, (32, 32), shrink=shrink), by_pillow)


def test_this_torch_has_the_filter() -> None:
    assert resize.has_torch_lanczos() is (tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 12))


def test_a_torch_without_lanczos_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError

    said = []
    monkeypatch.setattr(resize.functional, "interpolate", refuse)
    monkeypatch.setattr(resize.logger, "warning", said.append)
    assert resize.has_torch_lanczos.__wrapped__() is False
    assert len(said) == 1 and "Pillow" in said[0]


def test_read_only_pixels_give_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    photo = np.asarray(Image.fromarray(waves(90, 120)))
    assert not photo.flags.writeable
    resize_box(photo, (0, 0, 120, 90), (32, 32))
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


@pytest.mark.parametrize("global_fit", ["squash", "letterbox"])
@pytest.mark.parametrize("backend", ["torch", "pillow"])
def test_half_mode_gives_the_same_views_and_the_same_geometry(global_fit: str, backend: str) -> None:
    photo = waves(542, 720)
    half = np.asarray(Image.fromarray(photo).reduce(2))
    settings = {"view_size": 96, "global_fit": global_fit, "resize_backend": backend}
    processor = RoadworkImageProcessor(**settings)
    assert any(side % 2 for box in processor.view_boxes(720, 542) for side in box)
    decoded = DecodedPhoto(half, shrink=2)
    assert (decoded.width, decoded.height) == (720, 542)
    difference = np.abs(processor._render(decoded).astype(int) - processor.render_views(photo))
    assert difference.mean() < 0.5 and difference[:, 3:-3, 3:-3].max() <= 3
