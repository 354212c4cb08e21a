"""A Hub of this machine, a trained model with everything that may be published with it, and small photos."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.hub.publish_arguments import PublishArguments
from natix_roadwork.inference.feature_statistics import fit_statistics, save_statistics
from natix_roadwork.runs import read_result, write_result
from tests.ensemble_folders import write_ensemble, write_members
from tests.hub.hub_server import HubState, start_hub
from tests.inference.test_predict_adapters import write_folds
from tests.recipe_photos import write_photos
from tests.saved_member import record_training, save_member


TOKEN = "hf_" + "Planted" * 4
REPO = "someone/roadwork"
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"  # of a public test account

Arguments = Callable[..., PublishArguments]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubState]:
    """The Hub at HF_ENDPOINT for this process, whose libraries have read the variables, and for those that it starts."""
    server, state = start_hub(TOKEN)
    variables = {"HF_ENDPOINT": state.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", state.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", state.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def trained(tmp_path: Path, tiny_model: RoadworkForImageClassification, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a training on photos with a test split of their own; `work` is where it ran."""
    torch.set_num_threads(1)
    work = tmp_path / "work"
    (work / "photos").mkdir(parents=True)
    monkeypatch.chdir(work)
    write_photos(work / "photos")
    save_member(work / "model", tiny_model)
    record_training(work / "model", work / "photos", ["train"])
    result = read_result(work / "model" / "result.json")
    result.config |= {"dataset_name": str(work / "photos"), "backbone_id": "embedded:efficientnet-lite0"}
    write_result(work / "model" / "result.json", result)
    (work / "model" / "training_args.bin").write_bytes(b"\x80\x04pickle")
    return work


@pytest.fixture
def arguments(trained: Path) -> Arguments:
    """Settings that publish the model alone into a folder."""

    def build(**values: object) -> PublishArguments:
        own = {"model": str(trained / "model"), "use_cpu": True, "output_dir": str(trained / "publish")}
        return PublishArguments(
            **own | ({} if "repo_id" in values else {"folder": str(trained / "out" / "repo")}) | values
        )

    return build


@pytest.fixture
def parts(trained: Path, tiny_model: RoadworkForImageClassification) -> dict[str, object]:
    """Keys that add fold adapters, an ensemble, feature statistics and a calibration."""
    write_folds(str(trained / "model"), trained / "folds" / "adapters")
    (trained / "folds" / "folds.json").write_text('{"fold_target": "dev"}')
    members = write_members(trained / "ensemble", tiny_model) / "members"
    write_ensemble(trained / "ensemble" / "ensemble.json")
    draw = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 4, generator=draw).numpy(), [0, 1] * 30
    save_statistics(
        trained / "tta" / "statistics" / "model", fit_statistics(features, labels, list(map(str, range(60))))
    )
    (trained / "calibration.json").write_text('{"scale": 1.5, "offset": -0.25}')
    dora = members / "base" / "dora"
    (dora / "adapters").rename(trained / "dora_adapters")
    return {
        "adapters": str(trained / "folds" / "adapters"),
        "ensemble": str(trained / "ensemble" / "ensemble.json"),
        "members": {"first": str(members / "first"), "second": str(members / "second"), "base/dora": str(dora)},
        "member_adapters": {"base/dora": str(trained / "dora_adapters")},
        "statistics": str(trained / "tta"),
        "calibration": str(trained / "calibration.json"),
        "hotkey": HOTKEY,
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street")
    draw = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(draw.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder
