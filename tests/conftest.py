"""What every test gets: an offline Hub, caches of its own, a tiny model, and a guard on started processes."""

import atexit
import copy
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


# Before any import of the Hub's libraries, which read these once; processes that tests start inherit them.
_CACHE = Path(tempfile.mkdtemp(prefix="natix-tests-"))
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ.update(
    HF_HOME=str(_CACHE / "huggingface"),
    HF_HUB_OFFLINE="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    NATIX_ROADWORK_CACHE=str(_CACHE / "embedded"),
    TOKENIZERS_PARALLELISM="false",
)
for _name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_TOKEN"):
    os.environ.pop(_name, None)
os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))

import datasets  # noqa: E402 - after the environment
import torch  # noqa: E402
from transformers import DINOv3ViTConfig  # noqa: E402

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification  # noqa: E402


ROOT = Path(__file__).parents[1]
PYTHON_COMMANDS = ("python", "accelerate", "torchrun", "natix-roadwork")
process_tests = pytest.StashKey[int]()
_running: list[pytest.Item] = []


def _refuse_unmarked_process(event: str, arguments: tuple) -> None:
    """Each Python process costs 10-18 s of imports, so the tests that start one say so and are counted."""
    if event != "subprocess.Popen" or not _running:
        return
    executable, command = arguments[:2]
    name = Path(os.fsdecode(executable or command[0])).name
    if name.startswith(PYTHON_COMMANDS) and _running[0].get_closest_marker("process") is None:
        raise RuntimeError(f"{_running[0].nodeid} starts {name}: mark it with pytest.mark.process")


sys.addaudithook(_refuse_unmarked_process)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _running[:] = [item]
    try:
        return (yield)
    finally:
        _running.clear()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[process_tests] = sum(item.get_closest_marker("process") is not None for item in items)


@pytest.fixture(scope="session")
def num_process_tests(pytestconfig: pytest.Config) -> int:
    """How many of the selected tests start a Python process."""
    return pytestconfig.stash[process_tests]


@pytest.fixture(scope="session", autouse=True)
def _no_dataset_cache() -> None:
    datasets.disable_caching()


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """A test that changes the thread count does not change the next one's arithmetic."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_backbone_config() -> DINOv3ViTConfig:
    """A DINOv3 ViT of 16 channels and two layers with the four registers of the published ones."""
    return _backbone_config()


@pytest.fixture
def tiny_config() -> RoadworkConfig:
    """Twelve views of 32 pixels over the tiny backbone, eight of them kept, two grid cells a side."""
    return _config()


@pytest.fixture(scope="session")
def _built_model() -> RoadworkForImageClassification:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RoadworkForImageClassification(_config()).eval()


@pytest.fixture
def tiny_model(_built_model: RoadworkForImageClassification) -> RoadworkForImageClassification:
    """A model of `tiny_config` in evaluation mode, the same weights for each test, free to be changed."""
    return copy.deepcopy(_built_model)


@pytest.fixture(scope="session")
def street_photos() -> Path:
    """The folder of real street photos; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("NATIX_STREET_PHOTOS") or ROOT.parent / "shared" / "data" / "street_photos")
    if not (folder / "metadata.jsonl").is_file():
        pytest.skip(f"no street photos in {folder} (NATIX_STREET_PHOTOS names another folder)")
    return folder


def _backbone_config() -> DINOv3ViTConfig:
    return DINOv3ViTConfig(
        hidden_size=16,
        image_size=32,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        num_register_tokens=4,
        patch_size=16,
    )


def _config() -> RoadworkConfig:
    return RoadworkConfig(
        backbone_config=_backbone_config(),
        evidence_grid=2,
        evidence_size=8,
        hidden_size=16,
        num_attention_heads=2,
        num_attention_layers=2,
        num_views=12,
        view_size=32,
    )
