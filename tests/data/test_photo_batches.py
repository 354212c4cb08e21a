import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.draws import Draw, whole_batch
from natix_roadwork.data.photo_batches import PhotoRows, collate_rows, photo_source, photo_transform
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from tests.photo_rows import AddressedNoise, photo_rows


@pytest.fixture
def processor() -> RoadworkImageProcessor:
    return RoadworkImageProcessor(view_size=32)


@pytest.fixture
def loaded(natix_folder: Path, tmp_path: Path) -> LoadedRows:
    return load_rows(str(natix_folder), cache_dir=str(tmp_path / "cache"))


def test_rows_become_a_batch(loaded: LoadedRows, processor: RoadworkImageProcessor) -> None:
    rows = loaded.splits["test"].with_transform(photo_transform(processor))
    batch = next(iter(DataLoader(rows, batch_size=4, collate_fn=collate_rows)))
    assert batch["pixel_values"].shape == (4, 12, 3, 32, 32)
    assert batch["view_mask"].shape == (4, 12)
    assert batch["view_mask"].dtype == torch.bool
    assert batch["labels"].tolist() == [0, 1, 0, 1]


def test_batch_equals_the_processor_alone(loaded: LoadedRows, processor: RoadworkImageProcessor) -> None:
    dataset = loaded.splits["test"]
    row = dataset.with_transform(photo_transform(processor))[2]
    views = processor(images=photo_source(dataset[2]["image"]), return_tensors="pt")
    assert torch.equal(row["pixel_values"], views["pixel_values"][0])
    assert torch.equal(row["view_mask"], views["view_mask"][0])


def test_draws_are_augmented_by_their_address_and_bare_rows_are_not() -> None:
    processor = RoadworkImageProcessor(view_size=32, do_normalize=False)
    rows = PhotoRows(photo_rows(4), processor, augmentation=AddressedNoise())
    draws = [Draw(2, 1, 7), Draw(2, 1, 8), Draw(0, 3, 7)]
    (batch,) = rows.__getitems__(draws)
    for draw, pixels in zip(draws, batch["pixel_values"], strict=True):
        clean = processor.render_views(photo_rows(4)[draw.row]["image"]["bytes"])
        expected = AddressedNoise()(clean, epoch=draw.epoch, position=draw.position)
        assert torch.equal(pixels, torch.from_numpy(expected).permute(0, 3, 1, 2))
    clean = processor([photo_rows(4)[row]["image"]["bytes"] for row in (3, 1)])
    bare = rows.read([3, 1])
    assert torch.equal(bare["pixel_values"], clean["pixel_values"]) and bare["labels"].tolist() == [1, 1]


def test_processor_has_the_only_limit_of_a_photo() -> None:
    small, large = (RoadworkImageProcessor(view_size=32, max_megapixels=limit) for limit in (0.01, 0.011))
    assert PhotoRows(photo_rows(2), large).read([1])["labels"].tolist() == [1]  # the photos have 120 x 90 pixels
    with pytest.raises(ValueError, match=r"row 'row:1': the photo cannot be decoded .*0\.01"):
        PhotoRows(photo_rows(2), small).read([1])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_normalised_rows_go_through_a_loader(processor: RoadworkImageProcessor, num_workers: int) -> None:
    rows = PhotoRows(photo_rows(3), processor, augmentation=AddressedNoise())
    batch = next(iter(DataLoader(rows, batch_size=3, collate_fn=whole_batch, num_workers=num_workers)))
    expected = processor([row["image"]["bytes"] for row in photo_rows(3)])
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])


def test_transform_survives_the_way_to_a_worker(loaded: LoadedRows, processor: RoadworkImageProcessor) -> None:
    rows = loaded.splits["train"].with_transform(photo_transform(processor))
    copied = pickle.loads(pickle.dumps(rows))
    assert torch.equal(copied[5]["pixel_values"], rows[5]["pixel_values"])


def test_damage_met_in_training_names_the_row(
    tmp_path: Path,
    write_imagefolder: Callable[..., Path],
    photo: Callable[..., bytes],
    processor: RoadworkImageProcessor,
) -> None:
    folder = write_imagefolder(tmp_path / "f", [{"file_name": f"{n}.jpg", "label": n % 2} for n in range(12)])
    data = photo()
    (folder / "3.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xc8" + data[len(data) // 2 + 2 :])
    options = {"cache_dir": str(tmp_path / "cache")}
    rows = [row for split in load_rows(str(folder), **options).splits.values() for row in split]
    damaged = next(row for row in rows if row["row_id"] == "train/3.jpg")
    with pytest.raises(ValueError, match=r"row 'train/3\.jpg': the photo cannot be decoded .*--verify_images true"):
        photo_transform(processor)({name: [value] for name, value in damaged.items()})
    report = load_rows(str(folder), verify_images=True, **options).report
    assert [problem.row_id for problem in report.dropped] == ["train/3.jpg"]
