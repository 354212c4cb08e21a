"""The mask of a view is the view of the mask: masks are painted as photos and go the photo's own way."""

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from natix_roadwork import RoadworkImageProcessor
from natix_roadwork.data.augmentation import ViewAugmentation
from natix_roadwork.data.augmentation_presets import STRENGTHS
from natix_roadwork.data.mask_views import cell_levels, shares, unknown_levels, view_cover
from natix_roadwork.data.quiet_albumentations import A
from natix_roadwork.data.scene_table import SceneSettings
from natix_roadwork.data.scenes import draw_scene
from natix_roadwork.model.photo import decode_photo
from tests.masks import LEAST_IOU, cover_bits, painted, shapes, shown, worst_iou


ALL = np.ones(6, bool)
KINDS = ((0, 1, 2), (3, 4, 5))
VIEWS = [
    {"view_layout": "photo12", "squares": ["center", "right"]},
    {"view_layout": "photo12", "squares": ["left", "center"], "global_fit": "letterbox"},
    {"view_layout": "photo12", "squares": ["right", "left"], "resize_backend": "pillow"},
    {"view_layout": "single"},
    {"view_layout": "single", "global_fit": "letterbox", "resample": Image.Resampling.BILINEAR},
]


@pytest.fixture(scope="module")
def scene() -> NDArray[np.uint8]:
    """Bits of a drawn street, 1,440 pixels wide, with several classes."""
    settings = SceneSettings(width=1440)
    return max((draw_scene(row, settings).mask for row in range(6)), key=lambda bits: len(np.unique(bits)))


