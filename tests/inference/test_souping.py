"""`recipes/soup.py`: averaged weights as a model folder that predicts like any other member."""

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.predictions import Predictions, read_predictions
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.member import load_member
from natix_roadwork.inference.predict import predict
from natix_roadwork.inference.souping import SoupArguments
from natix_roadwork.inference.soups import weight_soup
from natix_roadwork.runs import RunResult, read_result, write_result
from natix_roadwork.training.adapter_files import merged_soup
from natix_roadwork.training.members import parse_members
from natix_roadwork.training.yaml_args import parse_recipe
from tests.fold_runs import train_base
from tests.inference.test_predict_adapters import write_folds
from tests.saved_member import member_and_photos, record_training, save_member


ROOT = Path(__file__).parents[2]
Build = Callable[..., PredictArguments]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soup_recipe", ROOT / "recipes" / "soup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def settings(tmp_path: Path, tiny_model: RoadworkForImageClassification) -> Build:
    torch.set_num_threads(1)
    return lambda **values: member_and_photos(tmp_path, tiny_model, **values)


@pytest.fixture
def base(settings: Build) -> Path:
    """A trained model that has learned from train, dev aside."""
    asked = settings()
    record_training(Path(asked.model), Path(asked.dataset_name), ["train"])
    return Path(asked.model)


def write_target(folder: Path, base: Path, target: str, fingerprint: str | None = None) -> None:
    """The manifest of the folds, as far as a soup reads it."""
    own = read_result(base / "result.json").data["fingerprint"]
    record = {"fold_target": target, "data_fingerprint": fingerprint or own}
    (folder / "folds.json").write_text(json.dumps(record))


def adapter_soup(recipe: ModuleType, base: Path, folds: Path, output: Path) -> RunResult:
    recipe.main(["--model", str(base), "--adapters", str(folds / "adapters"), "--output_dir", str(output)])
    return read_result(output / "result.json")


def predicted(settings: Build, model: Path, splits: list[str], **values: object) -> Predictions:
    asked = settings(model=str(model), splits=splits, output_dir=f"{model}_predicted", **values)
    predict(asked)
    return read_predictions(asked.path)


