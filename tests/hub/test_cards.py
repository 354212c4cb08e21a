"""Cards match their pattern in full, hold the figures of the record, and their loading code runs."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.calibration import AffineMap
from natix_roadwork.cli import main
from natix_roadwork.hub.backbone_licences import backbone_licence
from natix_roadwork.hub.cards import render_card, subnet_card
from natix_roadwork.hub.publish import push
from natix_roadwork.hub.publish_files import read_calibration
from natix_roadwork.runs import RunResult, interval_text, read_result, write_result
from tests.hub.card_pattern import CARD_PATTERN
from tests.hub.conftest import HOTKEY, Arguments


ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "model_cards" / "results" / "quickstart.json"
Change = Callable[..., RunResult]


@pytest.fixture
def changed() -> Change:
    """The quickstart's record with other values of `details.published`."""
    result = read_result(QUICKSTART)

    def change(**published: Any) -> RunResult:
        return replace(result, details=result.details | {"published": result.details["published"] | published})

    return change


def check(card: str) -> None:
    assert re.fullmatch(CARD_PATTERN, card), first_odd_line(card)
    assert not re.search(r"\bNone\b(?! were)|\bnan\b|\{\{|\{%|undefined variable", card)


def first_odd_line(card: str) -> str:
    """The end of the longest beginning of a card that a beginning of the pattern matches."""
    pieces = CARD_PATTERN.split("\n")
    for count in range(len(pieces), 0, -1):
        try:
            found = re.match("\n".join(pieces[:count]), card)
        except re.error:
            continue
        if found:
            return card[found.end() - 80 : found.end() + 160]
    return card[:160]


def test_committed_cards_are_those_of_the_committed_record(tmp_path: Path) -> None:
    assert main(["card", str(QUICKSTART), str(tmp_path)]) == 0
    for name in ("README.md", "model_card.json"):
        assert (tmp_path / name).read_bytes() == (ROOT / "model_cards" / "quickstart" / name).read_bytes()


def test_the_quickstarts_card_matches_and_holds_its_figures() -> None:
    result = read_result(QUICKSTART)
    card = render_card(result)
    check(card)
    metrics = [result.metrics["dev"], *(found["dev"] for found in result.baselines.values())]
    assert all(interval_text(found["mcc"]) in card for found in metrics)
    assert "**A stand-in.**" in card and "not roadwork accuracy" in card and result.commit[:12] in card


@pytest.mark.parametrize("complete", [False, True])
def test_cards_of_publishings_match(arguments: Arguments, parts: dict, trained: Path, complete: bool) -> None:
    push(arguments(**parts if complete else {"score_lockbox": False}))
    card = (trained / "out" / "repo" / "README.md").read_text()
    check(card)
    assert ("RoadworkEnsemble" in card) == complete and ("fold0, fold1" in card) == complete


def test_a_published_card_names_figures_of_detectors(
    arguments: Arguments, trained: Path, tiny_model: RoadworkForImageClassification
) -> None:
    config = copy.deepcopy(tiny_model.config)
    config.extra_evidence_size = 2
    RoadworkForImageClassification(config).save_pretrained(trained / "model")
    push(arguments(score_lockbox=False))
    card = (trained / "out" / "repo" / "README.md").read_text()
    check(card)
    assert "It also reads figures of detectors where they are given" in card


