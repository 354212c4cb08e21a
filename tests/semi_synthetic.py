"""Semi-synthetic photos: real street photos with a drawn object composited in, for judging heads on real texture.

Positives carry one piece of roadwork evidence, negatives an ordinary object or a cut-out of another photo, pasted by the
same code (edge blur, brightness match, noise, JPEG): the paste marks say nothing about the label.

    python -m tests.semi_synthetic FOLDER_OF_STREET_PHOTOS runs/semi_synthetic --num_rows 600
    python -m tests.semi_synthetic FOLDER_OF_STREET_PHOTOS runs/small_objects --num_rows 600 --size_range 40 120
"""

import argparse
import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from natix_roadwork.data.scene_canvas import Light
from natix_roadwork.data.scene_distractors import DISTRACTOR_KINDS, draw_distractor
from natix_roadwork.data.scene_objects import OBJECT_KINDS, draw_object


SIZE_RANGE = (90, 260)
JPEG_QUALITY = 88


def write_semi_synthetic(
    street_photos_folder: str | Path,
    out_folder: str | Path,
    num_rows: int = 500,
    seed: int = 0,
    size_range: tuple[int, int] = SIZE_RANGE,
) -> Path:
    """Write an imagefolder of `num_rows` photos, half of them positive, made from the label-0 street photos.

    `metadata.jsonl` holds `file_name`, `label`, `video_id` (the source photo, so that folds stay grouped), `kind` (what was
    pasted), `box` (left, top, right, bottom in pixels) and `mask` (bit-packed, of the evidence alone: what is ordinary has
    none). A finished folder of the same settings is left as it is.

    Args:
        street_photos_folder: imagefolder of real photos with `metadata.jsonl`; rows of label 0 are used.
        out_folder: new folder, or one this function has finished before.
        num_rows: photos to write.
        seed: decides sources, labels, objects and places.
        size_range: smallest and largest height of what is pasted, in pixels.
    """
    source, target = Path(street_photos_folder), Path(out_folder)
    settings = json.dumps({"num_rows": num_rows, "seed": seed, "size_range": list(size_range), "format": 2})
    if (target / "settings.json").is_file() and (target / "settings.json").read_text() == settings:
        return target
    rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text().splitlines()]
    names = sorted(row["file_name"] for row in rows if row["label"] == 0)
    rng = np.random.default_rng([seed, 0])
    order = np.concatenate([rng.permutation(len(names)) for _ in range(-(-num_rows // len(names)))])[:num_rows]
    labels = rng.permutation(np.arange(num_rows) % 2)
    temporary = target.with_name(target.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "masks").mkdir(parents=True)
    with (temporary / "metadata.jsonl").open("w") as lines:
        for index in range(num_rows):
            name, label = names[order[index]], int(labels[index])
            generator = np.random.default_rng([seed, 1, index])
            donor = _read(source / names[int(generator.integers(len(names)))])
            picture, kind, box, bits = compose(_read(source / name), donor, label, generator, size_range)
            file_name, mask = f"{index:05d}.jpg", f"masks/{index:05d}_seg_mask.png"
            Image.fromarray(picture).save(temporary / file_name, quality=JPEG_QUALITY)
            Image.fromarray(bits).save(temporary / mask)
            row = {"file_name": file_name, "label": label, "video_id": Path(name).stem, "kind": kind, "box": box}
            row["mask"] = mask
            lines.write(json.dumps(row) + "\n")
    (temporary / "settings.json").write_text(settings)
    if target.exists():
        shutil.rmtree(target)
    temporary.rename(target)
    return target


def compose(
    photo: np.ndarray,
    donor: np.ndarray,
    label: int,
    rng: np.random.Generator,
    size_range: tuple[int, int] = SIZE_RANGE,
) -> tuple[np.ndarray, str, list[int], np.ndarray]:
    """Paste evidence (label 1) or something ordinary (label 0) into a photo `(H, W, 3)`.

    Returns the photo, the kind, the box and the mask `(H, W)` uint8 of the evidence.
    """
    size = int(np.exp(rng.uniform(*np.log(size_range))))
    place = float(rng.uniform(0.02, 0.98)), float(np.clip(0.6 + 0.0011 * size + rng.normal(0, 0.05), 0.62, 0.97))
    side = float(rng.uniform(-1, 1))
    kind = OBJECT_KINDS[int(rng.integers(len(OBJECT_KINDS)))]
    if label == 1:
        item = draw_object(kind, size, rng, Light(side=side))
    elif rng.random() < 0.5:
        kind = DISTRACTOR_KINDS[int(rng.integers(len(DISTRACTOR_KINDS)))]
        item = draw_distractor(kind, size, rng, Light(side=side), orange=bool(rng.random() < 0.5))
    else:
        item, kind = _cut_out(donor, kind, size, rng), "cut_out"
    item = _fit(item, photo.shape[1], size_range[1])
    picture, box = _paste(photo, item, place, rng)
    bits = np.zeros(photo.shape[:2], np.uint8)
    if label == 1:
        bits[box[1] : box[3], box[0] : box[2]] = (item[..., 3] > 127).astype(np.uint8) << OBJECT_KINDS.index(kind)
    return picture, kind, box, bits


def _cut_out(donor: np.ndarray, kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """A piece of another photo in the outline of a roadwork object: outlines do not tell the label either."""
    outline = draw_object(kind, size, rng)[:, : donor.shape[1] // 2]
    height, width = outline.shape[:2]
    top = int(rng.integers(donor.shape[0] // 3, donor.shape[0] - height + 1))
    left = int(rng.integers(0, donor.shape[1] - width + 1))
    return np.dstack([donor[top : top + height, left : left + width], outline[..., 3]])


def _fit(item: np.ndarray, photo_width: int, longest: int) -> np.ndarray:
    """Shrink wide objects so that their longer side stays within the size range."""
    height, width = item.shape[:2]
    factor = min(1.0, longest / width, 0.5 * photo_width / width)
    if factor == 1.0:
        return item
    return cv2.resize(item, (round(width * factor), max(round(height * factor), 1)), interpolation=cv2.INTER_AREA)


def _paste(
    photo: np.ndarray, item: np.ndarray, place: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, list[int]]:
    height, width = item.shape[:2]
    left = int(np.clip(place[0] * photo.shape[1] - width / 2, 0, photo.shape[1] - width))
    bottom = int(np.clip(place[1] * photo.shape[0], height, photo.shape[0]))
    box = [left, bottom - height, left + width, bottom]
    canvas = photo.astype(np.float32)
    region = canvas[box[1] : box[3], box[0] : box[2]]
    alpha = cv2.GaussianBlur(item[..., 3].astype(np.float32) / 255, (0, 0), 0.9)[..., None]
    surroundings = float(canvas[photo.shape[0] // 3 :].mean())
    color = item[..., :3].astype(np.float32) * np.clip(surroundings / 105, 0.45, 1.2)
    color = cv2.GaussianBlur(color, (0, 0), 0.7) + rng.normal(0, 4.0, color.shape)
    canvas[box[1] : box[3], box[0] : box[2]] = region * (1 - alpha) + color * alpha
    return np.clip(canvas, 0, 255).astype(np.uint8), box


def _read(path: Path) -> np.ndarray:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return np.asarray(image.convert("RGB"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("street_photos_folder")
    parser.add_argument("out_folder")
    parser.add_argument("--num_rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size_range", type=int, nargs=2, default=SIZE_RANGE, help="pixels; 40 120 for small objects")
    write_semi_synthetic(**vars(parser.parse_args()))
