import numpy as np
import pytest
from numpy.typing import NDArray

from natix_roadwork.data.augmentation import ViewAugmentation
from natix_roadwork.data.augmentation_night import LowLight, low_light_table
from natix_roadwork.data.augmentation_picture import effect_examples
from natix_roadwork.data.augmentation_presets import NIGHT, probabilities
from natix_roadwork.data.quiet_albumentations import A


def views(mean: int = 140, count: int = 3) -> NDArray[np.uint8]:
    """Views of grey levels around a mean."""
    draw = np.random.default_rng(0)
    return draw.integers(mean - 20, mean + 21, (count, 64, 64, 3), dtype=np.uint8)


def looked_up(table: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([table[0, levels[..., channel], channel] for channel in range(3)], axis=-1)


def test_a_table_without_gamma_and_cast_scales_levels() -> None:
    table = low_light_table(np.full((1, 8, 8, 3), 100, np.uint8), wanted=50.0, gamma=1.0, turn=0.0)
    assert table.shape == (1, 256, 3)
    assert np.array_equal(table[0, :, 0], np.rint(np.arange(256) / 2)) and np.array_equal(table[..., 0], table[..., 2])


@pytest.mark.parametrize("gamma", [1.0, 1.4, 1.8])
def test_the_wanted_grey_level_is_reached(gamma: float) -> None:
    found = looked_up(low_light_table(views(), 45.0, gamma, turn=0.1), views())
    assert found.mean() == pytest.approx(45, abs=1.5)
    assert found[..., 0].mean() > found[..., 1].mean() > found[..., 2].mean()


def test_a_dark_photo_is_not_made_darker() -> None:
    table = low_light_table(views(25), wanted=60.0, gamma=1.8, turn=0.0)
    assert np.array_equal(table[0, :, 1], np.arange(256))
    assert low_light_table(np.zeros((1, 8, 8, 3), np.uint8), 20.0, 1.0, 0.0)[0, 255, 1] == 255


def test_light_is_never_added() -> None:
    """A photo that gamma makes darker than wanted keeps that."""
    table = low_light_table(views(70), wanted=69.0, gamma=1.8, turn=0.0)
    assert (table[0, :, 1] <= np.arange(256)).all()


def test_views_of_a_photo_share_their_light() -> None:
    both = np.concatenate([views(200, 1), views(60, 1)])
    pipeline = A.Compose([LowLight(mean=(40.0, 40.0), cast=0.0, p=1.0)], seed=0)
    bright, dark = pipeline(images=both.copy())["images"]
    assert bright.mean() > 2 * dark.mean() and (bright.mean() + dark.mean()) / 2 == pytest.approx(40, abs=2)


def test_draws_are_functions_of_their_address() -> None:
    augment = ViewAugmentation("night", seed=3)
    draws = [augment(views(), 1, position) for position in range(8)]
    augment(views(90), 7, 7)
    assert all(
        np.array_equal(ViewAugmentation("night", seed=3)(views(), 1, position), draws[position])
        for position in reversed(range(8))
    )
    assert len({draw.tobytes() for draw in draws}) == 8
    assert not np.array_equal(draws[0], ViewAugmentation("night", seed=4)(views(), 1, 0))


def test_most_draws_are_dark_and_some_are_not() -> None:
    augment = ViewAugmentation("night")
    levels = np.array([augment(views(), 0, position).mean() for position in range(100)])
    assert 0.65 < (levels < 90).mean() < 0.95 and levels.min() > 10 and levels.max() > 120


def test_a_mask_follows_the_geometry_and_nothing_else() -> None:
    augment, cover = ViewAugmentation("night"), np.zeros((64, 64, 6), np.uint8)
    cover[20:40, 20:40, :2] = 255
    for position in range(10):
        _, moved = augment(views(), 0, position, cover)
        assert (
            moved[..., :2].max() == 255 and not moved[..., 2:].any()
        )  # as full as it was: darkness does not touch it
        assert np.array_equal(moved[..., 0], moved[..., 1])


def test_the_picture_shows_every_effect() -> None:
    assert probabilities("night") == NIGHT
    shown = effect_examples(views()[0])
    names = {name.replace("_", " ") for name in NIGHT}
    assert names <= set(shown) and sum(name.startswith("night") for name in shown) == 3
    assert shown["low light"].mean() < 80 < shown["as it is"].mean()
    assert all((shown[name] != shown["as it is"]).any() for name in names)
