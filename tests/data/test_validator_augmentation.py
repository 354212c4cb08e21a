import numpy as np
import pytest
from PIL import Image

from natix_roadwork.data.augmentation import ViewAugmentation
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.subnet.challenge import validator_view


@pytest.fixture
def photo() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((640, 360), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("preset", "regime"), [("validator_a", "A"), ("validator_b", "B")])
def test_views_are_cut_from_what_a_validator_sends(preset: str, regime: str, photo: Image.Image) -> None:
    processor = RoadworkImageProcessor(view_layout="single", view_size=224)
    augment = ViewAugmentation(preset, seed=2)
    levels = [np.asarray(validator_view(photo, regime, 0, np.random.default_rng(0)))]
    drawn = []
    for position in range(12):
        views, valid = augment.views_of(processor, photo, epoch=0, position=position)
        assert views.shape == (1, 224, 224, 3) and views.dtype == np.uint8 and valid == [True]
        drawn.append(views[0])
    again = ViewAugmentation(preset, seed=2).views_of(processor, photo, epoch=0, position=7)[0]
    assert np.array_equal(again[0], drawn[7])
    clean = [np.array_equal(view, levels[0]) for view in drawn]
    assert 0 < sum(clean) < 12  # level 0 is one in four and draws nothing more


def test_other_presets_cut_the_photo_itself(photo: Image.Image) -> None:
    processor = RoadworkImageProcessor(view_size=32)
    views, valid = ViewAugmentation("light").views_of(processor, photo, epoch=1, position=2)
    assert np.array_equal(views, ViewAugmentation("light")(processor.render_views(photo), 1, 2))
    assert valid == processor.view_mask(*photo.size)
    from_array, valid_too = ViewAugmentation("light").views_of(processor, np.asarray(photo), epoch=1, position=2)
    assert np.array_equal(from_array, views) and valid_too == valid
