"""The quality page of degraded masks of drawn scenes, in a real browser on a desk and on a phone."""

import importlib.util
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import concatenate_datasets
from selenium.webdriver import Chrome

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.scenes import write_scenes
from tests.browser import chromium, open_page, requests
from tests.labeling.mask_folders import degrade, scene_masks


ROOT = Path(__file__).parents[2]
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the recipe writes of 24 scenes whose masks were degraded."""
    folder = tmp_path_factory.mktemp("quality")
    settings = {"num_rows": 24, "width": 480, "positive_share": 0.6, "test_share": 0.0}
    scenes = write_scenes(folder / "scenes", progress=False, **settings)
    rows = concatenate_datasets(list(load_rows(str(scenes), near_duplicates=False).splits.values()))
    truth, masks = scene_masks(scenes, rows, folder / "truth"), scene_masks(scenes, rows, folder / "masks", degrade)
    spec = importlib.util.spec_from_file_location("mask_quality_recipe", ROOT / "recipes" / "mask_quality.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    given = {"masks": masks, "reference": truth, "dataset_name": scenes, "output_dir": folder / "out"}
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    recipe.main(["--config", str(ROOT / "recipes/mask_quality/quickstart.yaml"), *words, "--near_duplicates", "false"])
    return folder / "out" / "quality.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize("width", WIDTHS)
def test_page_opens_without_errors_and_without_the_network(browser: Chrome, page: Path, width: int) -> None:
    open_page(browser, page, width)
    assert browser.get_log("browser") == []
    assert set(requests(browser)) == {page.as_uri()}
    sizes = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(sizes) > 20 and all(sizes)


@pytest.mark.parametrize("width", WIDTHS)
def test_page_is_no_wider_than_the_window(browser: Chrome, page: Path, width: int) -> None:
    open_page(browser, page, width)
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    outside = """return [...document.querySelectorAll("body *")].filter(part => !part.closest(".scroll")
        && part.getBoundingClientRect().right > innerWidth + 1).map(part => part.outerHTML.slice(0, 80))"""
    assert browser.execute_script(outside) == []


def test_without_the_extra_the_recipe_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "natix_roadwork.labeling.mask_quality", None)
    main = runpy.run_path(str(ROOT / "recipes" / "mask_quality.py"))["main"]
    with pytest.raises(ImportError, match=r"pip install 'natix-roadwork\[labeling\]'"):
        main([])
