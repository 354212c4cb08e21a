import math

import numpy as np
import pytest
import torch
from torch import Tensor

from natix_roadwork.model.location_encoders import (
    EARTH_CIRCUMFERENCE_KM,
    FEATURES,
    GPS_WIDTH,
    SHORTEST_WAVELENGTH_KM,
    LocationEncoder,
    capped_sinusoids,
    jittered,
    planned_sinusoids,
    spherical_harmonics,
    whole_bands,
    wrapped_coordinates,
)


def places(*pairs: tuple[float, float]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.float64)


@pytest.mark.parametrize("kind", list(FEATURES))
def test_every_encoder_gives_128_finite_channels_anywhere(kind: str) -> None:
    degrees = places((0, 0), (90, 0), (-90, 180), (40.7, -74.0), (0, -180))
    encoded = LocationEncoder(kind).eval()(degrees)
    assert encoded.shape == (5, GPS_WIDTH) and encoded.dtype == torch.float32 and encoded.isfinite().all()


@pytest.mark.parametrize("features", [capped_sinusoids, spherical_harmonics, wrapped_coordinates])
def test_longitude_is_periodic(features: object) -> None:
    latitude = torch.linspace(-89, 89, 50, dtype=torch.float64)
    east, west = (torch.stack([latitude, torch.full_like(latitude, side)], 1).float() for side in (180.0, -180.0))
    torch.testing.assert_close(features(east), features(west), atol=2e-5, rtol=0)


def test_planned_bands_break_at_the_date_line_and_are_as_planned() -> None:
    east, west = planned_sinusoids(places((40, 180)).float()), planned_sinusoids(places((40, -180)).float())
    assert (east - west).abs().max() > 0.5
    waves = planned_sinusoids(places((9, 18)).float()).reshape(2, 32, 2)  # x = .1 in both
    bands = 10 ** np.linspace(0, 4, 32)
    np.testing.assert_allclose(waves[0, :, 0], np.sin(np.pi * 0.1 * bands), atol=3e-3)
    np.testing.assert_allclose(waves[1, :, 1], np.cos(np.pi * 0.1 * bands), atol=3e-3)


def test_capped_bands_are_different_whole_numbers_from_1_to_1024() -> None:
    bands = whole_bands()
    assert len(set(bands)) == 32 and bands == sorted(bands) and (bands[0], bands[-1]) == (1, 1024)


@pytest.mark.parametrize("axis", [0, 1])
def test_capped_waves_are_never_shorter_than_25_km(axis: int) -> None:
    latitudes = torch.linspace(-89.9, 89.9, 181, dtype=torch.float64)
    degrees = torch.stack([latitudes, torch.full_like(latitudes, 12.3)], 1)
    along = torch.zeros_like(degrees)
    along[:, axis] = 1
    waves, slopes = torch.func.jvp(capped_sinusoids, (degrees,), (along,))
    own = slice(64 * axis, 64 * axis + 64)
    amplitudes, rates = (values[:, own].unflatten(1, (32, 2)).norm(dim=2) for values in (waves, slopes))
    km_a_degree = EARTH_CIRCUMFERENCE_KM / 360 * (latitudes.deg2rad().cos() if axis else torch.ones_like(latitudes))
    cycles_a_km = rates / km_a_degree.unsqueeze(1) / (2 * math.pi)
    heard = amplitudes > 1e-12
    assert (cycles_a_km[heard] / amplitudes[heard]).max() <= 1 / SHORTEST_WAVELENGTH_KM
    assert (cycles_a_km[~heard] < 1e-9).all()
    assert heard[90].all() and (axis == 0 or not heard[0].all())  # all at the equator, not near a pole


def test_capped_features_are_continuous_at_a_pole() -> None:
    around = torch.stack([torch.full((8,), 90.0), torch.arange(8) * 45.0 - 180], 1)
    encoded = capped_sinusoids(around)
    torch.testing.assert_close(encoded, encoded[:1].expand(8, -1), atol=1e-6, rtol=0)


def test_spherical_harmonics_are_orthonormal() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(12)
    longitudes = np.arange(24) * 15.0 - 180
    grid = np.stack(np.meshgrid(np.degrees(np.arcsin(nodes)), longitudes, indexing="ij"), -1).reshape(-1, 2)
    values = spherical_harmonics(torch.from_numpy(grid)).numpy()
    area = np.repeat(weights / 2 / len(longitudes), len(longitudes))  # sums to 1; exact up to degree 23
    assert values.shape[1] == 121
    np.testing.assert_allclose(values.T @ (area[:, None] * values), np.eye(121), atol=1e-12)


def test_first_harmonics_are_the_coordinates() -> None:
    values = spherical_harmonics(places((30, 60)), degree=1)[0]
    z, x, y = 0.5, math.sqrt(3) / 2 * 0.5, 0.75
    torch.testing.assert_close(values, torch.tensor([1, z * 3**0.5, x * 3**0.5, y * 3**0.5], dtype=torch.float64))


def test_jitter_moves_by_its_deviation_and_stays_on_earth() -> None:
    torch.manual_seed(0)
    start = places((60, 179.99)).expand(20_000, 2)
    moved = jittered(start, 2.0)
    north = (moved[:, 0] - 60) * EARTH_CIRCUMFERENCE_KM / 360
    east = (torch.remainder(moved[:, 1] - 179.99 + 180, 360) - 180) * EARTH_CIRCUMFERENCE_KM / 360 * 0.5
    assert north.std().item() == pytest.approx(2.0, rel=0.03) and east.std().item() == pytest.approx(2.0, rel=0.03)
    edges = jittered(places((90, 0), (-90, -180)).repeat(500, 1), 5.0)
    assert (edges[:, 0].abs() <= 90).all() and (edges[:, 1].abs() <= 180).all()
    assert (moved[:, 1] < 0).any()  # across the date line
