"""The depth of a photo as its last view: where it lies, what moves it, which rows have it, in batches and in the cache."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.augmentation import ViewAugmentation
from natix_roadwork.data.augmentation_effects import make_effect
from natix_roadwork.data.depth import depth_path, write_depth
from natix_roadwork.data.depth_source import RowDepths, find_depths
from natix_roadwork.data.depth_views import depth_view
from natix_roadwork.data.draws import Draw
from natix_roadwork.data.feature_cache import extract_features
from natix_roadwork.data.feature_key import FeatureOptions, feature_record
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.photo_batches import PhotoRows
from tests.photo_rows import photo_rows


SIZE = (120, 90)


def ramp(width: int, height: int) -> NDArray[np.uint8]:
    """Brighter to the right and a little to the bottom, so that every flip and turn shows."""
    across, down = np.meshgrid(np.linspace(0, 160, width), np.linspace(0, 60, height))
    return (across + down + 20).astype(np.uint8)


def encoded(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).convert("RGB").save(file, "PNG")
    return file.getvalue()


def depth_rows(num_rows: int, folder: Path, without: tuple[int, ...] = (1,)) -> Dataset:
    rows = photo_rows(num_rows)
    for row in range(num_rows):
        if row not in without:
            depth = np.random.default_rng(row).integers(0, 256, (30, 40), dtype=np.uint8)
            write_depth(folder, f"row:{row}", depth)
    for name, value in zip(("width", "height"), SIZE, strict=True):
        rows = rows.add_column(name, [value] * num_rows)
    return rows


@pytest.fixture
def model(tiny_config: RoadworkConfig) -> RoadworkForImageClassification:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    values = tiny_config.to_dict() | {"num_views": 13, "depth_view": True}
    return RoadworkForImageClassification(RoadworkConfig(**values)).eval()


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_depth_lies_where_the_global_view_lies(fit: str) -> None:
    processor = RoadworkImageProcessor(view_size=64, global_fit=fit, image_mean=(0.5, 0.5, 0.5))
    photo = ramp(400, 300)
    expected = processor.render_views(encoded(photo))[0]
    assert np.array_equal(depth_view(processor, photo), expected)
    small = np.array(Image.fromarray(photo).resize((80, 60)))
    assert np.abs(depth_view(processor, small).astype(int) - expected).mean() < 3


@pytest.mark.parametrize(("preset", "per_view"), [("light", False), ("heavy", False), ("plan", True)])
def test_depth_goes_where_the_global_view_goes(preset: str, per_view: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    flip = "natix_roadwork.data.augmentation.photo_effects"
    monkeypatch.setattr(flip, lambda _, size: [make_effect("flip", size, 0.5)])  # what else there is moves nothing
    processor, augmentation = RoadworkImageProcessor(view_size=64), ViewAugmentation(preset, seed=3, per_view=per_view)
    photo, flipped = ramp(*SIZE), 0
    for position in range(40):
        view = augmentation.views_of(processor, encoded(photo), 0, position)[0][0]
        depth = augmentation.depth_view(processor, photo, SIZE, 0, position)
        inside = cv2.erode((depth[..., 0] > 15).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert inside.mean() > 0.3 and np.abs(view[inside].astype(int) - depth[inside]).max() <= 1
        flipped += int(depth[32, 16, 0]) > depth[32, 48, 0]
    assert 5 < flipped < 35


@pytest.mark.parametrize("preset", ["trivial", "validator_a", "validator_b"])
def test_depth_follows_what_else_moves_the_photo(preset: str) -> None:
    processor, augmentation = RoadworkImageProcessor(view_size=64), ViewAugmentation(preset, seed=3)
    photo = ramp(400, 300)
    small = np.array(Image.fromarray(photo).resize((80, 60)))
    for position in range(25):
        view = augmentation.views_of(processor, encoded(photo), 0, position)[0][0].mean(axis=2)
        depth = augmentation.depth_view(processor, small, (400, 300), 0, position)[..., 0]
        inside = depth > 15
        if inside.any() and view[inside].std() > 3:  # an effect may leave nothing of the photo
            assert np.corrcoef(view[inside], depth[inside])[0, 1] > 0.5, position


def test_depth_is_not_changed_in_colour() -> None:
    processor, white = RoadworkImageProcessor(view_size=64), np.full((30, 40), 255, np.uint8)
    for position in range(10):
        depth = ViewAugmentation("heavy", seed=1).depth_view(processor, white, SIZE, 0, position)
        middle = depth[24:40, 24:40]
        assert (middle == 255).all()


def test_rows_have_one_view_more_and_without_a_map_it_is_masked(tmp_path: Path) -> None:
    rows, processor = depth_rows(3, tmp_path), RoadworkImageProcessor(view_size=32, do_normalize=False)
    depths = find_depths({"train": rows}, str(tmp_path))
    assert depths.as_dict() == {"rows": 3, "with_depth": 2}
    assert depths.summary() == "2 rows with a depth map, 1 without, such as 'row:1'"
    augmentation = ViewAugmentation("heavy", seed=0)
    for augment, draws in ((None, [0, 1, 2]), (augmentation, [Draw(row, 0, row) for row in range(3)])):
        plain = PhotoRows(rows, processor, augmentation=augment).read(draws)
        batch = PhotoRows(rows, processor, augmentation=augment, depths=depths).read(draws)
        assert batch["pixel_values"].shape == (3, 13, 3, 32, 32)
        assert torch.equal(batch["pixel_values"][:, :12], plain["pixel_values"])
        assert torch.equal(batch["view_mask"][:, :12], plain["view_mask"])
        assert batch["view_mask"][:, 12].tolist() == [True, False, True]
        assert not batch["pixel_values"][1, 12].any() and batch["pixel_values"][0, 12].any()


def test_bad_maps_are_refused_counted_and_named(tmp_path: Path) -> None:
    rows = depth_rows(4, tmp_path, without=())
    depth_path(tmp_path, "row:0").write_bytes(b"no picture")
    write_depth(tmp_path, "row:2", np.zeros((40, 30), np.uint8))
    Image.new("RGB", (40, 30)).save(depth_path(tmp_path, "row:3"))
    with pytest.raises(
        ValueError, match=r"'damaged': 1, 'wrong aspect': 1, 'wrong format': 1.*row 'row:0': depth map"
    ) as e:
        find_depths({"train": rows}, str(tmp_path))
    assert "row 'row:2': depth map" in str(e.value) and "is 30x40, which is not the aspect" in str(e.value)
    with pytest.raises(ValueError, match=r"has no depth map of any of the 4 rows, such as \['row:0'\]"):
        (tmp_path / "empty").mkdir()
        find_depths({"train": rows}, str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="is no folder"):
        find_depths({"train": rows}, str(tmp_path / "no"))


def test_a_map_that_goes_while_training_is_named(tmp_path: Path) -> None:
    rows, processor = depth_rows(2, tmp_path, without=()), RoadworkImageProcessor(view_size=32)
    photos = PhotoRows(rows, processor, depths=find_depths({"train": rows}, str(tmp_path)))
    depth_path(tmp_path, "row:1").unlink()
    with pytest.raises(ValueError, match=r"row 'row:1': depth map .* is missing"):
        photos.read([1])


def test_cached_tokens_of_depth_are_the_live_ones(tmp_path: Path, model: RoadworkForImageClassification) -> None:
    rows, processor = depth_rows(3, tmp_path / "depth"), RoadworkImageProcessor(view_size=32, do_normalize=False)
    depths, augmentation = find_depths({"train": rows}, str(tmp_path / "depth")), ViewAugmentation("heavy", seed=0)
    options = FeatureOptions(2, augmentation=augmentation, depths=depths)
    cache = extract_features(rows, model, processor, options, folder=tmp_path / "cache")
    assert cache.shape[:3] == (3, 3, 13)
    photos = PhotoRows(rows, processor, augmentation=augmentation, depths=depths)
    for draw in range(3):
        draws = list(range(3)) if draw == 0 else [Draw(row, draw - 1, row) for row in range(3)]
        live = photos.read(draws)
        assert torch.equal(cache.shards[0]["tokens"][:, draw], model.extract_tokens(live["pixel_values"]).half())
        assert torch.equal(cache.shards[0]["view_mask"], live["view_mask"])


def test_the_depth_view_takes_the_global_view_s_draw(tmp_path: Path, model: RoadworkForImageClassification) -> None:
    rows, processor = depth_rows(2, tmp_path / "depth", ()), RoadworkImageProcessor(view_size=32)
    options = FeatureOptions(
        3, augmentation=ViewAugmentation("heavy"), depths=find_depths({"a": rows}, str(tmp_path / "depth"))
    )
    cache = extract_features(rows, model, processor, options, folder=tmp_path / "cache")
    features, tokens = FeatureRows(cache, rows), cache.shards[0]["tokens"]
    other = 0
    for position in range(12):
        read = features.read([Draw(0, 0, position)])["view_features"][0]
        chosen = [draw for draw in range(4) if torch.equal(read[0], tokens[0, draw, 0])]
        assert torch.equal(read[12], tokens[0, chosen[0], 12])
        other += not torch.equal(read[1], tokens[0, chosen[0], 1])
    assert other


def test_maps_enter_the_key_and_a_cache_without_them_keeps_its_own(
    tmp_path: Path, model: RoadworkForImageClassification, tiny_model: RoadworkForImageClassification
) -> None:
    rows, processor = depth_rows(2, tmp_path), RoadworkImageProcessor(view_size=32)
    plain = feature_record(rows, tiny_model, processor, FeatureOptions())
    assert "depth" not in plain and feature_record(rows, model, processor, FeatureOptions()) == plain | {
        "backbone_sha256": model.backbone_hash()
    }

    def key(depths: RowDepths) -> str:
        return feature_record(rows, model, processor, FeatureOptions(depths=depths))["depth"]

    depths = find_depths({"train": rows}, str(tmp_path))
    before = key(depths)
    write_depth(tmp_path, "row:0", np.full((30, 40), 7, np.uint8))
    assert key(depths) != before


def test_a_depth_model_reads_photos_without_maps(tmp_path: Path, model: RoadworkForImageClassification) -> None:
    rows, processor = depth_rows(2, tmp_path), RoadworkImageProcessor(view_size=32)
    cache = extract_features(rows, model, processor, FeatureOptions(), folder=tmp_path / "cache")
    batch = FeatureRows(cache, rows).read([0, 1])
    assert batch["view_features"].shape[1] == 12
    assert torch.isfinite(model(**batch).logits).all()
