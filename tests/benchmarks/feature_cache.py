"""What the feature cache costs and saves, as ratios; run with `make bench-feature_cache`, which fails when one misses its bar.

    python tests/benchmarks/feature_cache.py --check --output runs/bench/feature_cache.json

Reading is compared with a step of the head at its default sizes, with an Arrow list column and with the same tokens in
memory; a run of 30 epochs on a cache of four draws with 30 live epochs, on EfficientNet-Lite0 and drawn noise, all backbone
passes included. The augmentation is a cheap stand-in, so a real one only adds to the live side.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import DINOv3ViTConfig

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.draws import whole_batch
from natix_roadwork.data.feature_cache import FeatureCache, extract_features
from natix_roadwork.data.feature_key import FeatureOptions
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.feature_shards import read_shard, write_shard
from natix_roadwork.data.photo_batches import PhotoRows
from natix_roadwork.data.token_passes import quantized
from natix_roadwork.embedded import embedded_backbone
from natix_roadwork.training.samplers import DrawSampler, EpochSampler
from tests.benchmarks.ratios import Comparison, fastest_rounds, finish, options
from tests.photo_rows import AddressedNoise, photo_rows


BATCH, VIEWS, WIDTH, DRAWS, EPOCHS, ROWS_A_SHARD = 32, 12, 1280, 4, 30, 64


def default_head(grid: int) -> RoadworkForImageClassification:
    """The head at its default sizes on a backbone that is never run; without a grid one token a view."""
    torch.manual_seed(0)
    backbone = DINOv3ViTConfig(hidden_size=WIDTH, num_attention_heads=4, num_hidden_layers=1, intermediate_size=16)
    pooling = "cls_mean" if grid else "cls"
    return RoadworkForImageClassification(
        RoadworkConfig(backbone_config=backbone, evidence_grid=grid, feature_pooling=pooling)
    ).train()


def learner(model: RoadworkForImageClassification) -> Callable[[dict[str, Tensor]], None]:
    """A step: forward, backward, AdamW."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=True)

    def step(batch: dict[str, Tensor]) -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def synthetic_rows(folder: Path, num_rows: int, num_tokens: int, dtype: str = "float16") -> FeatureRows:
    """A cache of random tokens with four augmented draws."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    shards = []
    for number in range(num_rows // ROWS_A_SHARD):
        shape = ROWS_A_SHARD, DRAWS + 1, VIEWS, num_tokens, WIDTH
        tokens, mask = torch.randn(shape, generator=generator), torch.ones(ROWS_A_SHARD, VIEWS, dtype=torch.bool)
        tensors = {"tokens": tokens.half(), "view_mask": mask}
        if dtype == "int8":
            tensors["tokens"], tensors["scales"] = quantized(tokens)
        path = folder / f"shard-{number:05d}.safetensors"
        write_shard(path, tensors, "key")
        shards.append(read_shard(path))
    rows = Dataset.from_dict({"label": [row % 2 for row in range(num_rows)]})
    return FeatureRows(FeatureCache(folder, {}, (num_rows, *shape[1:]), ROWS_A_SHARD, shards), rows)


def batches_of(rows: FeatureRows) -> Callable[[], dict[str, Tensor]]:
    """Read the next batch of an endless shuffled run, as the trainer's data loader does."""

    def endless() -> Callable[[], dict[str, Tensor]]:
        epoch = 0
        while True:
            sampler = DrawSampler(EpochSampler(len(rows), 0, BATCH))
            sampler.set_epoch(epoch)
            yield from DataLoader(rows, BATCH, sampler=sampler, collate_fn=whole_batch)
            epoch += 1

    batches = endless()
    return lambda: next(batches)


def from_memory(rows: FeatureRows) -> Callable[[], dict[str, Tensor]]:
    """Index clean tokens that lie in memory."""
    tokens, masks = (torch.from_numpy(array) for array in rows.arrays())
    draw = torch.Generator().manual_seed(0)

    def read() -> dict[str, Tensor]:
        index = torch.randint(len(rows), (BATCH,), generator=draw)
        return {"view_features": tokens[index], "view_mask": masks[index], "labels": rows.labels[index]}

    return read


def arrow_lists(rows: FeatureRows) -> Callable[[], Tensor]:
    """Read the tokens of one a view from a list column, as `dataset[rows]` gives them."""
    tokens = rows.arrays()[0][:256].reshape(256, VIEWS * WIDTH)
    column = Dataset.from_dict({"tokens": list(tokens)}, Features({"tokens": List(Value("float16"))}))
    draw = np.random.default_rng(0)

    def read() -> Tensor:
        stored = column[draw.integers(0, len(column), BATCH).tolist()]["tokens"]
        return torch.tensor(stored, dtype=torch.float16).view(BATCH, VIEWS, 1, WIDTH)

    return read


