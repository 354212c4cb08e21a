import os
import sys
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from natix_roadwork.data import trivial_augment
from natix_roadwork.data.augmentation import seed_pipeline
from natix_roadwork.data.augmentation_effects import GEOMETRY, make_effect
from natix_roadwork.data.augmentation_presets import HEAVY
from natix_roadwork.data.augmentation_transforms import (
    BrightnessContrast,
    Flip,
    InPlace,
    Noise,
    Warp,
    hue_matrix,
    move,
    saturation_matrix,
)
from natix_roadwork.data.augmentation_weather import Fog, Rain, Shadow, blend_table, count_discs
from natix_roadwork.data.quiet_albumentations import SWITCH, A, _no_version_check


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    small = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return cv2.resize(small, (90, 90), interpolation=cv2.INTER_CUBIC)


def test_import_asks_nobody_and_leaves_the_environment() -> None:
    for before in ({}, {SWITCH: "0"}):
        with patch.dict(os.environ, before, clear=True):
            with _no_version_check():
                assert os.environ[SWITCH] == "1"
            assert dict(os.environ) == before
    assert (
        "albumentations.check_version" not in sys.modules or sys.modules["albumentations.check_version"].opener is None
    )


@pytest.mark.parametrize("coefficients", [(0.3, 1.0), (0.1, 0.3)])
def test_fog_is_that_of_albumentations(coefficients: tuple[float, float], picture: NDArray[np.uint8]) -> None:
    slow = A.RandomFog(fog_coef_range=coefficients, p=1)
    for seed in range(3):
        slow.set_random_seed(seed)
        drawn = slow.get_params_dependent_on_data({"shape": picture.shape}, {})
        positions, radii = np.array(drawn["particle_positions"]), np.array(drawn["radiuses"])
        counts = count_discs(*picture.shape[:2], positions, radii)
        table = blend_table(slow.alpha_coef * drawn["intensity"], int(counts.max()))
        fog = Fog(p=1)
        foggy = fog.apply(picture, places=fog.places(counts), table=table)
        assert np.array_equal(foggy, slow.apply(picture, **drawn))
        assert foggy.mean() > picture.mean() + 1


def test_fog_draws_as_many_discs_as_albumentations() -> None:
    slow, fast = A.RandomFog(fog_coef_range=(0.4, 0.4), p=1), Fog(fog_coef_range=(0.4, 0.4), p=1)
    covered = []
    for seed in range(8):
        slow.set_random_seed(seed)
        drawn = slow.get_params_dependent_on_data({"shape": (90, 90, 3)}, {})
        slowly = count_discs(90, 90, np.array(drawn["particle_positions"]), np.array(drawn["radiuses"]))
        fast.set_random_seed(seed)
        fast_places = fast.get_params_dependent_on_data({"shape": (90, 90, 3)}, {})["places"]
        covered.append((slowly.mean(), fast_places[:, :, 0, 1].mean()))
    slowly, fast_mean = np.mean(covered, axis=0)
    assert fast_mean == pytest.approx(slowly, rel=0.03)


def test_discs_are_counted_where_opencv_fills_them() -> None:
    draw = np.random.default_rng(1)
    centres, radii = draw.integers(-10, 50, (40, 2)), draw.integers(1, 14, 40)
    expected = np.zeros((36, 44), int)
    for (x, y), radius in zip(centres.tolist(), radii.tolist(), strict=True):
        expected += cv2.circle(np.zeros((36, 44), np.uint8), (x, y), radius, 1, -1)
    assert np.array_equal(count_discs(36, 44, centres, radii), expected)
    assert not count_discs(36, 44, centres[:0], radii[:0]).any()


def test_rain_is_that_of_albumentations(picture: NDArray[np.uint8]) -> None:
    options = {"drop_length": 8, "blur_value": 3, "brightness_coefficient": 0.8, "rain_type": "heavy", "p": 1}
    slow, fast = A.RandomRain(**options), Rain(**options)
    for rain in (slow, fast):
        rain.set_random_seed(4)
    dark = picture // 6  # where sums do not reach 255, which albumentations cuts before it darkens
    assert np.abs(fast(image=dark)["image"].astype(int) - slow(image=dark)["image"]).max() <= 1


def test_shadow_darkens_by_its_intensity_and_nothing_else(picture: NDArray[np.uint8]) -> None:
    shadow = Shadow(num_shadows_limit=(1, 1), shadow_intensity_range=(0.4, 0.4), p=1)
    shadow.set_random_seed(0)
    shaded = shadow(image=np.full((120, 120, 3), 200, np.uint8))["image"]
    assert shaded.min() == pytest.approx(120, abs=1)
    assert (shaded[:50] == 200).all()  # the upper half has none, but for the soft edge
    assert (shaded < 125).mean() > 0.05


