"""What is published is chosen, whole, free of pickles and of paths of this machine."""

import json
import shutil
from pathlib import Path

import pytest

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.hub.publish import push
from natix_roadwork.hub.publish_files import check_files, stage
from natix_roadwork.hub.publish_paths import find_local_paths, scrub
from natix_roadwork.inference.feature_statistics import load_statistics
from natix_roadwork.training.adapter_files import load_adapters
from tests.hub.conftest import Arguments


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_only_model_files_are_staged(arguments: Arguments, trained: Path) -> None:
    (trained / "model" / "checkpoint-2").mkdir()
    (trained / "model" / "wallet.json").write_text("{}")
    left = stage(arguments(), trained / "staged")
    assert left == ["checkpoint-2", "training_args.bin", "wallet.json"]
    names = {path.name for path in (trained / "staged").iterdir()}
    assert {"config.json", "model.safetensors", "modeling_roadwork.py"} <= names and "result.json" not in names
    check_files(trained / "staged")


def test_adapters_name_the_repository_as_their_base(arguments: Arguments, parts: dict, trained: Path) -> None:
    stage(arguments(repo_id="someone/roadwork", **parts), trained / "staged")
    fold = trained / "staged" / "adapters" / "fold1"
    assert json.loads((fold / "adapter_config.json").read_text())["base_model_name_or_path"] == "someone/roadwork"
    assert json.loads((fold / "base.json").read_text())["name"] == "someone/roadwork"


def test_published_adapters_load_by_name_and_statistics_by_file(
    arguments: Arguments, parts: dict, trained: Path
) -> None:
    file = str(trained / "tta" / "statistics" / "model" / "feature_statistics.json")
    stage(arguments(**parts | {"statistics": file}), trained / "staged")
    model = RoadworkForImageClassification.from_pretrained(trained / "staged")
    assert list(load_adapters(model, trained / "staged" / "adapters").peft_config) == ["fold0", "fold1"]
    assert load_statistics(trained / "staged" / "statistics").record["rows"] == [30, 30]


@pytest.mark.parametrize("name", ["training_args.bin", "adapters/optimizer.pt", "wallet.key", "photo.jpg"])
def test_other_kinds_of_files_are_refused(arguments: Arguments, trained: Path, name: str) -> None:
    stage(arguments(), trained / "staged")
    (trained / "staged" / name).parent.mkdir(exist_ok=True)
    (trained / "staged" / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"{name} would be published"):
        check_files(trained / "staged")


def test_a_path_in_a_config_is_refused_by_file_and_key(arguments: Arguments, trained: Path) -> None:
    edit(trained / "model" / "config.json", extra={"folders": ["x", f"{trained}/cache/tokens"]})
    with pytest.raises(ValueError, match=r"config\.json names a path of this machine, extra\.folders\[1\]: /.*tokens"):
        push(arguments(score_lockbox=False))
    assert not (trained / "out" / "repo").exists()


def test_weights_as_pickles_and_damaged_ones_are_refused(arguments: Arguments, trained: Path) -> None:
    weights = trained / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    stage(arguments(), trained / "staged")
    with pytest.raises(ValueError, match=r"model\.safetensors is no whole safetensors file"):
        check_files(trained / "staged")
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ValueError, match="lacks weights as safetensors"):
        stage(arguments(), trained / "staged")


def test_the_record_is_scrubbed_and_keeps_its_figures(arguments: Arguments, trained: Path) -> None:
    path = trained / "model" / "result.json"
    edit(path, warnings=["see /opt/data/rows.csv", "and ~/notes.txt", f"in {trained}"], wall_seconds=12.5)
    push(arguments(score_lockbox=False))
    found = json.loads((trained / "out" / "repo" / "result.json").read_text())
    assert found["config"]["dataset_name"] == "photos" and found["wall_seconds"] == 12.5
    assert found["warnings"] == ["see <local>/rows.csv", "and <local>/notes.txt", f"in <local>/{trained.name}"]
    assert found["details"]["published"]["backbones"] == ["embedded:efficientnet-lite0"]


@pytest.mark.parametrize(
    "text",
    [
        "/srv/a/b",
        "/scenes",
        "at /srv/a",
        '"/srv/a"',
        "~/x",
        "C:\\Users\\me",
        "file:///srv/a",
        "a=/srv/b",
        "key:/srv/b/c",
    ],
)
def test_local_paths_are_found(text: str) -> None:
    assert find_local_paths({"a": [text]}) and not find_local_paths(scrub({"a": [text], text: 1}))


@pytest.mark.parametrize(
    "text",
    ["https://host/a/b", "owner/name", "runs/a/model", "ViT-H+/16", "and/or", "home theater, home theatre", "1 / 2"],
)
def test_other_texts_are_no_paths(text: str) -> None:
    assert not find_local_paths(text) and scrub(text) == text


def test_a_folder_of_something_else_is_refused(arguments: Arguments, trained: Path) -> None:
    asked = arguments(score_lockbox=False)
    (trained / "out" / "repo").mkdir(parents=True)
    (trained / "out" / "repo" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt and is nothing that was published"):
        push(asked)
    (trained / "out" / "repo" / "old.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"old\.bin, which run code"):
        push(asked)


def test_a_folder_survives_a_kill_between_its_renames(arguments: Arguments, trained: Path) -> None:
    asked = arguments(score_lockbox=False)
    push(asked)
    folder = trained / "out" / "repo"
    card = (folder / "README.md").read_text()
    folder.rename(folder.with_name(".repo.kept"))
    shutil.copytree(folder.with_name(".repo.kept"), folder.with_name(".repo.part"))
    push(asked)
    assert (folder / "README.md").read_text() == card
    assert [path.name for path in folder.parent.iterdir()] == ["repo"]