def logits(model: RoadworkForImageClassification) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.randn(3, 12, 3, 32, 32, generator=torch.Generator().manual_seed(0))).logits


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_soup_of_adapters_is_the_mean_of_the_merged_weights(
    recipe: ModuleType, base: Path, tmp_path: Path, blocks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folds(str(base), tmp_path / "folds" / "adapters", backbone_blocks=blocks)
    write_target(tmp_path / "folds", base, "dev")
    adapter_soup(recipe, base, tmp_path / "folds", tmp_path / "soup")
    expected = merged_soup(load_member(str(base)).model, tmp_path / "folds" / "adapters")
    saved = load_member(str(tmp_path / "soup"))
    torch.testing.assert_close(logits(saved.model), logits(expected), rtol=0, atol=0)
    assert not torch.equal(logits(saved.model), logits(load_member(str(base)).model))
    assert RoadworkImageProcessor.from_pretrained(tmp_path / "soup").do_normalize
    assert "average of 2: fold0, fold1" in capsys.readouterr().out


def test_a_changed_backbone_is_saved_with_the_soup(
    recipe: ModuleType, tmp_path: Path, tiny_model: RoadworkForImageClassification
) -> None:
    """Although the base's can be fetched from the Hub, from where a soup's could not."""
    tiny_model.config.backbone_id = "someone/backbone"
    base = save_member(tmp_path / "base", tiny_model)
    tiny_model.save_pretrained(base, include_backbone=True)
    write_folds(str(base), tmp_path / "folds" / "adapters", backbone_blocks=1)
    (tmp_path / "folds" / "folds.json").write_text(json.dumps({"fold_target": "dev", "data_fingerprint": "any"}))
    adapter_soup(recipe, base, tmp_path / "folds", tmp_path / "soup")
    soup = load_member(str(tmp_path / "soup")).model
    assert soup.config.backbone_in_checkpoint and soup.backbone_hash() == soup.config.backbone_sha256
    assert soup.backbone_hash() != tiny_model.backbone_hash()


def test_a_soup_predicts_like_any_member_and_counts_what_taught_its_adapters(
    recipe: ModuleType, settings: Build, base: Path, tmp_path: Path
) -> None:
    write_folds(str(base), tmp_path / "folds" / "adapters")
    before = predicted(settings, base, ["dev", "test"])
    assert before.held_out.all()
    for target, learned in (("dev", ["dev", "train"]), ("test", ["test", "train"])):
        write_target(tmp_path / "folds", base, target)
        result = adapter_soup(recipe, base, tmp_path / "folds", tmp_path / f"soup_{target}")
        assert result.details["learned_from"] == learned and not result.warnings
        assert result.data == read_result(base / "result.json").data
        found = predicted(settings, tmp_path / f"soup_{target}", ["dev", "test"])
        np.testing.assert_array_equal(found.held_out, found.splits != target)
        assert found.record["model_sha256"] == result.details["model_sha256"] != before.record["model_sha256"]
        assert np.abs(found.logits - before.logits).max() > 1e-4


def test_rows_that_are_split_otherwise_than_the_base_s_are_refused(
    recipe: ModuleType, settings: Build, base: Path, tmp_path: Path
) -> None:
    write_folds(str(base), tmp_path / "folds" / "adapters")
    write_target(tmp_path / "folds", base, "test")
    soup = tmp_path / "soup"
    result = adapter_soup(recipe, base, tmp_path / "folds", soup)
    write_result(soup / "result.json", _with_fingerprint(result, "other"))
    with pytest.raises(ValueError, match=r"is split otherwise than in the training of .*seed=0 there, 5 now"):
        predicted(settings, soup, ["dev"], seed=5)


def _with_fingerprint(result: RunResult, fingerprint: str) -> RunResult:
    changed = copy.deepcopy(result)
    changed.data["fingerprint"] = fingerprint
    return changed


def test_adapters_of_another_target_have_learned_from_all_its_splits(
    recipe: ModuleType, settings: Build, base: Path, tmp_path: Path
) -> None:
    folds = tmp_path / "folds"
    write_folds(str(base), folds / "adapters")
    write_target(folds, base, "a target set of its own", "other")
    assert adapter_soup(recipe, base, folds, tmp_path / "one").data == {"name": None, "fingerprint": "other"}
    write_result(folds / "result.json", _with_fingerprint(read_result(base / "result.json"), "other"))
    result = adapter_soup(recipe, base, folds, tmp_path / "two")
    assert result.data["fingerprint"] == "other" and result.data["name"] and "splits" not in result.details
    assert result.details["learned_from"] == ["dev", "test", "train"]


def test_a_base_without_a_record_is_told_and_adapters_without_a_manifest_are_refused(
    recipe: ModuleType, settings: Build, base: Path, tmp_path: Path
) -> None:
    write_folds(str(base), tmp_path / "folds" / "adapters")
    with pytest.raises(ValueError, match=r"adapters' lies beside no folds\.json, so nothing says which rows"):
        adapter_soup(recipe, base, tmp_path / "folds", tmp_path / "soup")
    assert not (tmp_path / "soup").exists()
    write_target(tmp_path / "folds", base, "dev")
    known = read_result(base / "result.json").data["fingerprint"]
    (base / "result.json").unlink()
    result = adapter_soup(recipe, base, tmp_path / "folds", tmp_path / "soup")
    assert result.details["learned_from"] == ["dev", "test", "train"] and result.data["fingerprint"] == known
    assert [text.split(" ", 1)[1][:25] for text in result.warnings] == ["has no result.json that s"]
    assert not predicted(settings, tmp_path / "soup", ["dev", "test"]).held_out.any()


@pytest.fixture
def members(tmp_path: Path, settings: Build, base: Path) -> list[Path]:
    """Two members a step away from one beginning; the second has chosen its epoch on dev."""
    photos, folders = Path(settings().dataset_name), []
    for number, learned in enumerate((["train"], ["train", "dev"])):
        model = load_member(str(base)).model
        draw = torch.Generator().manual_seed(number)
        for weight in model.classifier.parameters():
            weight.data += 0.05 * torch.randn(weight.shape, generator=draw)
        folders.append(save_member(tmp_path / f"member{number}", model))
        record_training(folders[-1], photos, learned)
        begin(folders[-1], "seed 0")
    return folders


def begin(folder: Path, beginning: str | None) -> None:
    """Write what a member's training started from into its record."""
    result = read_result(folder / "result.json")
    result.details["initialised_from"] = beginning
    write_result(folder / "result.json", result)


def member_soup(recipe: ModuleType, members: list[Path], output: Path) -> RunResult:
    recipe.main(["--models", *map(str, members), "--output_dir", str(output)])
    return read_result(output / "result.json")


def test_a_soup_of_members_is_their_mean_and_learned_from_what_each_did(
    recipe: ModuleType, settings: Build, members: list[Path], tmp_path: Path
) -> None:
    result = member_soup(recipe, members, tmp_path / "soup")
    models = {str(folder): load_member(str(folder)).model for folder in members}
    expected = weight_soup(models, dict.fromkeys(models, "same"))
    torch.testing.assert_close(logits(load_member(str(tmp_path / "soup")).model), logits(expected), rtol=0, atol=0)
    assert result.details["learned_from"] == ["dev", "train"] and result.details["initialised_from"] == "seed 0"
    assert list(result.details["soup_of"]) == [str(folder) for folder in members]
    found = predicted(settings, tmp_path / "soup", ["dev", "test"])
    np.testing.assert_array_equal(found.held_out, found.splits == "test")
    again = member_soup(recipe, [*members, tmp_path / "soup"], tmp_path / "more")
    assert len(again.details["soup_of"]) == 3


@pytest.mark.parametrize(
    ("beginning", "message"), [("seed 1", "started from 'seed 1'"), (None, "has no record of its")]
)
def test_members_of_other_beginnings_are_refused_by_name(
    recipe: ModuleType, members: list[Path], tmp_path: Path, beginning: str | None, message: str
) -> None:
    begin(members[1], beginning)
    with pytest.raises(ValueError, match=rf"member '.*member1' {message}"):
        member_soup(recipe, members, tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_members_of_other_data_or_views_are_refused(recipe: ModuleType, members: list[Path], tmp_path: Path) -> None:
    record = (members[1] / "result.json").read_text()
    write_result(members[1] / "result.json", _with_fingerprint(read_result(members[1] / "result.json"), "other"))
    with pytest.raises(ValueError, match=r"member0' and '.*member1' were trained on other data"):
        member_soup(recipe, members, tmp_path / "soup")
    (members[1] / "result.json").write_text(record)
    RoadworkImageProcessor(view_size=32, global_fit="letterbox").save_pretrained(members[1])
    with pytest.raises(ValueError, match=r"member0' and '.*member1' have image processors that cut other views"):
        member_soup(recipe, members, tmp_path / "soup")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "model=None and adapters=None go together"),
        (["--model", "m"], "go together"),
        (["--models", "a", "b", "--model", "m"], "give one of the two"),
        (["--models", "a", "a"], "give each member once"),
        (["--models", "a", "b", "--output_dir", "a"], "is a folder that is read"),
    ],
)
def test_bad_settings_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe(words, [SoupArguments])


