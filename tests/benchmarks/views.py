"""Decoding a photo and cutting its twelve views, against Pillow; run with `make bench-views`.

The photo is a 4032 x 3024 JPEG (quality 90, 4:2:0, some 3 MB): a street photo of `--photos` enlarged, or a drawn scene,
with the noise of a sensor. Differences are mean absolute ones in grey levels: of `views` over all twelve, of `half`
that of the view that is furthest off. Pillow's way: `Image.open`, then `crop` and `resize` with LANCZOS, to `uint8`.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from ratios import Comparison, fastest_rounds, finish, options

from natix_roadwork import RoadworkImageProcessor
from natix_roadwork.data.scene_table import SceneSettings
from natix_roadwork.data.scenes import draw_scene
from natix_roadwork.model.photo import load_photo


SIZE = (4032, 3024)
NOISE = 5.0  # deviation in grey levels
DECODE_BAR, VIEWS_BAR, HALF_VIEWS_BAR, HALF_BAR = 1.7, 5.5, 13.0, 6.0
SAME, ALIKE = 0.01, 1.0
VIEW_SIZES = (512, 518)


def main() -> None:
    """Times each step and checks the differences."""
    chosen = options(__doc__, paths=("photos",), number=0)
    data = sensor_photo(chosen.photos, chosen.number)
    print(f"{len(data) / 1e6:.2f} MB")
    rows = [decode_row(data, chosen.rounds)]
    for view_size in VIEW_SIZES:
        rows += view_rows(data, view_size, chosen.rounds)
    finish(rows, chosen)


def sensor_photo(folder: Path | None, number: int) -> bytes:
    """The `number`-th photo of a folder, or a drawn scene, as a phone would store it."""
    if folder is None:
        small = Image.fromarray(draw_scene(number, SceneSettings(width=SIZE[0] // 3)).photo)
    else:
        small = Image.open(sorted(folder.glob("*.jpg"))[number])
    pixels = np.asarray(small.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC), dtype=np.float32)
    pixels = pixels + np.random.default_rng(number).normal(0.0, NOISE, pixels.shape).astype(np.float32)
    stored = io.BytesIO()
    Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(stored, "JPEG", quality=90, subsampling="4:2:0")
    return stored.getvalue()


def decode_row(data: bytes, rounds: int) -> Comparison:
    """Bytes to an array `(H, W, 3)`."""
    ways = {"pillow": lambda: np.asarray(Image.open(io.BytesIO(data))), "ours": lambda: load_photo(data)}
    return compared("decode", ways, rounds, DECODE_BAR, apart(ways["pillow"](), ways["ours"]()).max(), 0.0)


def view_rows(data: bytes, view_size: int, rounds: int) -> list[Comparison]:
    """Views of the decoded photo and of its bytes, decoded whole and at half the size."""
    full = RoadworkImageProcessor(view_size=view_size)
    half = RoadworkImageProcessor(view_size=view_size, decode_mode="half")
    picture = Image.open(io.BytesIO(data))
    picture.load()
    decoded = {"full": full._decode(data), "half": half._decode(data)}
    assert decoded["half"].shrink == 2

    def by_pillow(photo: Image.Image) -> np.ndarray:
        crops = [photo.crop(box).resize((view_size, view_size), Image.Resampling.LANCZOS) for box in boxes]
        return np.stack([np.asarray(crop) for crop in crops])

    boxes = full.view_boxes(*SIZE)
    times = fastest_rounds(
        {
            "pillow": lambda: by_pillow(picture),
            "views": lambda: full._render(decoded["full"]),
            "half views": lambda: half._render(decoded["half"]),
            "pillow from bytes": lambda: by_pillow(Image.open(io.BytesIO(data))),
            "from bytes": lambda: full.render_views(data),
            "half from bytes": lambda: half.render_views(data),
        },
        rounds,
    )
    expected = by_pillow(picture)
    same = apart(expected, full.render_views(data)).max()
    alike = apart(expected, half.render_views(data)).max()
    bars = {
        "views": ("pillow", VIEWS_BAR, same, SAME),
        "half views": ("pillow", HALF_VIEWS_BAR, alike, ALIKE),
        "from bytes": ("pillow from bytes", None, same, SAME),
        "half from bytes": ("pillow from bytes", HALF_BAR, alike, ALIKE),
    }
    return [
        Comparison(
            f"{name}, {view_size} px", times[plain], times[name], times[plain] / times[name], bar, False, *errors
        )
        for name, (plain, bar, *errors) in bars.items()
    ]


def compared(
    name: str, ways: dict[str, Callable[[], object]], rounds: int, bar: float, error: float, error_bar: float
) -> Comparison:
    """One row of `pillow` and `ours`."""
    times = fastest_rounds(ways, rounds)
    plain, ours = times["pillow"], times["ours"]
    return Comparison(name, plain, ours, plain / ours, bar, False, error, error_bar)


def apart(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each view `(V, S, S, 3)`, or of each row of a photo."""
    return np.abs(expected.astype(np.int16) - found).reshape(len(expected), -1).mean(axis=1)


if __name__ == "__main__":
    main()
