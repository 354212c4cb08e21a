import json
from pathlib import Path

import pytest

from natix_roadwork.training.checkpoints import (
    MANIFEST_NAME,
    checkpoint_folders,
    checkpoint_step,
    is_complete,
    last_complete_checkpoint,
    mark_complete,
    remove_all,
    remove_incomplete,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (2, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        mark_complete(folder)
    (tmp_path / "checkpoint-best").mkdir()
    return tmp_path


def test_steps_are_ordered_as_numbers(run: Path) -> None:
    assert [checkpoint_step(folder) for folder in checkpoint_folders(run)] == [2, 10]
    assert last_complete_checkpoint(run) == run / "checkpoint-10"


def cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"wei")


def lose_a_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / MANIFEST_NAME).rename(folder / f"{MANIFEST_NAME}.partial")


@pytest.mark.parametrize("damage", [cut, lose_a_file, lose_the_manifest])
def test_damaged_checkpoint_is_passed_over_and_removed(run: Path, damage: object) -> None:
    damage(run / "checkpoint-10")
    assert not is_complete(run / "checkpoint-10")
    assert last_complete_checkpoint(run) == run / "checkpoint-2"
    assert remove_incomplete(run) == [run / "checkpoint-10"]
    assert [folder.name for folder in checkpoint_folders(run)] == ["checkpoint-2"]
    assert (run / "checkpoint-best").is_dir()


def test_no_folder_has_no_checkpoints(tmp_path: Path) -> None:
    assert checkpoint_folders(tmp_path / "none") == [] and last_complete_checkpoint(tmp_path) is None


def test_all_checkpoints_can_be_removed(run: Path) -> None:
    assert len(remove_all(run)) == 2 and checkpoint_folders(run) == []


def test_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match="checkpoint-best"):
        checkpoint_step("runs/checkpoint-best")