def reading(folder: Path, rounds: int) -> list[Comparison]:
    """Compare reading with a step of the default head, an Arrow column and memory."""
    one, grid = synthetic_rows(folder / "one", 2048, 1), synthetic_rows(folder / "grid", 192, 18)
    small = synthetic_rows(folder / "int8", 192, 18, "int8")
    read_one, read_grid, read_small = (batches_of(rows) for rows in (one, grid, small))
    for rows in (one, grid, small):
        rows.arrays()  # the first epoch of a run maps the pages; here it is over
    in_memory = from_memory(grid)
    step_one, step_grid = learner(default_head(0)), learner(default_head(4))
    batch_one, batch_grid = read_one(), read_grid()
    ways = {"step_one": lambda: step_one(batch_one), "step_grid": lambda: step_grid(batch_grid)}
    ways |= {"one": read_one, "grid": read_grid, "int8": read_small, "memory": in_memory, "arrow": arrow_lists(one)}
    ms = fastest_rounds(ways, rounds)
    exact, levels = (rows.arrays()[0].astype(np.float32) for rows in (grid, small))
    apart = float(np.abs(exact - levels).max() / np.abs(exact).max())
    cached, in_ram = ms["step_grid"] + ms["grid"], ms["step_grid"] + ms["memory"]
    eight = ms["step_grid"] + ms["int8"]
    return [
        Comparison("one token a view: reading 32 rows, share of a step", ms["step_one"], ms["one"], ms["one"] / ms["step_one"], 0.01, at_most=True),
        Comparison("one token a view: Arrow list column -> cache", ms["arrow"], ms["one"], ms["arrow"] / ms["one"], 100),
        Comparison("4 x 4 grid: step on tokens in memory -> on the cache", in_ram, cached, cached / in_ram, 1.05, at_most=True),
        Comparison("4 x 4 grid: the same with int8, error a share of the largest value", in_ram, eight, eight / in_ram, error=apart, error_bar=1 / 127),
    ]  # fmt: skip


def cpu_ms(action: Callable[[], object]) -> float:
    """Milliseconds of processor time of one call."""
    start = time.process_time()
    action()
    return 1000 * (time.process_time() - start)


def epochs(folder: Path, num_rows: int) -> list[Comparison]:
    """Compare 30 epochs on a cache of four draws with 30 live ones, and cached logits with live ones."""
    rows = photo_rows(num_rows)
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "num_attention_layers": 1, "num_attention_heads": 4, "evidence_grid": 4}
    model = RoadworkForImageClassification.from_backbone(str(embedded_backbone()), view_size=224, **sizes)
    config = model.config
    views = {"view_size": 224, "image_mean": config.image_mean, "image_std": config.image_std}
    processor = RoadworkImageProcessor(do_normalize=False, **views)
    live = PhotoRows(rows, processor, augmentation=AddressedNoise())
    draws = FeatureOptions(DRAWS, augmentation=AddressedNoise())
    step, found = learner(model.train()), []

    def train(dataset: FeatureRows | PhotoRows) -> None:
        sampler = DrawSampler(EpochSampler(num_rows, 0, 8))
        for batch in DataLoader(dataset, 8, sampler=sampler, collate_fn=whole_batch):
            step(batch)

    extracting = cpu_ms(lambda: found.append(extract_features(rows, model, processor, draws, folder=folder)))
    cached = FeatureRows(found[0], rows)
    train(cached)  # warms up
    epoch, live_epoch = min(cpu_ms(lambda: train(cached)) for _ in range(3)), cpu_ms(lambda: train(live))
    ours, plain = extracting + EPOCHS * epoch, EPOCHS * live_epoch
    model.eval()
    with torch.no_grad():
        equal = model.extract_tokens(live.read(range(4))["pixel_values"]).half()
        other = model(**live.read(range(6))).logits - model(**cached.read(range(6))).logits
    same = (equal.float() - cached.read(range(4))["view_features"].float()).abs().max().item()
    apart = other.abs().max().item()
    return [
        Comparison(f"{EPOCHS} live epochs -> on a cache of {DRAWS} draws, extraction included", plain, ours, plain / ours, 5),
        Comparison("tokens of equal batch shapes, live and cached", live_epoch, epoch, live_epoch / epoch, error=same, error_bar=0.0),
        Comparison("logits of other batch shapes, live and cached", live_epoch, epoch, live_epoch / epoch, error=apart, error_bar=5e-3),
    ]  # fmt: skip


def main() -> None:
    """Run the comparisons."""
    chosen = options(__doc__, rows=16)
    with tempfile.TemporaryDirectory() as folder:
        comparisons = reading(Path(folder), chosen.rounds) + epochs(Path(folder) / "epochs", chosen.rows)
    finish(comparisons, chosen)


if __name__ == "__main__":
    main()
