"""What a photo costs on this machine, step by step; run with `make bench`.

Prints one line of JSON: milliseconds for the twelve views of one photo, for one view in the frozen backbone, and for
one photo in the head, forward and with the backward pass. Each figure is the fastest of `--repeats` timed runs.
"""

import argparse
import io
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.embedded import embedded_backbone


VIEW_SIZE = 224
NUM_PHOTOS = 4


def main() -> None:
    """Times each step and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each step")
    parser.add_argument("--width", type=int, default=1600, help="photo width in pixels; the height is 3/4 of it")
    options = parser.parse_args()
    photos = [_photo(options.width, seed) for seed in range(NUM_PHOTOS)]
    processor = RoadworkImageProcessor(view_size=VIEW_SIZE)
    model = RoadworkForImageClassification.from_backbone(str(embedded_backbone()), view_size=VIEW_SIZE)
    batch = processor(photos)
    labels = torch.arange(NUM_PHOTOS) % 2

    def learn() -> None:
        model.zero_grad()
        model(view_features=tokens, view_mask=batch["view_mask"], labels=labels).loss.backward()

    def fastest(step: Callable[[], object], items: int) -> float:
        step()
        times = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        return round(1000 * min(times) / items, 2)

    tokens = model.extract_tokens(batch["pixel_values"])
    views = NUM_PHOTOS * processor.num_views
    figures = {
        "threads": torch.get_num_threads(),
        "photo_views_ms": fastest(lambda: processor(photos), NUM_PHOTOS),
        "backbone_view_ms": fastest(lambda: model.extract_tokens(batch["pixel_values"]), views),
    }
    with torch.no_grad():
        figures["head_photo_ms"] = fastest(
            lambda: model(view_features=tokens, view_mask=batch["view_mask"]), NUM_PHOTOS
        )
    figures["head_photo_backward_ms"] = fastest(learn, NUM_PHOTOS)
    print(json.dumps(figures))


def _photo(width: int, seed: int) -> bytes:
    """A JPEG of smooth noise, `width` pixels wide."""
    small = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    stored = io.BytesIO()
    Image.fromarray(small).resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(stored, "JPEG", quality=90)
    return stored.getvalue()


if __name__ == "__main__":
    main()
