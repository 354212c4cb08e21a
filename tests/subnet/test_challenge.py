import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as tv

from natix_roadwork.subnet import challenge
from natix_roadwork.subnet.challenge import draw_level, validator_view


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A smooth picture with edges, 480 x 270 as a video frame, never black."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 256, (9, 16, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(coarse, (480, 270), interpolation=cv2.INTER_CUBIC) // 2 + 64)


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def _as_jpeg(image: Image.Image) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75, subsampling="4:2:0")
    return _pixels(Image.open(buffer))


@pytest.mark.parametrize("level", challenge.LEVELS)
@pytest.mark.parametrize("regime", challenge.REGIMES)
@pytest.mark.parametrize("size", [(480, 270), (100, 80), (60, 900), (700, 2)])
def test_size_mode_and_jpeg_tables(regime: str, level: int, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (120, 90, 60))
    view = validator_view(image, regime, level, np.random.default_rng(1))
    assert view.size == (size if regime == "C" else (224, 224))
    assert view.mode == "RGB"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75, subsampling="4:2:0")
    sent = Image.open(buffer)
    assert view.quantization == sent.quantization
    assert view.layer == sent.layer  # sampling factors of each channel


@pytest.mark.parametrize("regime", challenge.REGIMES)
def test_same_generator_state_same_bytes_and_the_photo_is_left_alone(photo: Image.Image, regime: str) -> None:
    before = photo.tobytes()
    np.random.seed(0)
    views = [validator_view(photo, regime, 3, np.random.default_rng(5)).tobytes() for _ in range(2)]
    assert views[0] == views[1]
    assert photo.tobytes() == before
    assert np.random.random() == np.random.RandomState(0).random_sample()  # no global draw
    if regime != "C":
        assert validator_view(photo, regime, 3, np.random.default_rng(6)).tobytes() != views[0]


def test_regime_c_is_the_photo_as_jpeg_at_any_level(photo: Image.Image) -> None:
    for level in challenge.LEVELS:
        assert (_pixels(validator_view(photo, "C", level, np.random.default_rng(level))) == _as_jpeg(photo)).all()


def test_level_0_of_regime_a_is_the_centre_square(photo: Image.Image) -> None:
    expected = tv.resize(tv.center_crop(photo, 270), [224, 224])
    assert (_pixels(validator_view(photo, "A", 0, np.random.default_rng(0))) == _as_jpeg(expected)).all()


def test_letterbox_keeps_all_of_the_photo_on_black() -> None:
    for size in [(1920, 1080), (1080, 1920)]:
        view = _pixels(validator_view(Image.new("RGB", size, "white"), "B", 0, np.random.default_rng(0)))
        view = view if size[0] > size[1] else view.swapaxes(0, 1)
        assert view[:48].max() == view[-48:].max() == 0  # 126 of 224 rows, 49 of padding on either side
        assert view[51:-51].min() >= 250


def test_crop_sides_are_those_of_torchvision_on_1080p() -> None:
    rng = np.random.default_rng(0)
    squares = [challenge._draw_square(1920, 1080, rng) for _ in range(3000)]
    sides = np.array([side for _, _, side in squares])
    assert all(left >= 0 and top >= 0 and left + s <= 1920 and top + s <= 1080 for left, top, s in squares)
    assert sides.min() in range(644, 650) and sides.max() == 1080
    torch.manual_seed(0)
    frame = torch.empty(3, 1080, 1920)
    drawn = [RandomResizedCrop.get_params(frame, [0.2, 1.0], [1.0, 1.0]) for _ in range(3000)]
    assert {height == width for _, _, height, width in drawn} == {True}
    quantiles = [0.05, 0.25, 0.5, 0.75, 0.95]
    expected = np.quantile([width for *_, width in drawn], quantiles)
    assert np.quantile(sides, quantiles) == pytest.approx(expected, abs=20)


