"""Names for places: a small table of cities of the United States, so that a region can be called something offline.

In come coordinates, out goes the nearest city with its distance. Next: `gps/clusters.py`.
"""

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.gps.distance import distances_km


FAR_KM = 300.0
# City: latitude and longitude in degrees, to about a kilometre.
CITIES: dict[str, tuple[float, float]] = {
    "Albuquerque": (35.08, -106.65),
    "Atlanta": (33.75, -84.39),
    "Austin": (30.27, -97.74),
    "Baltimore": (39.29, -76.61),
    "Billings": (45.78, -108.50),
    "Boise": (43.62, -116.20),
    "Boston": (42.36, -71.06),
    "Buffalo": (42.89, -78.88),
    "Charlotte": (35.23, -80.84),
    "Chicago": (41.88, -87.63),
    "Cincinnati": (39.10, -84.51),
    "Cleveland": (41.50, -81.69),
    "Columbus": (39.96, -83.00),
    "Dallas": (32.78, -96.80),
    "Denver": (39.74, -104.99),
    "Des Moines": (41.59, -93.62),
    "Detroit": (42.33, -83.05),
    "El Paso": (31.76, -106.49),
    "Fargo": (46.88, -96.79),
    "Houston": (29.76, -95.37),
    "Indianapolis": (39.77, -86.16),
    "Jacksonville": (30.33, -81.66),
    "Kansas City": (39.10, -94.58),
    "Las Vegas": (36.17, -115.14),
    "Little Rock": (34.75, -92.29),
    "Los Angeles": (34.05, -118.24),
    "Louisville": (38.25, -85.76),
    "Memphis": (35.15, -90.05),
    "Miami": (25.76, -80.19),
    "Milwaukee": (43.04, -87.91),
    "Minneapolis": (44.98, -93.27),
    "Nashville": (36.16, -86.78),
    "New Orleans": (29.95, -90.07),
    "New York": (40.71, -74.01),
    "Oklahoma City": (35.47, -97.52),
    "Omaha": (41.26, -95.93),
    "Orlando": (28.54, -81.38),
    "Philadelphia": (39.95, -75.17),
    "Phoenix": (33.45, -112.07),
    "Pittsburgh": (40.44, -80.00),
    "Portland": (45.52, -122.68),
    "Raleigh": (35.78, -78.64),
    "Richmond": (37.54, -77.44),
    "Sacramento": (38.58, -121.49),
    "Salt Lake City": (40.76, -111.89),
    "San Antonio": (29.42, -98.49),
    "San Diego": (32.72, -117.16),
    "San Francisco": (37.77, -122.42),
    "San Jose": (37.34, -121.89),
    "Seattle": (47.61, -122.33),
    "Spokane": (47.66, -117.43),
    "St. Louis": (38.63, -90.20),
    "Tampa": (27.95, -82.46),
    "Washington": (38.91, -77.04),
}
_PLACES = np.array(list(CITIES.values()))


def nearest_city(point: NDArray[np.float64]) -> tuple[str, float]:
    """Name the city of the table that lies nearest to a point, with its distance in kilometres.

    Args:
        point: `(2,)` latitude and longitude in degrees.
    """
    km = distances_km(np.broadcast_to(point, _PLACES.shape), _PLACES)
    nearest = int(np.argmin(km))
    return list(CITIES)[nearest], float(km[nearest])


def place_name(point: NDArray[np.float64]) -> str:
    """Call a point by its nearest city and the distance, or by its coordinates where no city is within 300 km."""
    city, km = nearest_city(point)
    if km > FAR_KM:
        north, east = "NS"[int(point[0] < 0)], "EW"[int(point[1] < 0)]
        return f"{abs(point[0]):.1f} {north} {abs(point[1]):.1f} {east}"
    return f"{city} ({km:.0f} km)"
