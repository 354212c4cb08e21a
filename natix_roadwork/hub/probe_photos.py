"""Photos to try a model on, as JPEG bytes of native size, the way a miner receives them.

In comes a folder of street photos, or nothing; `check_answers.py` asks the model about each.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from natix_roadwork.data.imagefolder import photos_in
from natix_roadwork.data.scene_table import SceneSettings, plan_rows
from natix_roadwork.data.scenes import draw_plan
from natix_roadwork.model.photo import load_photo


MOST = 16  # photos taken from a folder, spread over its names
VIDEO, PHONE = (1920, 1080), (4032, 3024)  # the sizes of NATIX's photos
QUALITY = 75  # of the validators' JPEGs


def probe_photos(folder: str | Path | None, seed: int = 0) -> dict[str, bytes]:
    """Return JPEG bytes by name: photos of the folder, or drawn scenes and noise where there is none.

    Args:
        folder: Folder of photos, sub-folders included; at most 16 are taken.
        seed: Decides what is drawn.

    Raises:
        ValueError: If the folder holds no photo, or one cannot be read; it is named.
    """
    if folder is None:
        return _drawn(seed)
    names = sorted(photos_in(Path(folder)))
    if not names:
        raise ValueError(f"photos={str(folder)!r} holds no photo; give a folder of JPEG or PNG files")
    chosen = np.unique(np.linspace(0, len(names) - 1, min(MOST, len(names))).round().astype(int))
    return {names[row]: _jpeg(Image.fromarray(load_photo(Path(folder) / names[row]))) for row in chosen.tolist()}


def _drawn(seed: int) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    settings = SceneSettings(num_rows=4, test_share=0.0, positive_share=0.5, width=960, max_frames=1, seed=seed)
    scenes = [Image.fromarray(draw_plan(plan, settings).photo) for plan in plan_rows(settings)]
    noise = Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))
    pictures = {f"drawn scene {number}": scene.resize(VIDEO) for number, scene in enumerate(scenes)}
    pictures |= {"drawn scene of a phone's size": scenes[-1].resize(PHONE), "noise": noise}
    pictures |= {"black": Image.new("RGB", VIDEO), "grey": Image.new("RGB", VIDEO, (128, 128, 128))}
    return {name: _jpeg(picture) for name, picture in pictures.items()}


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