@pytest.mark.parametrize("name", ["quickstart", "natix", "models"])
def test_variants_parse(name: str) -> None:
    (arguments,) = parse_recipe(["--config", str(ROOT / "recipes" / "soup" / f"{name}.yaml")], [SoupArguments])
    assert arguments.output_dir.startswith("runs/")


def test_the_list_of_members_begins_alike_and_is_what_is_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _, listed = parse_members(["--config", "recipes/soup/members.yaml", "--use_cpu", "true"])
    (arguments,) = parse_recipe(["--config", "recipes/soup/models.yaml"], [SoupArguments])
    assert [str(member.folder) for member in listed] == arguments.models
    assert len({member.settings["seed"] for member in listed}) == 1
    assert len({member.settings["learning_rate"] for member in listed}) == 3


def test_trainings_of_one_seed_begin_alike_and_make_a_soup(recipe: ModuleType, tmp_path: Path) -> None:
    """Whatever the learning rate; another seed draws another head, which is refused."""
    folders = [
        train_base(tmp_path / "a", max_steps=2),
        train_base(tmp_path / "b", max_steps=2, learning_rate=3e-3, **_of(tmp_path / "a")),
        train_base(tmp_path / "c", max_steps=2, seed=2, split_seed=1, **_of(tmp_path / "a")),
    ]
    began = [read_result(folder / "result.json").details["initialised_from"] for folder in folders]
    assert began[0] == began[1] != began[2]
    result = member_soup(recipe, folders[:2], tmp_path / "soup")
    assert result.details["initialised_from"] == began[0] and result.details["learned_from"] == ["train"]
    with pytest.raises(ValueError, match=r"c/base' started from .*average their predictions instead"):
        member_soup(recipe, [folders[0], folders[2]], tmp_path / "none")


def _of(folder: Path) -> dict[str, Path]:
    """Photos and backbone of another training."""
    return {"dataset_name": folder / "photos", "backbone_id": folder / "backbone", "feature_cache": folder / "tokens"}
