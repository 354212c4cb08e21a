"""Memory of one training step on 12 views x 32 photos through a ViT-S-size backbone of random weights.

Run by `training_step.py`, or by itself for one figure: a fresh process makes one step and prints how far its resident
memory rose above what it was before the step, beside the estimate of `training/memory.py`.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file, save_file
from transformers import DINOv3ViTConfig

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.memory import estimate_memory


PHOTOS, VIEWS, VIEW_SIZE = 32, 12, 112


def main() -> None:
    """Makes one step and prints the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_backbone", action="store_true", help="its weights too, checkpointed with a chunk")
    parser.add_argument("--view_chunk", type=int, help="views at a time; all when not given")
    parser.add_argument("--photos", type=int, default=PHOTOS)
    parser.add_argument("--gradients", type=Path, help="safetensors file for the gradients")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    model = build(chosen.train_backbone, chosen.view_chunk)
    pixels = torch.randint(0, 256, (chosen.photos, VIEWS, 3, VIEW_SIZE, VIEW_SIZE), dtype=torch.uint8)
    labels = torch.arange(chosen.photos) % 2
    again = model.gradient_checkpointing
    with tempfile.TemporaryDirectory() as folder:
        args = RoadworkTrainingArguments(output_dir=folder, use_cpu=True, activation_checkpointing=again)
        estimate = estimate_memory(model, {"pixel_values": pixels[0], "labels": labels[0]}, chosen.photos, args)
    torch.randn(512, 512) @ torch.randn(512, 512)  # threads and their buffers are set up once, not by the step
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark starts anew
    before = psutil.Process().memory_info().rss
    model(pixel_values=pixels, labels=labels).loss.backward()
    increment = high_water_mark() - before
    if chosen.gradients is not None:
        trained = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        found = {name: gradient.contiguous() for name, gradient in trained.items()}
        save_file(found, chosen.gradients)
    print(json.dumps({"increment": increment, "estimate": estimate.step}))


def build(train_backbone: bool, view_chunk: int | None) -> RoadworkForImageClassification:
    """A ViT-S/16 with four registers under the default head, dropout off so that runs can be compared."""
    torch.manual_seed(0)
    config = RoadworkConfig(
        backbone_config=DINOv3ViTConfig(num_register_tokens=4), view_size=VIEW_SIZE, dropout=0.0, view_chunk=view_chunk
    )
    model = RoadworkForImageClassification(config).train()
    model.backbone.requires_grad_(train_backbone)
    if train_backbone and view_chunk is not None:
        model.activation_checkpointing_enable()
    return model


def high_water_mark() -> int:
    """Most resident bytes since the mark was reset; Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def measured(train_backbone: bool, view_chunk: int | None, gradients: Path, photos: int) -> dict[str, int]:
    """Figures of one step in a fresh process, which leaves its gradients in a file."""
    command = [sys.executable, __file__, "--gradients", str(gradients), "--photos", str(photos)]
    command += ["--train_backbone"] * train_backbone
    command += [] if view_chunk is None else ["--view_chunk", str(view_chunk)]
    # Blocks that glibc keeps after they are freed would hide what is alive.
    variables = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def largest_difference(first: Path, second: Path) -> float:
    """Largest difference of a weight's gradients over the largest entry of that gradient."""
    one, two = load_file(first), load_file(second)
    if one.keys() != two.keys():
        sys.exit(f"other weights have gradients: {sorted(one.keys() ^ two.keys())}")
    return max(((one[name] - two[name]).abs().max() / one[name].abs().max().clamp_min(1e-12)).item() for name in one)


if __name__ == "__main__":
    main()
