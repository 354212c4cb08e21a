import pickle
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from natix_roadwork.data.augmentation import ViewAugmentation
from natix_roadwork.data.augmentation_effects import GEOMETRY
from natix_roadwork.data.augmentation_presets import HEAVY, MOST, PLAN, PRESETS, STRENGTHS, probabilities


SIZE = 48
DRAWN = ("heavy", "trivial")


@pytest.fixture
def views() -> NDArray[np.uint8]:
    """Twelve views without symmetry."""
    return np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("per_view", [False, True])
@pytest.mark.parametrize("preset", DRAWN)
def test_a_draw_depends_on_its_address_only(preset: str, per_view: bool, views: NDArray[np.uint8]) -> None:
    augment = ViewAugmentation(preset, seed=3, per_view=per_view)
    first = [augment(views, epoch=1, position=position) for position in range(6)]
    again = ViewAugmentation(preset, seed=3, per_view=per_view)
    for position in (4, 0, 2):
        again(views[:2], epoch=0, position=position)
        np.random.seed(position)
        assert np.array_equal(again(views, epoch=1, position=position), first[position])
    assert len({part.tobytes() for part in first}) == 6
    assert not np.array_equal(again(views, epoch=2, position=0), first[0])
    assert not np.array_equal(ViewAugmentation(preset, seed=4, per_view=per_view)(views, 1, 0), first[0])


@pytest.mark.parametrize("per_view", [False, True])
@pytest.mark.parametrize("preset", DRAWN)
def test_a_view_does_not_depend_on_the_others(preset: str, per_view: bool, views: NDArray[np.uint8]) -> None:
    augment = ViewAugmentation(preset, per_view=per_view)
    for position in range(5):
        together = augment(views, 0, position)
        for view in (7, 0, 11):
            alone = augment(views[[view]], 0, position, view_indices=[view])
            assert np.array_equal(alone[0], together[view])


def test_views_of_a_photo_share_all_but_the_geometry(views: NDArray[np.uint8]) -> None:
    same = np.repeat(views[:1], 4, axis=0)
    trivial = [ViewAugmentation("trivial", per_view=each)(same, 0, 2) for each in (False, True)]
    assert all(np.array_equal(view, trivial[0][0]) for view in trivial[0])
    assert len({view.tobytes() for view in trivial[1]}) > 1
    warped = ViewAugmentation("x1.5")(same, 0, 0)
    assert len({view.tobytes() for view in warped}) > 1


def test_input_is_left_alone(views: NDArray[np.uint8]) -> None:
    before, mask = views.copy(), views[0, ..., :2].copy()
    ViewAugmentation("x1.5")(views, 0, 0, mask)
    assert np.array_equal(views, before) and np.array_equal(mask, before[0, ..., :2])
    assert np.array_equal(ViewAugmentation("none")(views, 0, 0), before)


class _Drawn(Dataset):
    """Positions as a data loader's workers see them: what is drawn there, and the threads of OpenCV."""

    def __init__(self, augment: ViewAugmentation, views: NDArray[np.uint8]) -> None:
        self.augment, self.views = augment, views

    def __len__(self) -> int:
        return 4

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.augment(self.views, 5, position)), cv2.getNumThreads()


def test_workers_draw_the_same_with_one_thread_each(views: NDArray[np.uint8]) -> None:
    augment, threads = ViewAugmentation("heavy", seed=7), cv2.getNumThreads()
    size = len(pickle.dumps(augment))
    here = torch.stack([torch.from_numpy(augment(views, 5, position)) for position in range(4)])
    assert len(pickle.dumps(augment)) == size < 300
    (there, workers_threads), *_ = DataLoader(_Drawn(ViewAugmentation("heavy", seed=7), views), 4, num_workers=1)
    assert torch.equal(there, here)
    assert workers_threads.tolist() == [1] * 4 and cv2.getNumThreads() == threads


