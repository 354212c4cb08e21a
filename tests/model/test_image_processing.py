import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, pipeline

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification, RoadworkImageProcessor


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def small(**settings: object) -> RoadworkImageProcessor:
    return RoadworkImageProcessor(**{"view_size": 32, **settings})


def test_a_batch_of_mixed_photos_has_the_shapes_of_the_contract() -> None:
    batch = small()([noise(200, 150), jpeg(noise(90, 160)), np.asarray(noise(20, 30))])
    assert batch["pixel_values"].shape == (3, 12, 3, 32, 32)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["view_mask"].shape == (3, 12) and batch["view_mask"].dtype == torch.bool
    assert batch["view_mask"][0].all()
    assert batch["view_mask"][2].tolist() == [True] + [False] * 11


def lanczos_of(photo: Image.Image, processor: RoadworkImageProcessor) -> np.ndarray:
    """Each view as Pillow makes it, `(V, S, S, 3)`; all boxes are squares, or the whole photo."""
    size = (processor.view_size, processor.view_size)
    crops = [photo.crop(box) for box in processor.view_boxes(*photo.size)]
    return np.stack([np.asarray(crop.resize(size, Image.Resampling.LANCZOS)) for crop in crops])


def test_each_view_is_its_box_resized_with_lanczos() -> None:
    photo, processor = noise(240, 180), small(do_normalize=False, resize_backend="pillow")
    views = processor(photo)["pixel_values"][0]
    assert views.dtype == torch.uint8 and len(views) == processor.num_views == 12
    assert np.array_equal(views.permute(0, 2, 3, 1), lanczos_of(photo, processor))


@pytest.mark.parametrize("size", [(240, 180), (180, 240), (97, 201), (20, 30), (1, 1)])
def test_the_fast_views_are_those_of_pillow_but_for_single_grey_levels(size: tuple[int, int]) -> None:
    photo, processor = noise(*size).resize(size, Image.Resampling.BICUBIC), small()
    views = processor.render_views(photo)
    assert views.shape == (12, 32, 32, 3) and views.dtype == np.uint8 and views.flags.c_contiguous
    expected = small(resize_backend="pillow").render_views(photo)
    difference = np.abs(views.astype(int) - expected)
    assert difference.max() <= 2 and difference.mean() < 0.02


def test_views_do_not_depend_on_the_number_of_threads() -> None:
    photo, processor, threads = noise(800, 600), small(view_size=128), torch.get_num_threads()
    try:
        views = []
        for count in (1, 2):
            torch.set_num_threads(count)
            views.append(processor.render_views(photo))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*views)


def test_normalised_views_follow_from_the_8_bit_ones() -> None:
    photo = noise(100, 80)
    raw = small(do_normalize=False)(photo)["pixel_values"].double() / 255
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in ((0.1, 0.2, 0.3), (0.5, 1, 2)))
    normal = small(image_mean=(0.1, 0.2, 0.3), image_std=(0.5, 1, 2))(photo)["pixel_values"]
    assert torch.allclose(normal.double(), (raw - mean) / std, atol=1e-6)


def test_letterbox_keeps_the_aspect_of_the_global_view_and_pads_with_the_mean() -> None:
    photo = Image.new("RGB", (200, 100), (255, 255, 255))
    view = small(global_fit="letterbox")(photo)["pixel_values"][0, 0]
    assert view[:, :8].abs().max() < 0.01 and view[:, 24:].abs().max() < 0.01
    assert view[:, 8:24].min() > 2
    assert small(global_fit="squash")(photo)["pixel_values"][0, 0].min() > 2


def test_a_strip_is_padded_not_stretched() -> None:
    views = small(do_normalize=False)(Image.new("RGB", (320, 16), (255, 255, 255)))["pixel_values"][0]
    tile_width = 129
    rows = round(16 * 32 / tile_width)
    assert (views[1] == 255).all(dim=0).sum() == 32 * rows


def test_single_layout_gives_one_view() -> None:
    batch = small(view_layout="single")([noise(80, 60), noise(10, 10)])
    assert batch["pixel_values"].shape == (2, 1, 3, 32, 32)
    assert batch["view_mask"].all()


def test_views_of_a_rotated_photo_equal_those_of_the_upright_one() -> None:
    photo = noise(120, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    photo.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif.tobytes())
    assert torch.equal(small()(buffer.getvalue())["pixel_values"], small()(photo)["pixel_values"])


def test_a_batch_array_is_a_list_of_photos() -> None:
    photos = [noise(40, 30, seed) for seed in (0, 1)]
    expected = small()(photos)["pixel_values"]
    stacked = np.stack([np.asarray(photo) for photo in photos])
    assert torch.equal(small()(stacked)["pixel_values"], expected)
    assert torch.equal(small()(torch.from_numpy(stacked).permute(0, 3, 1, 2))["pixel_values"], expected)


def test_numpy_is_given_on_request_and_torch_by_default() -> None:
    processor, photo = small(), noise(40, 30)
    assert isinstance(processor(photo, return_tensors="np")["pixel_values"], np.ndarray)
    assert isinstance(processor(photo, return_tensors=None)["pixel_values"], torch.Tensor)


