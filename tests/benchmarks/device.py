"""What a photo costs on a GPU from pixels to logits: milliseconds, peak GiB, attention kernels, compile against eager.

Without a GPU it says so and ends: nothing on a CPU stands in for these figures. The backbone is DINOv3 ViT-H+/16 by its
sizes, of random weights, in bfloat16; `--small 1` takes ViT-S/16 for a small GPU. Twelve views of 512 pixels a photo.
"""

import time
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DINOv3ViTConfig

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.environment import sdpa_backends
from natix_roadwork.model.fast_attention import enable_fast_attention
from tests.benchmarks.ratios import Comparison, finish, options


VIEWS, VIEW_SIZE = 12, 512
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
PLANNED_MS, PLANNED_GIB, PHOTOS = 100.0, 10.0, 32


def main() -> None:
    """Measures on the GPU that is there."""
    chosen = options(__doc__, photos=PHOTOS, view_chunk=48, small=0)
    if not torch.cuda.is_available():
        print("no GPU: nothing measured (end-to-end time, peak memory, attention kernels and compile need one)")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, attention kernels {', '.join(sdpa_backends())}")
    model = build(bool(chosen.small), chosen.view_chunk)
    shape = (chosen.photos, VIEWS, 3, VIEW_SIZE, VIEW_SIZE)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
    eager = photo_ms(lambda: model(pixel_values=pixels), chosen.photos, chosen.rounds)
    rows = [
        Comparison("one photo end to end, eager; planned below 100 ms", PLANNED_MS, eager, eager),
        training_peak(model, pixels),
    ]
    for name in sdpa_backends():
        with sdpa_kernel(BACKENDS[name]):
            time_ms = photo_ms(lambda: model(pixel_values=pixels), chosen.photos, chosen.rounds)
        rows.append(Comparison(f"attention on {name} alone, against torch's choice", eager, time_ms, eager / time_ms))
    fast = enable_fast_attention()
    time_ms = photo_ms(lambda: model(pixel_values=pixels), chosen.photos, chosen.rounds)
    rows.append(Comparison(f"enable_fast_attention: {fast}", eager, time_ms, eager / time_ms))
    compiled = torch.compile(model)
    time_ms = photo_ms(lambda: compiled(pixel_values=pixels), chosen.photos, chosen.rounds)
    rows.append(Comparison("compiled against eager", eager, time_ms, eager / time_ms))
    finish(rows, chosen)


def build(small: bool, view_chunk: int) -> RoadworkForImageClassification:
    """The default head over a frozen backbone of random weights."""
    torch.manual_seed(0)
    sizes = {} if small else {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20}
    if not small:
        sizes |= {"intermediate_size": 5120, "use_gated_mlp": True}
    backbone = DINOv3ViTConfig(num_register_tokens=4, patch_size=16, **sizes)
    config = RoadworkConfig(backbone_config=backbone, view_size=VIEW_SIZE, view_chunk=view_chunk)
    return RoadworkForImageClassification(config).cuda().eval()


def photo_ms(answer: Callable[[], object], photos: int, rounds: int) -> float:
    """Milliseconds a photo of the fastest of several rounds, after two that warm up."""
    times = []
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16):
        for _ in range(rounds + 2):
            torch.cuda.synchronize()
            start = time.perf_counter()
            answer()
            torch.cuda.synchronize()
            times.append(1000 * (time.perf_counter() - start) / photos)
    return min(times[2:])


def training_peak(model: RoadworkForImageClassification, pixels: torch.Tensor) -> Comparison:
    """Peak GiB of one training step of the head on the live, frozen backbone, in place of milliseconds."""
    labels = torch.arange(len(pixels), device="cuda") % 2
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
    torch.cuda.reset_peak_memory_stats()
    model.train()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(pixel_values=pixels, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    model.eval()
    peak = torch.cuda.max_memory_allocated() / 2**30
    return Comparison(f"peak GiB of a step of {len(pixels)} photos; planned below 10", PLANNED_GIB, peak, peak)


if __name__ == "__main__":
    main()