def test_presets_have_the_planned_values() -> None:
    assert probabilities("plan") == PLAN
    assert {
        "flip": 0.7, "rotate": 0.5, "perspective": 0.25, "zoom": 0.4, "brightness_contrast": 0.5, "saturation": 0.4,
        "hue": 0.25, "rain": 0.25, "fog": 0.25, "shadow": 0.3, "flare": 0.2, "noise": 0.2, "motion_blur": 0.15,
        "gaussian_blur": 0.15,
    } == PLAN  # fmt: skip
    assert probabilities("heavy") == PLAN | {"flip": 0.5} == HEAVY
    for preset, factor in (("light", 0.5), ("x0.75", 0.75), ("x1.5", 1.5)):
        expected = {name: min(MOST, factor * p) for name, p in HEAVY.items()}
        assert probabilities(preset) == pytest.approx(expected)
    assert max(p for preset in STRENGTHS for p in probabilities(preset).values()) <= MOST
    assert probabilities("none") == probabilities("trivial") == probabilities("validator_a") == {}


def test_effects_happen_as_often_as_they_should() -> None:
    augment, draws = ViewAugmentation("heavy", per_view=True), 600
    view, happened = np.zeros((1, 8, 8, 3), np.uint8), Counter()
    names = [name for name in HEAVY if name not in GEOMETRY]
    for position in range(draws):
        augment(view, 0, position)
        geometry, others = augment._composed(8)
        happened["warp"] += geometry.transforms[0].params["matrix"] is not None
        happened.update(name for name, one in zip(names, others.transforms, strict=True) if one.params)
    expected = {name: HEAVY[name] for name in names} | {"warp": 1 - (1 - 0.5) * (1 - 0.25) * (1 - 0.4)}
    assert set(happened) == set(expected)
    for name, p in expected.items():
        assert abs(happened[name] - draws * p) < 4 * (draws * p * (1 - p)) ** 0.5, name


def test_settings_tell_all_that_decides_the_outcome() -> None:
    known = {
        str(ViewAugmentation(preset, seed=seed, per_view=each).settings())
        for preset in PRESETS
        for seed in (0, 1)
        for each in (False, True)
    }
    assert len(known) == 4 * len(PRESETS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": np.zeros((2, 8, 8, 3))}, r"views must be a uint8 array .*float64 \(2, 8, 8, 3\)"),
        ({"views": np.zeros((8, 8, 3), np.uint8)}, r"views must .*uint8 \(8, 8, 3\)"),
        ({"views": np.zeros((2, 8, 9, 3), np.uint8)}, r"views must"),
        ({"mask": np.zeros((4, 4, 6), np.uint8)}, r"mask must be a uint8 array \(8, 8, C\).*\(4, 4, 6\)"),
        ({"mask": np.zeros((8, 8, 6), bool)}, r"mask must .*bool"),
        (
            {"mask": np.zeros((8, 8, 6), np.uint8), "view_indices": [3, 4]},
            r"view_indices=\[3, 4\] lacks the global view",
        ),
        ({"view_indices": [3, 3]}, r"view_indices=\[3, 3\] must name each of the 2 views once"),
        ({"epoch": -1}, r"epoch=-1 and position=0 must be 0 or more"),
    ],
)
def test_wrong_input_is_named(change: dict, message: str) -> None:
    arguments = {"views": np.zeros((2, 8, 8, 3), np.uint8), "epoch": 0, "position": 0} | change
    with pytest.raises(ValueError, match=message):
        ViewAugmentation("heavy")(**arguments)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="augmentation='hevy' is no preset; did you mean 'heavy'"):
        ViewAugmentation("hevy")
    with pytest.raises(ValueError, match="seed=-1"):
        ViewAugmentation("heavy", seed=-1)
    with pytest.raises(ValueError, match="acts on the photo before its views are cut; call views_of"):
        ViewAugmentation("validator_a")(np.zeros((1, 8, 8, 3), np.uint8), 0, 0)