def encoded(pixels: NDArray[np.uint8], orientation: int, kind: str = "PNG") -> bytes:
    """A photo file that an EXIF orientation turns into these upright pixels."""
    stored = Image.fromarray(pixels)
    back = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, 1)
    turn = stored.getexif()
    turn[0x0112] = back
    stored = ImageOps.exif_transpose(stored) if back > 1 else stored
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    stored.save(file, kind, exif=exif, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return file.getvalue()


def check_views(processor: RoadworkImageProcessor, bits: NDArray[np.uint8], orientation: int, kind: str) -> None:
    for kinds in KINDS:
        photo = processor.render_views(encoded(painted(bits, kinds), orientation, kind))
        for view, pixels in enumerate(photo):
            found = view_cover(processor, bits, view)
            assert worst_iou(shown(found[..., kinds]), shown(pixels)) >= LEAST_IOU, (view, kinds)


@pytest.mark.parametrize("settings", VIEWS)
@pytest.mark.parametrize("size", [(700, 420), (300, 640), (90, 70)])
def test_every_layout_shows_the_mask_where_it_shows_the_photo(settings: dict, size: tuple[int, int]) -> None:
    check_views(RoadworkImageProcessor(view_size=224, **settings), shapes(*size), 1, "PNG")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_belong_to_the_upright_photo(orientation: int, scene: NDArray[np.uint8]) -> None:
    check_views(RoadworkImageProcessor(view_size=128), scene, orientation, "PNG")


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_a_photo_decoded_at_half_its_size_has_the_same_mask(orientation: int, fit: str) -> None:
    bits = shapes(1442, 818)
    processor = RoadworkImageProcessor(view_size=160, decode_mode="half", global_fit=fit)
    data = encoded(painted(bits, (0, 1, 2)), orientation, "JPEG")
    assert processor._decode(data).shrink == 2 and decode_photo(data).height == 818
    check_views(processor, bits, orientation, "JPEG")


def test_a_box_lies_where_arithmetic_puts_it() -> None:
    bits = np.zeros((200, 400), np.uint8)
    bits[50:100, 100:200] = 0b100010
    expected = np.zeros((32, 32), np.uint8)
    expected[8:16, 8:16] = 0b100010
    squashed = view_cover(RoadworkImageProcessor(view_size=32), bits)
    assert squashed.shape == (32, 32, 6) and (cover_bits(squashed) == expected).all()
    boxed = np.zeros((32, 32), np.uint8)  # 32 x 16 pixels between two bars of padding
    boxed[8 + 4 : 8 + 8, 8:16] = 0b100010
    letterbox = RoadworkImageProcessor(view_size=32, global_fit="letterbox")
    assert (cover_bits(view_cover(letterbox, bits)) == boxed).all()
    full = view_cover(letterbox, np.full((200, 400), 0b111111, np.uint8))
    assert not full[:8].any() and not full[24:].any() and (full[8:24] == 255).all()


def moving_only(augment: ViewAugmentation, size: int) -> ViewAugmentation:
    """Leave out weather, colour and blur, which would change what is white; what moves pixels draws as before."""
    for pipeline in augment._composed(size):
        pipeline.transforms = [one for one in pipeline.transforms if not isinstance(one, A.ImageOnlyTransform)]
    return augment


@pytest.mark.parametrize("per_view", [False, True])
@pytest.mark.parametrize("preset", [*STRENGTHS, "trivial"])
def test_masks_follow_flip_rotation_zoom_and_perspective(
    preset: str, per_view: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natix_roadwork.data.trivial_augment._colour", lambda picture, *_: picture)
    processor = RoadworkImageProcessor(view_size=224, view_layout="single")
    augment, moved = moving_only(ViewAugmentation(preset, per_view=per_view), 224), 0
    for position in range(20):
        bits = shapes(500, 380, seed=position)
        for kinds in KINDS:
            address = {"epoch": 1, "position": position}
            pixels, _, found = augment.views_and_cover(processor, painted(bits, kinds), bits, **address)
            assert worst_iou(shown(found[..., kinds]), shown(pixels[0])) >= LEAST_IOU
        moved += not np.array_equal(found, view_cover(processor, bits))
    assert moved >= 3


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
@pytest.mark.parametrize("preset", ["validator_a", "validator_b"])
def test_masks_follow_what_a_validator_cuts_and_turns(preset: str, fit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natix_roadwork.subnet.challenge.DISTORTED_LEVELS", {})
    processor = RoadworkImageProcessor(view_size=160, view_layout="single", global_fit=fit)
    augment, moved = ViewAugmentation(preset), 0
    for position in range(12):
        bits = shapes(640, 480, seed=position)
        for kinds in ((0, 0, 0), (5, 5, 5)):  # grey: a JPEG blurs colours
            pixels, _, found = augment.views_and_cover(processor, painted(bits, kinds), bits, 0, position)
            assert worst_iou(shown(found[..., kinds]), shown(pixels[0])) >= LEAST_IOU
        moved += not np.array_equal(found, view_cover(processor, bits))
    assert moved == 12 or preset == "validator_b"


def test_views_with_a_mask_are_the_views_without(scene: NDArray[np.uint8]) -> None:
    processor, photo = RoadworkImageProcessor(view_size=64), painted(scene, (0, 1, 2))
    for preset in ("heavy", "trivial", "validator_a", "none"):
        views, valid, _ = ViewAugmentation(preset).views_and_cover(processor, photo, scene, 2, 5)
        alone, valid_too = ViewAugmentation(preset).views_of(processor, photo, 2, 5)
        assert np.array_equal(views, alone) and valid == valid_too


@pytest.mark.parametrize(("size", "cells"), [(32, 8), (30, 7), (7, 30), (35, 20)])
def test_cells_hold_the_share_of_their_area(size: int, cells: int) -> None:
    cover = np.random.default_rng(0).integers(0, 256, (size, size, 6), dtype=np.uint8)
    found = shares(torch.from_numpy(cell_levels(cover, ALL, cells))).numpy()
    planes = np.moveaxis(cover, -1, 0) / 255
    fine = np.repeat(np.repeat(planes, cells, 1), cells, 2).reshape(6, cells, size, cells, size)
    np.testing.assert_allclose(found, fine.mean((2, 4)), atol=0.5 / 254 + 1e-6)
    assert found.dtype == np.float32


def test_what_is_not_known_is_nan() -> None:
    known = np.array([True, False, True, True, True, False])
    found = shares(torch.from_numpy(cell_levels(np.full((8, 8, 6), 255, np.uint8), known, 4)))
    assert found.isnan().flatten(1).all(1).tolist() == (~known).tolist()
    assert (found[known] == 1).all() and shares(torch.from_numpy(unknown_levels(4))).isnan().all()
