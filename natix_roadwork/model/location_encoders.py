"""GPS encoders: degrees become a vector that a linear layer can read.

Comes in: `(B, 2)` latitude and longitude in degrees. Goes out: `(B, 128)`, to the metadata encoder. A pretrained
location encoder (GeoCLIP) is left out: recipes/README.md says why.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


GPS_WIDTH = 128
EARTH_RADIUS_KM = 6371.0088
EARTH_CIRCUMFERENCE_KM = 2 * math.pi * EARTH_RADIUS_KM
SHORTEST_WAVELENGTH_KM = 25.0
BANDS = 32  # a coordinate, each with a sine and a cosine
HIGHEST_BAND = 1024  # cycles around the Earth: 39 km at the equator
HARMONICS_DEGREE = 10


def planned_sinusoids(degrees: Tensor) -> Tensor:
    """The plan's bands: sin and cos of pi f x, x = latitude / 90 or longitude / 180, 32 log-spaced f in 1 ... 10,000.

    They are not periodic in longitude, and the top bands have a wavelength of 2 to 4 km, short enough to learn single
    streets by heart; `capped_sinusoids` is the sound form.

    Args:
        degrees: `(B, 2)` latitude, longitude.

    Returns:
        `(B, 128)`.
    """
    bands = torch.logspace(0, 4, BANDS, device=degrees.device)
    return _waves(_turns(degrees, 180).unsqueeze(-1) * bands).flatten(1)


def capped_sinusoids(degrees: Tensor) -> Tensor:
    """Bands of whole cycles around the Earth, none with a wavelength below 25 km anywhere.

    Whole cycles make both coordinates periodic. A parallel shrinks with the cosine of the latitude, and so do the
    wavelengths along it: a band of the longitude fades out linearly between 50 and 25 km. At the poles all have faded,
    so the features are continuous there.

    Args:
        degrees: `(B, 2)` latitude, longitude.

    Returns:
        `(B, 128)`.
    """
    bands = degrees.new_tensor(whole_bands())
    waves = _waves(_turns(degrees, 360).unsqueeze(-1) * bands)  # (B, 2, 32, 2)
    parallel_km = EARTH_CIRCUMFERENCE_KM * degrees[:, :1].deg2rad().cos()
    fade = ((parallel_km / bands - SHORTEST_WAVELENGTH_KM) / SHORTEST_WAVELENGTH_KM).clamp(0, 1)  # (B, 32)
    latitude, longitude = waves.unbind(1)
    return torch.cat([latitude.flatten(1), (longitude * fade.unsqueeze(-1)).flatten(1)], dim=1)


def whole_bands() -> list[int]:
    """The 32 different cycle counts of the capped bands: nearly geometric from 1 to 1024."""
    bands: list[int] = []
    for index in range(BANDS):
        geometric = round(HIGHEST_BAND ** (index / (BANDS - 1)))
        bands.append(max(geometric, bands[-1] + 1 if bands else 1))
    return bands


def spherical_harmonics(degrees: Tensor, degree: int = HARMONICS_DEGREE) -> Tensor:
    """Real spherical harmonics up to a degree, each with a mean square of 1 over the sphere.

    The associated Legendre functions come from the fully normalised three-term recurrence (Holmes and Featherstone,
    Journal of Geodesy 76, 2002), stable at the poles. As a location encoding: Russwurm et al.,
    https://arxiv.org/abs/2310.06743. Degree 10 has wavelengths of 4,000 km and more.

    Args:
        degrees: `(B, 2)` latitude, longitude.
        degree: Highest degree L.

    Returns:
        `(B, (L + 1)^2)`.
    """
    latitude, longitude = degrees.deg2rad().unbind(1)
    sine, cosine = latitude.sin(), latitude.cos()
    columns: list[Tensor] = []
    diagonal = torch.ones_like(sine)
    for m in range(degree + 1):
        if m:
            diagonal = diagonal * cosine * math.sqrt((2 * m + 1) / (2 * m))
        around = [(math.sqrt(2) * wave) for wave in ((m * longitude).cos(), (m * longitude).sin())] if m else [1.0]
        before, legendre = torch.zeros_like(sine), diagonal
        for n in range(m, degree + 1):
            if n > m:
                first = math.sqrt((4 * n**2 - 1) / (n**2 - m**2))
                second = math.sqrt(((n - 1) ** 2 - m**2) / (4 * (n - 1) ** 2 - 1)) if n > m + 1 else 0.0
                before, legendre = legendre, first * (sine * legendre - second * before)
            columns += [legendre * wave for wave in around]
    return torch.stack(columns, dim=1)


def wrapped_coordinates(degrees: Tensor) -> Tensor:
    """Sine and cosine of pi latitude / 90 and pi longitude / 180, the input of SINR; both poles are one point.

    Args:
        degrees: `(B, 2)` latitude, longitude.

    Returns:
        `(B, 4)`.
    """
    return _waves(_turns(degrees, 180)).flatten(1)


def jittered(degrees: Tensor, deviation_km: float) -> Tensor:
    """Moves each position by a normal step of `deviation_km` to the north and another to the east.

    The draw is torch's, like that of dropout.

    Args:
        degrees: `(B, 2)` latitude, longitude.
        deviation_km: Standard deviation of each of the two steps.

    Returns:
        `(B, 2)` within -90 ... 90 and -180 ... 180.
    """
    km_a_degree = EARTH_CIRCUMFERENCE_KM / 360
    steps = torch.randn_like(degrees) * (deviation_km / km_a_degree)
    latitude = (degrees[:, 0] + steps[:, 0]).clamp(-90, 90)
    shrink = degrees[:, 0].deg2rad().cos().clamp_min(1e-3)  # a step at a pole leads to any longitude
    longitude = torch.remainder(degrees[:, 1] + steps[:, 1] / shrink + 180, 360) - 180
    return torch.stack([latitude, longitude], dim=1)


class ResidualBlock(nn.Module):
    """Two linear layers with ReLU, dropout .5 between them, and a residual (Cole et al., SINR, arXiv 2306.02564)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, width), nn.ReLU()
        )

    def forward(self, values: Tensor) -> Tensor:
        """Maps `(B, W)` to `(B, W)`."""
        return values + self.layers(values)


