"""The publishing recipe: its YAML files parse, and it ends in one line where something is wrong."""

from pathlib import Path

import pytest

from natix_roadwork.cli import main
from natix_roadwork.hub.publish_arguments import PublishArguments
from natix_roadwork.training.yaml_args import parse_recipe


RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.mark.parametrize("path", sorted((RECIPES / "publish").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_variant_parses(path: Path) -> None:
    target = [] if "folder:" in path.read_text() else ["--repo_id", "someone/roadwork"]
    (arguments,) = parse_recipe(["--config", str(path), *target], [PublishArguments])
    assert arguments.score_lockbox and Path(arguments.output_dir).parts[0] == "runs"
    assert len(arguments.sources) in (0, 6) and arguments.name in ("quickstart", "roadwork")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "nowhere", "--folder", "out"], "nowhere/result.json does not exist"),
        (["--model", "nowhere", "--folder", "out", "--repoid", "a/b"], "nearest key is 'repo_id'"),
        (["--model", "nowhere"], "give one, a Hub repository or a local folder"),
    ],
)
def test_a_wrong_command_is_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["publish", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("natix-roadwork publish: ")
