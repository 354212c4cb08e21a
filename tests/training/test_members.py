"""The file of members and its command line: whose value wins, what is refused, and what counts as trained."""

import json
from pathlib import Path

import pytest

from natix_roadwork.runs import RunRecorder
from natix_roadwork.training.members import Member, is_finished, note_settings, parse_members
from natix_roadwork.training.yaml_args import RecipeError


ROOT = Path(__file__).parents[2]
MEMBERS = ROOT / "recipes" / "ensemble" / "members.yaml"
RECIPE = "dataset_name: photos\nfeature_cache: auto\nlearning_rate: 1.0e-3\nseed: 7\nuse_cpu: true\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with one recipe and one launch config."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(RECIPE)
    Path("cpu.yaml").write_text("use_cpu: true\n")
    return tmp_path


def parsed(content: str, *words: str) -> list[Member]:
    Path("members.yaml").write_text(f"launch_config: cpu.yaml\n{content}")
    return parse_members(["--config", "members.yaml", *words])[1]


def finish(member: Member, **changes: object) -> None:
    with RunRecorder(member.settings | changes, 7) as recorder:
        recorder.write(member.folder)


def test_the_file_of_the_six_members_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = ["--config", str(MEMBERS), "--use_cpu", "true", "--dataset_name", "photos", "--max_steps", "3"]
    arguments, members = parse_members([*words, "--devices", "0", "1", "--output_dir", "runs/try"])
    assert arguments.devices == ["0", "1"]
    assert [member.name for member in members] == sorted(
        path.stem for path in (ROOT / "recipes" / "pretrain").glob("model_*.yaml")
    )
    assert {member.settings["dataset_name"] for member in members} == {"photos"}
    assert {member.settings["max_steps"] for member in members} == {3}
    assert members[3].folder == Path("runs/try/model_4_wider")
    assert members[3].arguments[-1] == "--output_dir=runs/try/model_4_wider"
    keys = [member.token_key for member in members]
    assert keys[0] == keys[3] == keys[4] and len(set(keys)) == 4  # draws of two members, another backbone


def test_the_last_of_recipe_file_member_and_command_line_wins(folder: Path) -> None:
    content = """
    dropout: 0.2
    seed: 8
    weight_decay: 0.5
    members:
      a: small.yaml
      b: {recipe: small.yaml, seed: 9, dropout: 0.3, focal_alpha: [1, 2], learning_rate: null}
    """
    a, b = parsed(content.replace("\n    ", "\n"), "--dropout", "0.4", "--output_dir", "out")
    assert (a.settings["seed"], a.settings["dropout"], a.settings["weight_decay"]) == (8, 0.4, 0.5)
    assert (b.settings["seed"], b.settings["dropout"], b.settings["focal_alpha"]) == (9, 0.4, [1.0, 2.0])
    assert (a.settings["learning_rate"], b.settings["learning_rate"]) == (1e-3, 3e-4)
    assert a.settings["existing_run"] == "resume" and a.settings["split_manifest"] == "out/split_manifest.json"


def test_a_folder_of_tokens_has_one_for_each_kind(folder: Path) -> None:
    content = "members:\n  a: small.yaml\n  b: {recipe: small.yaml, hidden_size: 64}\n  c: {recipe: small.yaml, view_size: 64}\n"
    words = [member.arguments[-1] for member in parsed(content, "--feature_cache", "tokens")]
    assert words[0] == words[1] != words[2] and all(word.startswith("--feature_cache=tokens/") for word in words)
    assert [member.token_key for member in parsed(content, "--feature_cache", "off")] == [None] * 3


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("members:\n  a: none.yaml\n", [], "member 'a': no recipe file at 'none.yaml'"),
        ("members:\n  a: small.yaml\n  a: small.yaml\n", [], r"members.yaml: key 'a' stands twice.*line 4"),
        (
            "members: {a: {recipe: small.yaml, droput: 1}}\n",
            [],
            "'a': unknown key 'droput'; the nearest key is 'dropout'",
        ),
        ("droput: 1\nmembers: {a: small.yaml}\n", [], "members.yaml: unknown key 'droput'; the nearest"),
        ("members: {a: small.yaml}\n", ["--droput=1"], "command line: unknown key 'droput'; the nearest"),
        ("members: {a: small.yaml}\n", ["--worker", "2"], "unknown key 'worker'; the nearest key is 'workers'"),
        ("members: {a: {recipe: small.yaml, output_dir: x}}\n", [], "unknown key 'output_dir'"),
        ("members: {a: {recipe: small.yaml, dropout: much}}\n", [], "member 'a': small.yaml: .*dropout.*'much'"),
        ("members: {a: {seed: 1}}\n", [], "member 'a': expected a recipe file or"),
        ("members: {../a: small.yaml}\n", [], "member '../a': a name is a folder's"),
        ("members: []\n", [], "'members' must map names to recipe files"),
        ("{}\n", [], "'members' must map names to recipe files"),
        ("members: {a: small.yaml}\n", ["--dry_run", "true"], "dry_run trains nothing"),
        ("members: {a: small.yaml}\n", ["--workers", "0"], "workers=0"),
        ("members: {a: small.yaml}\n", ["--workers", "2", "--devices", "0"], "leave workers=2 out"),
        ("members: {a: small.yaml}\n", ["--devices", "0", "0"], "names one twice"),
        ("members: {a: small.yaml}\n", ["--launch_config", "none"], "launch_config='none' is no file"),
    ],
)
def test_what_cannot_be_used_is_named(content: str, words: list[str], message: str, folder: Path) -> None:
    content = "" if content == "{}\n" else content
    with pytest.raises(ValueError, match=message):
        parsed(content, *words)


def test_members_without_a_file_of_them_are_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match="--config"):
        parse_members([])
    with pytest.raises(RecipeError, match=r"no recipe file at 'absent[.]yaml'"):
        parse_members(["--config", "absent.yaml"])


def test_a_member_is_finished_by_a_result_of_its_settings(folder: Path) -> None:
    (member,) = parsed("members: {a: small.yaml}\n")
    assert not is_finished(member)
    note_settings(member)
    assert not is_finished(member)
    finish(member, output_dir="elsewhere", existing_run="refuse", bf16=True)
    assert is_finished(member)
    finish(member, dropout=0.9)
    with pytest.raises(ValueError, match=r"member 'a': .* run of other settings \(dropout: 0.9 there, 0.1 now\)"):
        is_finished(member)
    (again,) = parsed("members: {a: small.yaml}\n", "--existing_run", "overwrite")
    assert not is_finished(again)


def test_a_begun_member_is_continued_with_its_settings_only(folder: Path) -> None:
    note_settings(parsed("members: {a: small.yaml}\n")[0])
    (other,) = parsed("members: {a: small.yaml}\n", "--learning_rate", "1e-4")
    with pytest.raises(ValueError, match=r"learning_rate: 0.001 there, 0.0001 now"):
        is_finished(other)
    assert json.loads((other.folder / "member.json").read_text())["recipe"] == "small.yaml"


def test_a_precision_that_was_asked_for_counts(folder: Path) -> None:
    (member,) = parsed("members: {a: small.yaml}\n", "--bf16", "false")
    finish(member, bf16=True)
    with pytest.raises(ValueError, match="bf16: True there, False now"):
        is_finished(member)