class LocationEncoder(nn.Module):
    """Degrees `(B, 2)` to `(B, 128)` by one of the four encoders; the last two have weights.

    `sinusoids` is the plan's, `capped` its sound form; `spherical_harmonics` puts two layers after the harmonics of
    degree 10, `wrap` the residual network of SINR after four wrapped coordinates.

    Args:
        kind: Name of the encoder.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.features = FEATURES[kind]
        self.network: nn.Sequential | None = None
        if kind == "spherical_harmonics":
            inputs = (HARMONICS_DEGREE + 1) ** 2
            self.network = nn.Sequential(nn.Linear(inputs, GPS_WIDTH), nn.GELU(), nn.Linear(GPS_WIDTH, GPS_WIDTH))
        elif kind == "wrap":
            blocks = (ResidualBlock(GPS_WIDTH) for _ in range(4))
            self.network = nn.Sequential(nn.Linear(4, GPS_WIDTH), nn.ReLU(), *blocks)

    def forward(self, degrees: Tensor) -> Tensor:
        """Encodes finite degrees; the waves are computed in float32 whatever the type of the weights."""
        features = self.features(degrees.float())
        if self.network is not None:
            features = self.network(features.to(self.network[0].weight.dtype))
        return features


def _turns(degrees: Tensor, latitude_period: float) -> Tensor:
    """Degrees `(B, 2)` in turns: one turn is 360 degrees of longitude, `latitude_period` degrees of latitude."""
    return degrees / degrees.new_tensor([latitude_period, 360.0])


def _waves(turns: Tensor) -> Tensor:
    """Sine and cosine of `(...)` turns as `(..., 2)`; whole turns are taken off first, which keeps float32 exact."""
    angles = 2 * math.pi * (turns - turns.round())
    return torch.stack([angles.sin(), angles.cos()], dim=-1)


FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "sinusoids": planned_sinusoids,
    "capped": capped_sinusoids,
    "spherical_harmonics": spherical_harmonics,
    "wrap": wrapped_coordinates,
}
