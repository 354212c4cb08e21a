import dataclasses
import importlib.util
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from natix_roadwork.cli import main as command
from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.data.predictions import Predictions, write_predictions
from natix_roadwork.inference.error_report import ReportData, build_report
from natix_roadwork.inference.report_page import render
from natix_roadwork.inference.report_rows import data_warnings, matching_rows, report_lines, run_warnings
from natix_roadwork.metrics import binary_metrics
from natix_roadwork.runs import RunResult, read_result
from tests.inference.conftest import save_model


ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "img", "br", "input"}


class Outline(HTMLParser):
    """Checks that tags close in order, and collects what a reader of the page without eyes depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def page(report: ReportData) -> str:
    return render(report)


def test_headline_and_confusion_are_those_of_all_rows(report: ReportData, member: Predictions) -> None:
    expected = binary_metrics(member.labels, member.probabilities)
    assert {name: metric["value"] for name, metric in report.metrics.items()} == expected
    wrong = (member.probabilities > 0.5) != (member.labels == 1)
    assert report.confusion["fp"] + report.confusion["fn"] == wrong.sum()
    assert sum(report.confusion.values()) == report.num_rows == 120
    assert report.metrics["mcc"]["low"] < report.metrics["mcc"]["value"] < report.metrics["mcc"]["high"]


def test_the_slice_that_is_worse_is_found_by_tag_and_by_brightness(report: ReportData) -> None:
    scores = {(score.dimension, score.value): score for score in report.scores}
    night, dark = scores["daytime", "night"], scores["brightness", "dark, as at night (below 65)"]
    assert night.adjusted_p <= 0.05 and night.excess.value > 0.2 and night.num_rows == 30
    assert dark.excess == night.excess and dark.p_value == night.p_value
    assert report.num_tests == sum(score.p_value is not None for score in report.scores) + 1
    assert report.undivided == ["scene", "photo size"]
    assert any("'night'" in suggestion.figures for suggestion in report.suggestions)


def test_baselines_are_those_of_the_reported_split(report: ReportData) -> None:
    assert report.baselines["knn"]["accuracy"]["value"] == 0.5 and report.learned_from == ["train"]


def test_another_model_than_the_member_s_is_told(report: ReportData) -> None:
    assert any("may not be the member's" in warning for warning in report.warnings)
    assert not any("where given; the pictures" in warning for warning in report.warnings)


def test_same_seed_same_page(report: ReportData, member: Predictions, rows: Dataset, run_result: RunResult) -> None:
    pages = [render(build_report(member, rows, result=run_result, worst_rows=2, progress=False)) for _ in range(2)]
    assert pages[0] == pages[1] and "Without a model" in pages[0]


def test_page_is_whole_and_needs_nothing_else(page: str, report: ReportData) -> None:
    outline = Outline()
    outline.feed(page)
    assert not outline.open and not outline.of("script")
    assert all(image["src"].startswith("data:") and image["alt"] for image in outline.of("img"))
    assert not re.search(r'(?:src|href)="(?!data:|#)', page) and "url(http" not in page and "@import" not in page
    assert len(outline.of("caption")) == len(outline.of("table")) > 8
    assert all("scope" in cell for cell in outline.of("th"))
    headings = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"] for link in outline.of("a")} <= {f"#{name}" for name in ids}
    assert sum("box" in (box.get("class") or "") for box in outline.of("rect")) > len(report.worst)


def test_page_says_what_the_figures_are(page: str, report: ReportData) -> None:
    assert f"{report.metrics['mcc']['value']:.3f}" in page and "120 rows of dev" in page
    assert "a stand-in &lt;script&gt;" in page and "<script" not in page
    assert "knn" in page and "0.50 [0.25, 0.75]" in page
    assert "without_pruning" in page and "0.12 [0.25, 0.75]" in page and "gains" in page
    assert "hypotheses" in page and "<span>--augmentation heavy</span>" in page
    assert all(f"<code>{row.row_id}</code>" in page for row in report.worst)


def test_charts_keep_letters_readable_and_take_the_page_s_colours(page: str) -> None:
    charts = re.findall(r'<svg class="chart".*?</svg>', page, re.DOTALL)
    assert len(charts) == 2 + 1 + 5  # curves, all rows, each region
    for chart in charts:
        assert {int(size) for size in re.findall(r"font-size: (\d+)px", chart)} == {16}
        assert "var(--ink)" in chart and not re.search("#0[1-7]0[1-7]0[1-7]", chart) and 'role="img"' in chart
        assert float(re.search(r'viewBox="0 0 ([\d.]+)', chart)[1]) <= 350


def test_few_rows_are_grey_and_one_label_is_undefined(member: Predictions, rows: Dataset) -> None:
    few = np.flatnonzero(member.labels == 1)[:15]
    report = build_report(member.select(few), rows.select(few), worst_rows=0, progress=False)
    assert all(score.too_few for score in report.scores) and not report.suggestions
    page = render(report)
    assert page.count('<tr class="few">') == len(report.scores) and "too few" in page
    assert "the rows have one label only" in page and "Nothing is suggested" in page and "No rows were asked" in page


def test_rows_decided_alike_say_so(member: Predictions, rows: Dataset) -> None:
    always = dataclasses.replace(member, logits=np.tile(np.float32([0, 3]), (len(member), 1)))
    report = build_report(always, rows, worst_rows=0, progress=False)
    assert report.metrics["mcc"]["value"] == 0 and {score.mcc.value for score in report.scores} == {None}
    assert "every row is decided Roadwork: 0 by convention" in render(report)


def test_rows_without_metadata_have_no_map(member: Predictions, rows: Dataset) -> None:
    nothing = {
        "latitude": float("nan"),
        "longitude": float("nan"),
        "weather": [],
        "daytime": [],
        "scene": [],
        "city": "",
    }
    report = build_report(member, rows.map(lambda row: nothing), worst_rows=0, progress=False)
    assert report.errors is None and set(report.tables()) == {"brightness"}
    assert 'id="map"' not in render(report)


def test_held_out_rows_are_preferred_and_the_rest_is_told(member: Predictions) -> None:
    splits = np.array(["train"] * 60 + ["dev"] * 40 + ["test"] * 20)
    changed = dataclasses.replace(member, splits=splits, transforms=(np.arange(120) % 10 == 9).astype(np.int64))
    lines, notes = report_lines(changed, lockbox=True)
    assert set(lines.splits) == {"dev"} and len(lines) == 36
    assert notes == [
        "left out: 12 lines of photos under a test-time transform",
        "left out: 18 rows of the lockbox, which is scored once per published model",
        "left out: 54 rows of train that are not reported on",
    ]
    assert set(report_lines(changed, "train")[0].splits) == {"train"}
    assert set(report_lines(changed)[0].splits) == {"dev", "test"}


def test_lines_that_taught_the_member_are_reported_with_a_warning(member: Predictions) -> None:
    learned = dataclasses.replace(member, record={"learned_from": ["train", "dev"]})
    lines, _ = report_lines(learned)
    (warning,) = run_warnings(lines, None)
    assert "120 of 120 rows" in warning and "optimistic" in warning and not run_warnings(member, None)


def test_a_lockbox_alone_is_not_reported_on(member: Predictions) -> None:
    lockbox = dataclasses.replace(member, splits=np.array(["test"] * len(member)))
    with pytest.raises(ValueError, match=r"no line of the splits \['test'\] is left.*lockbox"):
        report_lines(lockbox, lockbox=True)
    with pytest.raises(ValueError, match="split='dev': the predictions have the splits"):
        report_lines(lockbox, "dev")


def test_rows_are_matched_by_id(member: Predictions, loaded: LoadedRows) -> None:
    order = np.random.default_rng(0).permutation(len(member))
    assert matching_rows(member.select(order), loaded)["row_id"][:] == member.row_ids[order].tolist()
    strange = dataclasses.replace(member, row_ids=np.char.add(member.row_ids, "x"))
    with pytest.raises(ValueError, match="lacks 120 of the 120 predicted rows"):
        matching_rows(strange, loaded)
    with pytest.raises(ValueError, match=r"row 'dev/00000.jpg' has label . in the predictions and . in"):
        matching_rows(dataclasses.replace(member, labels=1 - member.labels), loaded)
    with pytest.raises(ValueError, match=r"has split 'test' in the predictions and 'dev' in"):
        matching_rows(dataclasses.replace(member, splits=np.array(["test"] * 120)), loaded)


def test_what_the_run_does_already_is_not_suggested(
    member: Predictions, rows: Dataset, run_result: RunResult, report: ReportData
) -> None:
    heavy = dataclasses.replace(run_result, config={"augmentation": "heavy"})
    copied = dataclasses.replace(run_result, details={"calibrated_from": {"result.json": heavy.config}})
    assert any("--augmentation" in suggestion.keys for suggestion in report.suggestions)
    for result in (heavy, copied):
        again = build_report(member, rows, result=result, worst_rows=0, progress=False)
        assert not any("--augmentation" in suggestion.keys for suggestion in again.suggestions)
        assert ("daytime", "night") in {(score.dimension, score.value) for score in again.unanswered}
        assert "that the run has not set already" in render(again)


def test_a_record_of_other_data_is_told(loaded: LoadedRows, run_result: RunResult) -> None:
    other = dataclasses.replace(run_result, data={"fingerprint": "other"})
    assert any("other data" in text for text in data_warnings(other, loaded))
    assert not any("other data" in text for text in data_warnings(run_result, loaded))


def test_recipe_and_command_write_the_same_page(
    member: Predictions, loaded: LoadedRows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("report_recipe", ROOT / "recipes" / "report.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    write_predictions(tmp_path / "dev.arrow", member)
    keys = {"predictions": tmp_path / "dev.arrow", "dataset_name": loaded.dataset_name, "near_duplicates": "false"}
    words = [f"--{name}={value}" for name, value in keys.items()] + ["--worst_rows", "2"]
    config = ["--config", str(ROOT / "recipes" / "report" / "quickstart.yaml"), "--model", "null"]
    recipe.main([*config, *words, "--output", str(tmp_path / "recipe" / "a.html")])
    assert command(["report", *words, "--seed", "0", "--output", str(tmp_path / "b.html")]) == 0
    assert (tmp_path / "recipe" / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    printed = capsys.readouterr().out
    assert (
        "worse: daytime 'night', 30 rows, +" in printed
        and "hypothesis, try recipes/pretrain.py --augmentation heavy" in printed
    )
    result = read_result(tmp_path / "b.json")
    assert (
        result.metrics["dev"]["mcc"]["value"]
        == json.loads((tmp_path / "b.json").read_text())["metrics"]["dev"]["mcc"]["value"]
    )
    assert len(result.details["slices"]) > 10 and result.details["confusion"]["tp"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--predictons", "x"], "predictions"),
        (["--predictions", "x", "--dataset_name", "y", "--output", "page.txt"], "must be the path of an .html file"),
        (["--predictions", "x", "--dataset_name", "y", "--model_", "z"], "the nearest key is 'model'"),
        (["--predictions", "x", "--dataset_name", "y", "--result", "none.json"], "none.json does not exist"),
        (["--predictions", "x", "--dataset_name", "y", "--ablation", "none.json"], "none.json does not exist"),
    ],
)
def test_wrong_keys_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["report", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("natix-roadwork report: ") and error.count("\n") == 1


def test_lines_and_rows_that_do_not_fit_are_refused(member: Predictions, rows: Dataset) -> None:
    with pytest.raises(ValueError, match="120 lines of 'made up' for 119 rows"):
        build_report(member, rows.select(range(119)), progress=False)
    with pytest.raises(ValueError, match=r"line 0 of 'made up' is row 'dev/00000.jpg', the rows have 'dev/00119.jpg'"):
        build_report(member, rows.select(range(119, -1, -1)), progress=False)
    with pytest.raises(ValueError, match="model='no_such_folder': no model with its image processor"):
        build_report(member, rows, model="no_such_folder", worst_rows=1, progress=False)


def test_pictures_without_depth_and_figures_are_told(member: Predictions, rows: Dataset, tmp_path: Path) -> None:
    views = {"num_views": 13, "depth_view": True, "extra_evidence_size": 2}
    model = save_model(tmp_path / "model", **views)
    found = build_report(member, rows, model=str(model), worst_rows=1, progress=False)
    for name in ("a depth map", "figures of detectors"):
        assert any(f"reads {name} where given; the pictures" in text for text in found.warnings)
        assert f"reads {name} where given" in render(found)