def test_a_card_says_what_is_read_beside_the_photo(changed: Change) -> None:
    model = read_result(QUICKSTART).details["published"]["model"]
    card = render_card(changed(model=model | {"metadata_fields": ["gps"], "side_inputs": ["a depth map"]}))
    check(card)
    assert "It also reads gps, a depth map where they are given; what is not given counts as missing." in card


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
def test_loading_code_of_the_card_runs(
    arguments: Arguments, parts: dict, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(arguments(**parts, score_lockbox=False))
    folder = trained / "out" / "repo"
    blocks = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    code = "\n".join(blocks).replace('repo = "path/to/this/folder"', f"repo = {str(folder)!r}")
    monkeypatch.chdir(trained)
    Image.fromarray(np.full((96, 128, 3), 90, np.uint8)).save("photo.jpg")
    names: dict[str, Any] = {}
    exec(code, names)
    assert 0 < names["probability"] < 1 and names["probabilities"].shape == (1,)
    assert names["statistics"].record["rows"] == [30, 30]


def test_a_calibrated_copy_is_published_with_its_trainings_data(arguments: Arguments, trained: Path) -> None:
    path = trained / "model" / "result.json"
    result = read_result(path)
    half = {"mcc": {"value": 0.5, "low": 0.4, "high": 0.6}}
    details = {"calibrated_from": {"result.json": result.config}, "rows": 6, "learned_from": ["train", "dev"]}
    scores = {"metrics": {"held_out": half}, "baselines": {"as it was": {"held_out": half}}}
    config = {"model": "runs/model", "method": "cut"}
    write_result(
        path, replace(result, config=config, details=details | {"map": {"scale": 2.0, "offset": 0.5}}, **scores)
    )
    assert read_calibration(str(path)) == AffineMap(2.0, 0.5)
    done, _ = push(arguments())
    card = (trained / "out" / "repo" / "README.md").read_text()
    check(card)
    assert "| held out (calibrated out of fold) | 6 | 0.500 [0.400, 0.600] |" in card and done.lockbox.new == 1
    write_result(path, replace(result, config=config))
    with pytest.raises(ValueError, match=r"names no data set .*--dataset_name"):
        push(arguments())


def test_errors_by_slice_come_from_the_report(changed: Change) -> None:
    half = {"value": 0.5, "low": 0.4, "high": 0.6}
    nothing = {"value": None, "low": None, "high": None}
    wet = {"dimension": "weather", "value": "rainy", "num_rows": 40, "too_few": False, "mcc": half, "fnr": half}
    slices = [wet | {"excess": half}, wet | {"value": "snowy", "too_few": True, "excess": nothing}]
    card = render_card(changed(slices=slices))
    check(card)
    assert "| weather: rainy | 40 | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] | +0.500" in card
    assert "left out (1)" in card and "snowy" not in card


@pytest.mark.parametrize(
    ("backbone", "licence", "said"),
    [
        ("facebook/dinov3-vith16plus-pretrain-lvd1689m", "other", "gated"),
        ("timm/vit_huge_plus_patch16_dinov3.lvd1689m", "other", "DINOv3 License"),
        (
            "facebook/convnextv2-base-22k-224",
            "cc-by-nc-4.0",
            "says Apache-2.0, while the authors' own repository says",
        ),
        ("embedded:efficientnet-lite0", "apache-2.0", "EfficientNet-Lite0 is Apache-2.0"),
        ("someone/else", "other", "not known to this card"),
    ],
)
def test_licences_of_backbones(changed: Change, backbone: str, licence: str, said: str) -> None:
    card = render_card(changed(backbones=[backbone], backbone_in_checkpoint=False))
    check(card)
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == licence == backbone_licence(backbone).identifier and said in card
    assert front.get("base_model") == (None if backbone.startswith("embedded") else [backbone])


def test_backbones_of_several_licences_are_all_named(changed: Change) -> None:
    card = render_card(changed(backbones=["facebook/dinov3-vits16", "facebook/convnextv2-base-22k-224"]))
    check(card)
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other" and front["license_name"] == "dinov3-convnext-v2-license"
    assert "DINOv3 License" in card and "CC-BY-NC 4.0" in card and "have licences of their own" in card


def test_the_subnets_card_has_its_keys(changed: Change) -> None:
    card = subnet_card(changed())
    wanted = {"model_name": str, "description": str, "version": str, "submitted_by": str, "submission_time": int}
    assert {key: type(value) for key, value in card.items()} == wanted and card["submitted_by"] == HOTKEY
    with pytest.raises(ValueError, match="hotkey=None"):
        subnet_card(changed(hotkey=None))


def test_a_record_that_was_never_published_has_no_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = json.loads(QUICKSTART.read_text())
    del values["details"]["published"]
    (tmp_path / "result.json").write_text(json.dumps(values))
    assert main(["card", str(tmp_path / "result.json"), str(tmp_path / "card")]) == 2
    assert "details.published" in capsys.readouterr().err and not (tmp_path / "card" / "README.md").exists()