def test_a_call_may_override_settings_without_changing_the_processor() -> None:
    processor, photo = small(), noise(40, 30)
    assert processor(photo, do_normalize=False, view_layout="single")["pixel_values"].shape == (1, 1, 3, 32, 32)
    assert processor.do_normalize is True and processor.num_views == 12
    with pytest.raises(ValueError, match="do_resize"):
        processor(photo, do_resize=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"view_size": 0}, "view_size.*0"),
        ({"view_size": "224"}, "view_size.*'224'"),
        ({"view_size": True}, "view_size.*True"),
        ({"view_layout": "photo9"}, "view_layout.*photo9"),
        ({"squares": ["center"]}, "squares.*center"),
        ({"global_fit": "crop"}, "global_fit.*crop"),
        ({"image_mean": [0.5, 0.5]}, "image_mean.*0.5"),
        ({"image_mean": [0.5, 0.5, float("nan")]}, "image_mean.*nan"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std.*0.0"),
        ({"do_normalize": "yes"}, "do_normalize.*yes"),
        ({"do_normalize": 1}, "do_normalize.*1"),
        ({"resample": 9}, "resample.*9"),
        ({"max_megapixels": 0}, "max_megapixels.*0"),
        ({"decode_mode": "quarter"}, "decode_mode.*quarter"),
        ({"resize_backend": "cv2"}, "resize_backend.*cv2"),
        ({"view_sice": 224}, "view_sice.*224.*did you mean 'view_size'"),
    ],
)
def test_impossible_settings_are_named_with_their_value(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RoadworkImageProcessor(**settings)


def test_an_unreadable_photo_is_named_by_its_position() -> None:
    with pytest.raises(ValueError, match=r"images\[1\].*truncated"):
        small()([noise(40, 30), jpeg(noise(400, 300))[:3000]])
    with pytest.raises(ValueError, match="at least one photo"):
        small()([])
    with pytest.raises(ValueError, match=r"max_megapixels = 0\.001"):
        small(max_megapixels=0.001)(jpeg(noise(40, 30)))


@pytest.fixture
def changed() -> RoadworkImageProcessor:
    """A processor with no setting at its default."""
    return RoadworkImageProcessor(
        view_size=48,
        view_layout="photo12",
        squares=("left", "right"),
        global_fit="letterbox",
        image_mean=(0.5, 0.4, 0.3),
        image_std=(0.3, 0.2, 0.1),
        do_normalize=False,
        resample=Image.Resampling.BICUBIC,
        max_megapixels=10,
        decode_mode="half",
        resize_backend="pillow",
    )


def test_a_processor_saved_before_there_were_decode_modes_still_loads(tmp_path: Path) -> None:
    small(global_fit="letterbox").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    older = {name: value for name, value in saved.items() if name not in ("decode_mode", "resize_backend")}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(older))
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert loaded.settings() == small(global_fit="letterbox").settings()


@pytest.mark.parametrize("trust_remote_code", [False, True])
def test_a_saved_processor_loads_back_equal(
    changed: RoadworkImageProcessor, tmp_path: Path, trust_remote_code: bool
) -> None:
    changed.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path, trust_remote_code=trust_remote_code)
    assert type(loaded) is RoadworkImageProcessor
    assert loaded.settings() == changed.settings()
    assert torch.equal(loaded(noise(90, 70))["pixel_values"], changed(noise(90, 70))["pixel_values"])
    loaded.save_pretrained(tmp_path / "again")
    again, first = (
        json.loads((folder / "preprocessor_config.json").read_text()) for folder in (tmp_path / "again", tmp_path)
    )
    assert again == first


def test_a_setting_can_be_changed_while_loading(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path, view_size=64).view_size == 64
    with pytest.raises(ValueError, match=r"view_size.*-1"):
        AutoImageProcessor.from_pretrained(tmp_path, view_size=-1)


def test_the_saved_folder_carries_the_code_and_names_it(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "RoadworkImageProcessor"
    assert saved["auto_map"] == {"AutoImageProcessor": "image_processing_roadwork.RoadworkImageProcessor"}
    assert {path.name for path in tmp_path.glob("*.py")} == {
        "image_processing_roadwork.py",
        "photo.py",
        "resize.py",
        "views.py",
    }


def test_the_code_of_the_folder_runs_on_its_own(changed: RoadworkImageProcessor, tmp_path: Path) -> None:
    changed.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    # a type the Auto classes do not know leaves only the code in the folder
    saved["image_processor_type"] = "UnregisteredImageProcessor"
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
    loaded = AutoImageProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(loaded) is not RoadworkImageProcessor
    assert type(loaded).__module__.startswith("transformers_modules.")
    assert torch.equal(loaded(noise(90, 70))["pixel_values"], changed(noise(90, 70))["pixel_values"])


def test_a_copy_in_a_loader_worker_gives_the_same_views() -> None:
    processor = pickle.loads(pickle.dumps(small()))
    photos = [jpeg(noise(60, 40, seed)) for seed in range(4)]
    loader = DataLoader(photos, batch_size=2, collate_fn=processor, num_workers=1, multiprocessing_context="fork")
    views = torch.cat([batch["pixel_values"] for batch in loader])
    assert torch.equal(views, small()(photos)["pixel_values"])


def test_the_pipeline_classifies_photos_one_by_one_and_in_batches(
    tiny_model: RoadworkForImageClassification, tiny_config: RoadworkConfig
) -> None:
    processor = small(view_size=tiny_config.view_size)
    classify = pipeline("image-classification", model=tiny_model, image_processor=processor)
    photos = [noise(100, 80), noise(20, 10, 1), noise(70, 90, 2)]
    singly = [classify(photo) for photo in photos]
    assert {answer["label"] for answer in singly[0]} == {"None", "Roadwork"}
    for one, other in zip(singly, classify(photos, batch_size=3), strict=True):
        assert [answer["label"] for answer in one] == [answer["label"] for answer in other]
        assert [answer["score"] for answer in one] == pytest.approx([answer["score"] for answer in other], abs=1e-5)