@pytest.mark.parametrize("size", [(3000, 100), (100, 3000)])
def test_a_panorama_gives_its_centre_square(size: tuple[int, int]) -> None:
    left, top, side = challenge._draw_square(*size, np.random.default_rng(0))
    assert (left, top, side) == ((size[0] - 100) // 2, (size[1] - 100) // 2, 100)


def test_rotation_and_crop_are_those_of_torchvision(photo: Image.Image) -> None:
    tensor = tv.pil_to_tensor(photo).float() / 255
    for angle, (left, top, side) in [(-17.3, (90, 20, 240)), (4.2, (0, 0, 270)), (20.0, (210, 0, 270))]:
        ours = challenge._resized(challenge._rotated_square(photo, angle, (left, top, side))).astype(int)
        theirs = tv.resized_crop(tv.rotate(tensor, angle), top, left, side, side, [224, 224], antialias=True)
        difference = np.abs(ours - theirs.mul(255).byte().permute(1, 2, 0).numpy())
        assert difference.mean() < 0.05  # in grey levels: rows where the nearest pixel is a matter of rounding


def test_angles_are_uniform_within_20_degrees(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    angles = []
    turned = challenge._rotated_square
    monkeypatch.setattr(
        challenge, "_rotated_square", lambda image, angle, square: angles.append(angle) or turned(image, angle, square)
    )
    for seed in range(300):
        validator_view(photo, "B", 1, np.random.default_rng(seed))
    assert -20 <= min(angles) < -18 and 18 < max(angles) <= 20
    assert np.std(angles) == pytest.approx(40 / np.sqrt(12), rel=0.08)


def test_rotation_leaves_black_corners_in_regime_b() -> None:
    view = _pixels(validator_view(Image.new("RGB", (300, 300), "white"), "B", 1, np.random.default_rng(3)))
    assert all(view[row, column].max() < 10 for row in (0, -1) for column in (0, -1))
    assert view[80:140, 80:140].min() > 245


def test_flips_fire_only_on_request() -> None:
    half = np.zeros((300, 300, 3), np.uint8)
    half[:140, :140] = 255  # the bright quarter says which way is up
    image = Image.fromarray(half)

    def bright_corner(seed: int, flips: bool) -> tuple[int, int]:
        view = _pixels(validator_view(image, "B", 1, np.random.default_rng(seed), flips=flips))[..., 0]
        quarters = view.reshape(2, 112, 2, 112).mean(axis=(1, 3))
        return divmod(int(quarters.argmax()), 2)

    assert {bright_corner(seed, False) for seed in range(40)} == {(0, 0)}
    counts = np.zeros((2, 2))
    for seed in range(200):
        counts[bright_corner(seed, True)] += 1
    assert counts.min() > 30


def test_black_corners_are_cut_out_in_regime_a_too(photo: Image.Image) -> None:
    views = [_pixels(validator_view(photo, "A", 1, np.random.default_rng(seed))) for seed in range(40)]
    black = [(view.max(axis=2) < 8).any() for view in views]  # the photo itself is never darker than 64
    assert 5 < sum(black) < 40


def test_presets_say_what_is_sent(photo: Image.Image) -> None:
    assert challenge.REGIMES == ("A", "B", "C")
    for name, preset in challenge.PRESETS.items():
        view = validator_view(photo, name, preset.levels[-1], np.random.default_rng(0))
        assert view.size == (photo.size if preset.side is None else (preset.side, preset.side))
    assert [preset.synthetic_share for preset in challenge.PRESETS.values()] == [0.5, 0.5, pytest.approx(1 / 3)]
    assert [len(preset.levels) for preset in challenge.PRESETS.values()] == [4, 4, 1]


def test_levels_are_equally_likely() -> None:
    rng = np.random.default_rng(0)
    counts = np.bincount([draw_level(rng) for _ in range(8000)], minlength=4)
    assert counts / 8000 == pytest.approx(np.full(4, 0.25), abs=0.02)


@pytest.mark.parametrize(("level", "names", "strengths"), [(2, 3, 2), (3, 5, 3)])
def test_distortions_of_a_level(monkeypatch: pytest.MonkeyPatch, level: int, names: int, strengths: int) -> None:
    seen: list[tuple[int, float]] = []
    recorded = [
        (lambda pixels, amount, rng, place=place: seen.append((place, amount)) or pixels, amounts)
        for place, (_, amounts) in enumerate(challenge.DISTORTIONS)
    ]
    monkeypatch.setattr(challenge, "DISTORTIONS", recorded)
    pixels = np.zeros((8, 8, 3), np.uint8)
    for seed in range(900):
        start = len(seen)
        challenge._distort(pixels, level, np.random.default_rng(seed))
        order = [place for place, _ in seen[start:]]
        assert order == sorted(order)
    drawn = {key: seen.count(key) / 900 for key in set(seen)}
    table = [(0.4, 0.3), (0.85, 0.725), (2, 3), (0.001, 0.002), (7, 9)]
    expected = {(place, amount) for place in range(names) for amount in table[place][: strengths - 1]}
    assert drawn == pytest.approx(dict.fromkeys(expected, 1 / strengths), abs=0.05)


def _apply(name: str, pixels: np.ndarray, amount: float, seed: int = 0) -> np.ndarray:
    return getattr(challenge, name)(pixels, amount, np.random.default_rng(seed)).astype(float)


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)


@pytest.mark.parametrize("factor", [0.4, 0.3])
def test_saturation_moves_colours_towards_their_luma(colours: np.ndarray, factor: float) -> None:
    luma = (colours @ np.array([0.299, 0.587, 0.114]))[..., None]
    expected = luma + factor * (colours - luma)
    assert (
        np.abs(_apply("_saturation", colours, factor) - (expected - 0.5)).max() < 0.75
    )  # truncated, constants of 3 digits


@pytest.mark.parametrize("factor", [0.85, 0.725])
def test_contrast_darkens_and_truncates(colours: np.ndarray, factor: float) -> None:
    assert (_apply("_contrast", colours, factor) == np.floor(colours * np.float32(factor))).all()


@pytest.mark.parametrize("divisor", [2, 3])
def test_scaling_loses_detail_and_keeps_flat_areas(divisor: int) -> None:
    stripes = np.zeros((224, 224, 3), np.uint8)
    stripes[:, ::2] = 200
    small = cv2.resize(stripes, (224 // divisor, 224 // divisor))
    assert (_apply("_scaling", stripes, divisor) == cv2.resize(small, (224, 224))).all()
    assert (_apply("_scaling", np.full((224, 224, 3), 77, np.uint8), divisor) == 77).all()


@pytest.mark.parametrize("variance", [0.001, 0.002])
def test_noise_has_the_deviation_of_each_channel(variance: float) -> None:
    """Y and chroma get sqrt(variance) x 255 x 255 / range grey levels; red adds 1.403 Cr, blue 1.773 Cb."""
    noisy = _apply("_noise", np.full((224, 224, 3), 128, np.uint8), variance)
    unit = np.sqrt(variance) * 255**2
    luma, chroma = unit / 219, unit / 224
    expected = [np.hypot(luma, weight * chroma) for weight in (1.403, np.hypot(0.714, 0.344), 1.773)]
    assert noisy.std(axis=(0, 1)) == pytest.approx(expected, rel=0.02)
    assert noisy.mean(axis=(0, 1)) == pytest.approx(np.full(3, 127.5), abs=0.4)


@pytest.mark.parametrize("kernel", [7, 9])
def test_blur_is_gaussian_with_a_sixth_of_the_kernel(kernel: int) -> None:
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 255
    offsets = np.arange(31) - 15
    bell = np.exp(-(offsets**2) / (2 * (kernel / 6) ** 2)) * (np.abs(offsets) <= kernel // 2)
    expected = 255 * np.outer(bell, bell) / bell.sum() ** 2
    assert np.abs(_apply("_blur", point, kernel)[..., 0] - expected).max() < 1.5


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"image": np.zeros((4, 4, 3))}, "image"),
        ({"image": Image.new("L", (4, 4))}, "image"),
        ({"regime": "D"}, "regime"),
        ({"level": 4}, "level"),
        ({"level": True}, "level"),
        ({"level": 1.0}, "level"),
        ({"rng": 0}, "rng"),
    ],
)
def test_a_wrong_argument_is_named(change: dict, name: str) -> None:
    arguments = {"image": Image.new("RGB", (4, 4)), "regime": "A", "level": 1, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        validator_view(**{**arguments, **change})
