"""Street scenes drawn by the library itself: a stand-in data set that needs no download.

`draw_scene` makes one photo with its exact mask; `write_scenes` writes parquet shards in NATIX's own 19 columns with the
quirks of the real set (label leaks, inconsistent rows, missing values, video groups, near-duplicates), each switchable.
Scores on these scenes are never roadwork accuracy. Next: `data/dataset.py` reads the folder like any other.
"""

import io
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from natix_roadwork.data.scene_camera import Camera
from natix_roadwork.data.scene_plan import Place
from natix_roadwork.data.scene_street import paint_street
from natix_roadwork.data.scene_table import (
    SceneLeaks,
    ScenePlan,
    SceneSettings,
    photo_shape,
    plan_rows,
    scene_features,
    scene_record,
)
from natix_roadwork.data.scene_weather import conditions, expose


FORMAT_VERSION = 3
ROWS_PER_SHARD = 100
JPEG_QUALITY = 88
METRES_PER_FRAME = 3.7
SETTINGS_FILE = "scenes.json"
SHEET_EVIDENCE_SHARE = 0.004


@dataclass(frozen=True)
class Scene:
    """One drawn photo.

    `photo` is `(H, W, 3)` uint8 RGB, `mask` `(H, W)` uint8 whose bit c marks the visible evidence of class c in the order
    of `OBJECT_KINDS` (cone, barrier, sign, worker, vehicle, equipment); `label` 1 means roadwork.
    """

    photo: np.ndarray
    mask: np.ndarray
    label: int
    plan: ScenePlan
    place: Place


def draw_scene(index: int, settings: SceneSettings | None = None) -> Scene:
    """Draw row `index` of the data set that `write_scenes` would write.

    Raises:
        ValueError: if there is no such row.
    """
    settings = settings or SceneSettings()
    plans = plan_rows(settings)
    if not 0 <= index < len(plans):
        raise ValueError(f"index {index} is not a row of {len(plans)} scenes")
    return draw_plan(plans[index], settings)


