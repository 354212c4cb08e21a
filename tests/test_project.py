"""Rules of the house that hold for every file: sizes, imports, docstrings, commands in the documentation."""

import ast
import itertools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from importlinter.cli import lint_imports

from tests.benchmarks.speed_table import speed_table, with_table


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "natix_roadwork"
TOP_LEVEL = {
    "CITATION.cff",
    "LICENSE",
    "Makefile",
    "README.md",
    "model_cards",
    "natix_roadwork",
    "pyproject.toml",
    "recipes",
    "tests",
}
MODEL_PACKAGES = {"PIL", "huggingface_hub", "numpy", "safetensors", "torch", "transformers"}
NUMERICS = ("environment", "metrics", "runs", "replay", "embedded", "calibration", "threshold", "gps", "subnet")
MAX_PROCESS_TESTS = 25


def _tracked() -> list[Path]:
    """Files that belong to the project: what git tracks or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


FILES = _tracked()
PYTHON_FILES = [path for path in FILES if path.suffix == ".py"]
LIBRARY_FILES = [path for path in PYTHON_FILES if path.is_relative_to(PACKAGE)]
GUIDES = [path for path in FILES if path.suffix == ".md"]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _imports(tree: ast.AST) -> list[tuple[int, str, ast.stmt]]:
    """Every import as (level, module, statement)."""
    found: list[tuple[int, str, ast.stmt]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", node))
    return found


def _settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_top_level_is_the_agreed_one() -> None:
    found = {_name(path).split("/")[0] for path in FILES}
    assert {name for name in found if not name.startswith(".")} <= TOP_LEVEL


def test_files_and_functions_are_short() -> None:
    long = []
    for path in PYTHON_FILES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > 300:
            long.append(f"{_name(path)}: {lines} lines")
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 80:
                    long.append(f"{_name(path)}:{node.lineno} {node.name}: {length} lines")
    assert not long


def test_recipe_scripts_are_short() -> None:
    long = [_name(path) for path in (ROOT / "recipes").glob("*.py") if len(path.read_text().splitlines()) > 80]
    assert not long


def _undocumented(node: ast.AST, prefix: str) -> list[str]:
    missing = []
    for child in getattr(node, "body", []):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            name = f"{prefix}.{child.name}"
            if not ast.get_docstring(child):
                missing.append(name)
            if isinstance(child, ast.ClassDef):
                missing += _undocumented(child, name)
    return missing


def test_public_names_have_docstrings() -> None:
    missing = []
    for path in LIBRARY_FILES:
        tree = _tree(path)
        if tree.body and not ast.get_docstring(tree):
            missing.append(_name(path))
        missing += _undocumented(tree, _name(path))
    assert not missing


def test_import_contracts_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # It would set up logging for the whole process, and switch off every logger there is: later tests read theirs.
    monkeypatch.setattr("importlinter.cli.logging_config.dictConfig", lambda _: None)
    assert lint_imports(no_cache=True, no_logo=True) == 0


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").glob("*.py")), ids=lambda path: path.name)
def test_model_file_can_travel_to_the_hub(path: Path) -> None:
    tree = _tree(path)
    optional = {id(node) for attempt in ast.walk(tree) if isinstance(attempt, ast.Try) for node in attempt.body}
    for level, module, node in _imports(tree):
        if level:
            assert level == 1 and (path.parent / f"{module}.py").is_file(), ast.unparse(node)
        elif id(node) not in optional:
            package = module.split(".")[0]
            assert package in MODEL_PACKAGES | set(sys.stdlib_module_names), ast.unparse(node)
    # The Hub's scan reads text, not code: a line of prose that looks like an import makes saving fail.
    for sibling in re.findall(r"^\s*from\s+\.(\w+)\s+import", path.read_text(encoding="utf-8"), re.MULTILINE):
        assert (path.parent / f"{sibling}.py").is_file(), sibling


def test_every_imported_package_is_declared() -> None:
    project = _settings()["project"]
    requirements = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}
    homes = metadata.packages_distributions()
    missing = set()
    for path in LIBRARY_FILES + [path for path in PYTHON_FILES if path.is_relative_to(ROOT / "recipes")]:
        for level, module, _ in _imports(_tree(path)):
            package = module.split(".")[0]
            if level or package in sys.stdlib_module_names or package == "natix_roadwork":
                continue
            # What is not installed, such as an extra, is looked for by the name it is imported by.
            if not {home.lower().replace("_", "-") for home in homes.get(package, [package])} & declared:
                missing.add(f"{_name(path)}: {package}")
    assert not missing


def test_entry_point_exists() -> None:
    entry = metadata.entry_points(group="console_scripts", name="natix-roadwork")
    assert [callable(point.load()) for point in entry] == [True]


@pytest.mark.process
def test_numerics_load_no_trainer() -> None:
    numerics = [path for path in LIBRARY_FILES if path.relative_to(PACKAGE).parts[0].removesuffix(".py") in NUMERICS]
    modules = [_name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in numerics]
    script = f"import sys, {', '.join(modules)}; sys.exit('transformers.trainer' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300, cwd=ROOT)


def test_few_tests_start_a_process(num_process_tests: int) -> None:
    assert num_process_tests <= MAX_PROCESS_TESTS


def test_recipe_files_parse() -> None:
    for path in (ROOT / "recipes").rglob("*.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert isinstance(content, dict) and content, _name(path)
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, _name(path)


def _commands(guide: Path) -> list[str]:
    """The command lines in a guide's fenced blocks, continuation lines joined."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fences if language in ("", "bash", "sh", "shell")]
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.split(" #")[0].strip() for line in text.splitlines() if line.strip()]