def test_brightness_and_contrast_in_closed_form(picture: NDArray[np.uint8]) -> None:
    brighter = BrightnessContrast().apply(picture // 2, brightness=1.2, contrast=1.0)
    assert np.abs(brighter - 1.2 * (picture // 2)).max() <= 0.5 + 1e-6
    grey = np.full((8, 8, 3), 90, np.uint8)
    assert np.array_equal(BrightnessContrast().apply(grey, brightness=1.0, contrast=0.7), grey)


def test_colour_matrices() -> None:
    assert saturation_matrix(1.0) == pytest.approx(np.eye(3))
    assert saturation_matrix(0.0) @ np.array([255, 0, 0]) == pytest.approx(0.299 * np.full(3, 255))
    assert hue_matrix(0.0) == pytest.approx(np.eye(3))
    assert hue_matrix(10) @ hue_matrix(5) == pytest.approx(hue_matrix(15))
    assert hue_matrix(15) @ np.ones(3) == pytest.approx(np.ones(3), abs=2e-4)  # greys stay
    orange = np.array([255.0, 120.0, 30.0])
    angles = [np.degrees(np.arctan2(*(plane @ orange)[::-1])) for plane in _planes()]
    assert angles[1] - angles[0] == pytest.approx(-15, abs=0.1)
    green = cv2.transform(np.uint8([[[200, 100, 50]]]), hue_matrix(15))[0, 0]
    assert green[1] > 100 > green[2]  # a positive angle turns orange towards yellow


def _planes() -> list[NDArray[np.float64]]:
    from natix_roadwork.data.augmentation_transforms import RGB_TO_YIQ

    return [RGB_TO_YIQ[1:], RGB_TO_YIQ[1:] @ hue_matrix(15)]


def test_noise_has_its_deviation() -> None:
    noise = Noise(deviation=(8.0, 8.0), p=1)
    noise.set_random_seed(0)
    changed = noise(image=np.full((200, 200, 3), 128, np.uint8))["image"].astype(float) - 128
    assert changed.std() == pytest.approx(8, rel=0.03) and abs(changed.mean()) < 0.2
    assert abs(np.corrcoef(changed[..., 0].ravel(), changed[..., 1].ravel())[0, 1]) < 0.02


def test_flip_and_quarter_turn_are_exact(picture: NDArray[np.uint8]) -> None:
    assert np.array_equal(Flip(p=1)(image=picture)["image"], picture[:, ::-1])
    turn = cv2.getRotationMatrix2D((44.5, 44.5), 90, 1.0)
    turned = Warp().apply(picture, matrix=turn)
    assert np.abs(turned.astype(int) - np.rot90(picture)).max() <= 1
    assert np.array_equal(move(picture[..., 0].copy(), turn, cv2.INTER_NEAREST), np.rot90(picture[..., 0]))


def test_one_warp_is_what_the_steps_make_of_it(picture: NDArray[np.uint8]) -> None:
    warp = Warp(rotate_p=1, zoom_p=1, perspective_p=1)
    warp.set_random_seed(0)
    matrix = warp.get_params_dependent_on_data({"shape": picture.shape}, {})["matrix"]
    assert matrix.shape == (3, 3)
    three = cv2.warpPerspective(picture, matrix, (90, 90), borderMode=cv2.BORDER_REFLECT_101)
    assert np.array_equal(warp.apply(picture, matrix=matrix), three)
    assert Warp().get_params_dependent_on_data({"shape": picture.shape}, {})["matrix"] is None


@pytest.mark.parametrize("name", [name for name in HEAVY if name not in GEOMETRY])
def test_in_place_is_the_same_as_one_by_one(name: str, picture: NDArray[np.uint8]) -> None:
    effect = make_effect(name, 90, 1.0)
    assert isinstance(effect, InPlace)
    pipeline, results = A.Compose([effect]), []
    other = picture[::-1].copy()
    for pictures in ([picture, other], [other, picture]):
        seed_pipeline(pipeline, np.random.default_rng(5))
        batch = np.stack(pictures)
        done = pipeline(images=batch)["images"]
        assert np.shares_memory(done, batch)
        results.append(done.copy())
        seed_pipeline(pipeline, np.random.default_rng(5))
        assert np.array_equal(pipeline(image=pictures[0].copy())["image"], done[0])
    assert np.array_equal(results[0], results[1][::-1])
    assert not np.array_equal(results[0][0], picture)


def test_trivial_augment_draws_every_operation_and_spares_orange(picture: NDArray[np.uint8]) -> None:
    trivial, seen = trivial_augment.TrivialAugment(), {}
    trivial.set_random_seed(0)
    for _ in range(500):
        drawn = trivial.get_params_dependent_on_data({"shape": picture.shape}, {})
        seen.setdefault(drawn["operation"], set()).add(round(drawn["strength"], 9))
        assert trivial.apply(picture, **drawn).shape == picture.shape
    assert set(seen) == set(trivial_augment.OPERATIONS)
    assert seen["identity"] == {0.0}
    steps = {round(abs(value) / 30 * 30, 6) for value in seen["rotate"]}
    assert steps <= {float(step) for step in range(31)} and len(steps) > 15
    assert min(seen["saturation"]) >= -0.5 and max(map(abs, seen["hue"])) <= 15
