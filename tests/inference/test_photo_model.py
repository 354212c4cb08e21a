"""A saved model says of a single photo what it says anywhere else, full or stock, with adapters and with TTA."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    pipeline,
)

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.dataset import load_rows
from natix_roadwork.inference.photo_model import TTA_MODES, load_photo_model, mean_views
from natix_roadwork.inference.row_evidence import EvidenceReader, ViewEvidence
from natix_roadwork.inference.tta_transforms import transform_photo
from natix_roadwork.model.photo import load_photo
from natix_roadwork.training.adapter_files import load_adapters
from tests.inference.conftest import save_model
from tests.inference.test_predict_adapters import predicted, write_folds
from tests.recipe_photos import write_photos
from tests.saved_member import member_and_photos


def save_stock(folder: Path, labels: tuple[str, ...] = ("Roadwork", "None")) -> Path:
    """Save a tiny stock classifier, as a lite model is one, with its labels in an order of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = ViTConfig(image_size=32, patch_size=16, id2label=dict(enumerate(labels)), **sizes)
        ViTForImageClassification(config).eval().save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def stock_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stock(tmp_path_factory.mktemp("lite"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same picture in every way of storing it that differs when it is read."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    photo, turned = Image.fromarray(pixels), Image.Exif()
    turned[0x0112] = 6
    photo.save(folder / "plain.jpg", quality=95)
    photo.save(folder / "turned.jpg", quality=95, exif=turned)
    photo.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    photo.save(folder / "photo.png")
    photo.save(folder / "photo.webp")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    return sorted(folder.iterdir())


def direct(folder: Path, photo: Path) -> float:
    model = RoadworkForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        output = model(**RoadworkImageProcessor.from_pretrained(folder)(str(photo)))
    return float(output.logits.softmax(-1)[0, 1])


def test_every_way_of_storing_a_photo_is_read_as_by_the_processor(saved_model: Path, photos: list[Path]) -> None:
    model = load_photo_model(str(saved_model))
    found = [reading.probability for reading in model.answer([model.prepare(photo) for photo in photos])]
    assert len(photos) == 6 and len(set(found)) == 6
    # The model's own tokens are not rounded to float16 as the cache's are.
    np.testing.assert_allclose(found, [direct(saved_model, photo) for photo in photos], atol=2e-3)


def test_a_photo_gets_the_answer_that_the_recipe_gives_it(
    tiny_model: RoadworkForImageClassification, tmp_path: Path
) -> None:
    settings = member_and_photos(tmp_path, tiny_model)
    wanted = predicted(settings)
    model = load_photo_model(settings.model)
    photos = [model.prepare(Path(settings.dataset_name) / row_id) for row_id in wanted.row_ids]
    found = [reading.probability for reading in model.answer(photos)]
    np.testing.assert_allclose(found, wanted.probabilities, atol=1e-6)


def test_views_are_those_of_the_error_report(saved_model: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "rows")
    row = load_rows(str(tmp_path / "rows"), near_duplicates=False).splits["dev"][0]
    model = load_photo_model(str(saved_model))
    (found,) = model.answer([model.prepare(row["image"]["bytes"] or row["image"]["path"])], explain=True)
    wanted = EvidenceReader(str(saved_model), load_rows(str(tmp_path / "rows")).splits["dev"], "").explain(
        row, (128, 96)
    )
    assert [(view.name, view.box, view.state) for view in found.views] == [
        (view.name, view.box, view.state) for view in wanted.views
    ]
    weights = [[view.weight for view in views] for views in (found.views, wanted.views)]
    np.testing.assert_allclose(*weights, atol=2e-3)
    assert sum(weights[0]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.shares, wanted.shares, atol=2e-3)


def test_a_model_that_reads_metadata_answers_from_the_photo_alone(metadata_model: Path, photos: list[Path]) -> None:
    model = load_photo_model(str(metadata_model))
    (found,) = model.answer([model.prepare(photos[0])])
    assert found.probability == pytest.approx(direct(metadata_model, photos[0]), abs=2e-3)


def test_tta_is_the_mean_over_the_variants_and_explains_the_photo_as_it_is(
    saved_model: Path, photos: list[Path]
) -> None:
    model, pixels = load_photo_model(str(saved_model)), load_photo(photos[-1])
    variants = [model.prepare(transform_photo(pixels, number)) for number in range(16)]
    wanted = np.mean([model.answer([variant])[0].probability for variant in variants])
    both = [model.prepare(photo, TTA_MODES["mean"]) for photo in (photos[-1], photos[0])]
    first, second = model.answer(both, explain=True)
    assert first.probability == pytest.approx(wanted, abs=1e-6) and second.probability != first.probability
    (plain,) = model.answer([model.prepare(photos[-1])], explain=True)
    assert [view.state for view in first.views] == [view.state for view in plain.views]
    np.testing.assert_allclose([view.weight for view in first.views], [view.weight for view in plain.views], atol=1e-5)


def test_adapters_answer_with_the_mean_of_their_logits(tmp_path: Path, photos: list[Path]) -> None:
    folder = save_model(tmp_path / "model")
    adapters = write_folds(str(folder), tmp_path / "adapters")
    model = load_photo_model(str(folder), adapters=str(adapters))
    (found,) = model.answer([model.prepare(photos[0])], explain=True)
    base = RoadworkForImageClassification.from_pretrained(folder).eval()
    wearing, inputs = load_adapters(base, adapters), RoadworkImageProcessor.from_pretrained(folder)(str(photos[0]))
    outputs = []
    for name in ("fold0", "fold1"):
        wearing.set_adapter(name)
        with torch.inference_mode():
            outputs.append(wearing(**inputs))
    logits = torch.stack([output.logits for output in outputs]).mean(0)
    assert found.probability == pytest.approx(float(logits.softmax(-1)[0, 1]), abs=2e-3)
    assert sum(view.weight for view in found.views) == pytest.approx(1, abs=1e-5)
    assert found.probability != pytest.approx(direct(folder, photos[0]), abs=2e-3)


def test_a_view_that_one_adapter_keeps_is_kept() -> None:
    box = (0, 0, 1, 1)
    kept, dropped = ViewEvidence("a", box, "kept", 0.5, 0.9), ViewEvidence("a", box, "dropped", 0.0, None)
    assert mean_views([[dropped], [kept]]) == [ViewEvidence("a", box, "kept", 0.25, 0.9)]
    assert mean_views([[dropped], [dropped]]) == [dropped]


def test_a_stock_model_answers_as_its_pipeline(stock_model: Path, photos: list[Path]) -> None:
    model, classify = load_photo_model(str(stock_model)), pipeline("image-classification", model=str(stock_model))
    assert not model.has_views
    found = model.answer([model.prepare(photo) for photo in photos], explain=True)
    for reading, photo in zip(found, photos, strict=True):
        said = classify(Image.fromarray(load_photo(photo)))
        assert reading.probability == pytest.approx(
            next(x["score"] for x in said if x["label"] == "Roadwork"), abs=1e-5
        )
        assert reading.views == [] and reading.shares is None
    (mean,) = model.answer([model.prepare(photos[0], TTA_MODES["mean"])])
    assert 0 < abs(mean.probability - found[0].probability) < 0.5


def test_models_that_know_no_roadwork_and_wrong_settings_are_refused(
    stock_model: Path, saved_model: Path, tmp_path: Path
) -> None:
    cats = save_stock(tmp_path / "cats", ("cat", "dog"))
    assert AutoModelForImageClassification.from_pretrained(cats).config.num_labels == 2
    with pytest.raises(
        ValueError, match=r"labels \['cat', 'dog'\]; a roadwork model has several, one of them 'Roadwork'"
    ):
        load_photo_model(str(cats))
    with pytest.raises(ValueError, match=r"adapters='x': model=.* is of type 'vit', which takes none"):
        load_photo_model(str(stock_model), adapters="x")
    with pytest.raises(ValueError, match=r"device='cuda:99' cannot be used|device='tpu' cannot be used"):
        load_photo_model(str(saved_model), device="tpu")
    with pytest.raises(ValueError, match=r"no model with its image processor"):
        load_photo_model(str(tmp_path / "nothing"))


def test_a_stock_model_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    folder = save_stock(tmp_path / "pickled")
    state = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickled'.*safetensors"):
        load_photo_model(str(folder))


@pytest.mark.parametrize("kind", ["saved_model", "stock_model"])
def test_a_file_too_long_for_any_photo_is_not_read(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with open(tmp_path / "long.tif", "wb") as file:
        file.truncate(2**30)  # sparse: it takes no room
    model = load_photo_model(str(request.getfixturevalue(kind)))
    with pytest.raises(ValueError, match=r"long.tif' has 1074 MB, more than the 707 MB .* max_megapixels = 80"):
        model.prepare(tmp_path / "long.tif")