def _documented(word: str) -> list[tuple[str, str]]:
    """(guide, command) of the commands in which a word stands."""
    return [(_name(guide), line) for guide in GUIDES for line in _commands(guide) if word in line.split()]


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    used = {(guide, word) for guide, line in _documented("make") for word in line.split()[1:2]}
    assert used
    assert not {(guide, target) for guide, target in used if target not in targets}


def test_documented_paths_exist() -> None:
    lines = [line for word in ("launch", "torchrun", "python") for _, line in _documented(word)]
    lines += [line for _, line in _documented("make")]
    lines += [ast.get_docstring(_tree(path)) or "" for path in (ROOT / "recipes").glob("*.py")]
    paths = {
        word for line in lines for word in line.split() if word.startswith(("recipes/", "tests/", "model_cards/"))
    }
    assert not {path for path in paths if not (ROOT / path).exists()}


def test_documented_subcommands_exist(capsys: pytest.CaptureFixture) -> None:
    from natix_roadwork import cli

    parser = cli._parser()
    for guide, line in _documented("natix-roadwork"):
        words = shlex.split(line)
        words = words[words.index("natix-roadwork") + 1 :]
        with pytest.raises(SystemExit) as stop:
            cli.main([words[0], "--help"])
        assert stop.value.code == 0, f"{guide}: {line}"
        _, unknown = parser.parse_known_args(words)
        assert not unknown or words[0] in ("report", "publish"), f"{guide}: {line}"  # those take a recipe's keys
    capsys.readouterr()


def test_links_in_guides_lead_somewhere() -> None:
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r'src="([^"]+)"', text)
        for target in targets:
            if "://" not in target:
                assert (guide.parent / target).exists(), f"{_name(guide)}: {target}"


def test_readme_maps_every_module() -> None:
    """Each module is named in the README (`scene_*.py` names several), and each named module exists."""
    named = set(re.findall(r"[\w*]+\.py\b", (ROOT / "README.md").read_text(encoding="utf-8")))
    modules = {path.name for path in LIBRARY_FILES if path.name != "__init__.py"}
    assert not [name for name in modules if not any(fnmatch(name, pattern) for pattern in named)]
    assert not [pattern for pattern in named if not any(fnmatch(path.name, pattern) for path in PYTHON_FILES)]


def test_published_numbers_come_from_result_files() -> None:
    """After `<!-- from FILE ... -->`, every `value [low, high]` of the table is one of the files' metrics or baselines."""
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        tables = re.findall(r"^<!-- from ([^>]+) -->\n+((?:\|.*\n)+)", text, re.MULTILINE)
        assert len(tables) == text.count("\n<!-- from "), f"{_name(guide)}: a marker without a table"
        for files, table in tables:
            known = set().union(*(_intervals(json.loads((ROOT / file).read_text())) for file in files.split()))
            shown = re.findall(r"-?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\]", table)
            assert shown and set(shown) <= known, f"{_name(guide)}: {sorted(set(shown) - known)} not in {files}"


def test_table_of_speed_comes_from_result_files() -> None:
    guide = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    assert with_table(guide, speed_table()) == guide, "run python tests/benchmarks/speed_table.py recipes/README.md"


def test_intervals_are_found_in_the_result_of_a_comparison() -> None:
    interval = {"value": 0.634, "low": 0.5, "high": 0.7}
    difference = {"value": -0.02, "low": -0.1, "high": 0.06, "standard_error": 0.04}
    content = {"command": ["a.py"], "rows": 5, "metrics": {"knn": {"mcc": interval, "auc": {**interval, "low": None}}}}
    assert _intervals({**content, "details": {"ablation": [{"name": "head", "difference": difference}]}}) == {
        "0.63 [0.50, 0.70]",
        "-0.02 [-0.10, 0.06]",
    }


def _intervals(content: object) -> set[str]:
    """Every `{value, low, high}` of a result file as the documentation writes it."""
    if isinstance(content, list):
        return set().union(*(_intervals(part) for part in content))
    if not isinstance(content, dict):
        return set()
    if {"value", "low", "high"} <= content.keys():
        measured = None not in content.values()
        return {"{value:.2f} [{low:.2f}, {high:.2f}]".format(**content)} if measured else set()
    return set().union(*(_intervals(part) for part in content.values()))


def test_nothing_names_a_machine_or_an_index() -> None:
    words = ("/" + "work/", "/" + "root/", "/" + "home/", "py" + "pi.org", "pythonhosted" + ".org")
    suffixes = {".cff", ".cfg", ".json", ".md", ".py", ".toml", ".yaml", ".yml", ""}
    found = []
    for path in FILES:
        if path.suffix in suffixes and path.name != "LICENSE":
            text = path.read_text(encoding="utf-8")
            found += [f"{_name(path)}: {word}" for word in words if word in text]
    assert not found