def draw_plan(plan: ScenePlan, settings: SceneSettings) -> Scene:
    """Draw one planned row."""
    place = plan.place(settings)
    looks = np.random.default_rng([settings.seed, 20, place.number])
    own = np.random.default_rng([settings.seed, 21, place.number, plan.frame, plan.variation])
    shape = photo_shape(plan, settings)
    columns, rows = (settings.width * side // max(shape) for side in shape)
    sky = conditions(place.daytime, place.weather, looks)
    tilt, shift, offset = float(looks.uniform(0.4, 0.5)), float(looks.normal(0, 0.05)), float(looks.uniform(0.6, 2.4))
    camera = Camera(
        width=columns,
        height=rows,
        focal=0.75 * settings.width,
        horizon=rows * (tilt + float(own.normal(0, 0.008))),
        center=columns * (0.5 + shift + float(own.normal(0, 0.01))),
        offset=offset + float(own.normal(0, 0.1)),
        curve=place.curve,
        visibility=sky.visibility,
        haze=sky.haze,
    )
    paint_street(camera, place, sky, advance=plan.frame * METRES_PER_FRAME, rng=looks)
    return Scene(expose(camera, sky, own), camera.mask, plan.label, plan, place)


def write_scenes(
    folder: str | Path,
    settings: SceneSettings | None = None,
    *,
    num_workers: int = 0,
    masks: bool = True,
    progress: bool = True,
    **changes: object,
) -> Path:
    """Write the data set into a new folder: `train-*.parquet`, `test-*.parquet`, `masks/` and the settings.

    The same settings give the same bytes for any number of workers. A folder that already holds these settings is left
    alone; the folder appears only when everything is written.

    Args:
        folder: where to write; must be absent, empty or finished with the same settings.
        settings: what to draw; default `SceneSettings()`.
        num_workers: processes to draw in; 0 draws in this one.
        masks: also write `masks/<id>_seg_mask.png`, bit c of a pixel marking class c.
        progress: show a progress bar.
        **changes: fields of `SceneSettings` to change, for example `num_rows=300, width=1600`.

    Raises:
        ValueError: if the folder holds anything else.
    """
    settings = replace(settings or SceneSettings(), **changes)
    target = Path(folder)
    stamp = json.dumps({"format": FORMAT_VERSION, "masks": masks, **asdict(settings)}, indent=2) + "\n"
    if _already_written(target, stamp):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _write_all(temporary, settings, num_workers, masks, progress)
        (temporary / SETTINGS_FILE).write_text(stamp)
        temporary.chmod(0o755)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _already_written(target: Path, stamp: str) -> bool:
    if not target.exists():
        return False
    if not target.is_dir():
        raise ValueError(f"folder {str(target)!r} is a file; name a new folder")
    if not any(target.iterdir()):
        return False
    settings = target / SETTINGS_FILE
    if settings.is_file() and settings.read_text() == stamp:
        return True
    found = "scenes with other settings" if settings.is_file() else "other files"
    raise ValueError(f"folder {str(target)!r} is not empty and holds {found}; name a new folder or remove this one")


def _write_all(folder: Path, settings: SceneSettings, num_workers: int, masks: bool, progress: bool) -> None:
    plans = plan_rows(settings)
    schema = scene_features().arrow_schema
    if masks:
        (folder / "masks").mkdir()
    drawn = _drawn(plans, settings, num_workers)
    with tqdm(total=len(plans), desc="scenes", disable=not progress) as bar:
        for name, shard in _shards(plans):
            records = []
            for plan in shard:
                record, mask = next(drawn)
                records.append(record)
                if masks:
                    (folder / "masks" / f"{plan.row:06d}_seg_mask.png").write_bytes(mask)
                bar.update()
            pq.write_table(pa.Table.from_pylist(records, schema=schema), folder / name)


def _shards(plans: list[ScenePlan]) -> list[tuple[str, list[ScenePlan]]]:
    shards = []
    for split in ("train", "test"):
        rows = [plan for plan in plans if plan.split == split]
        count = -(-len(rows) // ROWS_PER_SHARD)
        for index in range(count):
            part = rows[index * ROWS_PER_SHARD : (index + 1) * ROWS_PER_SHARD]
            shards.append((f"{split}-{index:05d}-of-{count:05d}.parquet", part))
    return shards


def _drawn(
    plans: list[ScenePlan], settings: SceneSettings, num_workers: int
) -> Iterator[tuple[dict[str, object], bytes]]:
    draw = partial(_draw_row, settings=settings)
    if num_workers <= 0:
        yield from map(draw, plans)
        return
    with ProcessPoolExecutor(num_workers, mp_context=_worker_context()) as pool:
        yield from pool.map(draw, plans, chunksize=4)


def _worker_context() -> multiprocessing.context.BaseContext:
    """Start workers from one clean server process that imports this module once, where the system has it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _draw_row(plan: ScenePlan, settings: SceneSettings) -> tuple[dict[str, object], bytes]:
    scene = draw_plan(plan, settings)
    photo, mask = io.BytesIO(), io.BytesIO()
    Image.fromarray(scene.photo).save(photo, "JPEG", quality=JPEG_QUALITY)
    Image.fromarray(scene.mask).save(mask, "PNG", compress_level=1)
    size = (scene.photo.shape[1], scene.photo.shape[0])
    return scene_record(plan, scene.place, photo.getvalue(), size, settings), mask.getvalue()


def write_contact_sheet(
    path: str | Path, settings: SceneSettings | None = None, columns: int = 4, rows: int = 3, tile_width: int = 400
) -> Path:
    """Write one JPEG with a grid of scenes, alternately with roadwork that is easy to see and without, for a README.

    `python -c "from natix_roadwork.data.scenes import write_contact_sheet as w; w('.github/images/scenes.jpg')"`

    Args:
        path: JPEG to write.
        settings: data set to draw from; default `SceneSettings(positive_share=0.5, max_frames=1)`.
        columns: scenes side by side.
        rows: scenes one above the other.
        tile_width: width of one scene in pixels.
    """
    settings = settings or SceneSettings(num_rows=200, test_share=0.0, positive_share=0.5, max_frames=1)
    plans = [plan for plan in plan_rows(settings) if photo_shape(plan, settings) == (16, 9)]
    with_roadwork = (
        scene for scene in _scenes_of(plans, 1, settings) if (scene.mask > 0).mean() > SHEET_EVIDENCE_SHARE
    )
    halves = (with_roadwork, _scenes_of(plans, 0, settings))
    tile_height = tile_width * 9 // 16
    sheet = Image.new("RGB", (columns * (tile_width + 4) - 4, rows * (tile_height + 4) - 4), "white")
    for index in range(columns * rows):
        scene = next(halves[index % 2])
        tile = Image.fromarray(scene.photo).resize((tile_width, tile_height), Image.Resampling.LANCZOS)
        sheet.paste(tile, (index % columns * (tile_width + 4), index // columns * (tile_height + 4)))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "JPEG", quality=82)
    return Path(path)


def _scenes_of(plans: list[ScenePlan], label: int, settings: SceneSettings) -> Iterator[Scene]:
    return (draw_plan(plan, settings) for plan in plans if plan.label == label)


__all__ = [
    "Scene",
    "SceneLeaks",
    "ScenePlan",
    "SceneSettings",
    "draw_plan",
    "draw_scene",
    "write_contact_sheet",
    "write_scenes",
]
