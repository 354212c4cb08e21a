"""The error report in a real browser, on a desk and on a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from natix_roadwork.inference.error_report import ReportData
from natix_roadwork.inference.report_page import render
from tests.browser import chromium, open_page, requests


WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def page(report: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(report), encoding="utf-8")
    return path


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
    assert sizes and all(sizes)


@pytest.mark.parametrize("width", WIDTHS)
def test_page_is_no_wider_than_the_window(browser: Chrome, page: Path, width: int) -> None:
    open_page(browser, page, width)
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    outside = """return [...document.querySelectorAll("body *")].filter(part => !part.closest(".scroll, .switches legend")
        && part.getBoundingClientRect().right > innerWidth + 1).map(part => part.outerHTML.slice(0, 80))"""
    assert browser.execute_script(outside) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_letters_of_charts_and_boxes_are_readable(browser: Chrome, page: Path, width: int) -> None:
    open_page(browser, page, width)
    heights = browser.execute_script("""return [...document.querySelectorAll(".chart text, .views text")].map(text =>
        parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b))""")
    assert len(heights) > 30 and min(heights) >= 15.5


def test_layers_are_switched_without_script(browser: Chrome, page: Path) -> None:
    open_page(browser, page, 1280)
    heat, switch = (browser.find_element(By.CSS_SELECTOR, name) for name in (".card .heat", ".card .show-heat"))
    assert heat.is_displayed()
    switch.click()
    assert not heat.is_displayed()


def test_ink_follows_the_reader_s_colour_scheme(browser: Chrome, page: Path) -> None:
    shades = {}
    for dark in (False, True):
        open_page(browser, page, 390, dark)
        style = "return getComputedStyle(document.querySelector('.chart text')).fill"
        shades[dark] = int(browser.execute_script(style).split("(")[1].split(",")[0])
    assert shades[False] < 80 < 180 < shades[True]
