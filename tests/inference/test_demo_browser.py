"""The demo in a real browser, on a desk and on a phone: upload, result, messages, and nothing asked of other servers."""

import os
import socket
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from natix_roadwork.inference.photo_model import load_photo_model
from tests.browser import chromium, open_page, requests, require_browser


if TYPE_CHECKING:
    import gradio

WIDTHS = (1280, 390)
LOCAL = ("127.0.0.1", "localhost", "::1")
_addresses: list[str] = []


def _note_addresses(event: str, arguments: tuple) -> None:
    """Note the hosts that this process connects to; a hook cannot be taken back, so it only ever notes."""
    if event == "socket.connect" and arguments[0].family in (socket.AF_INET, socket.AF_INET6):
        _addresses.append(arguments[1][0])
    elif event == "socket.getaddrinfo":
        _addresses.append(str(arguments[0]))


@pytest.fixture(scope="module")
def page(saved_model: Path) -> Iterator["gradio.Blocks"]:
    if find_spec("gradio") is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("no gradio: pip install 'natix-roadwork[demo]'")
    require_browser()
    from natix_roadwork.inference.demo import running

    sys.addaudithook(_note_addresses)
    with running(load_photo_model(str(saved_model))) as started:
        yield started


@pytest.fixture(scope="module")
def browser(page: "gradio.Blocks", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "street.jpg")
    (folder / "letter.jpg").write_text("no photo")
    Image.new("1", (10_000, 8_100)).save(folder / "huge.png")
    return {path.stem: path for path in folder.iterdir()}


def wait_for(browser: Chrome, selector: str) -> str:
    """Wait until a part of the page is there, and return what it says."""
    return WebDriverWait(browser, 60).until(lambda it: it.find_elements(By.CSS_SELECTOR, selector))[0].text


def give(browser: Chrome, file: Path, selector: str = ".answer") -> str:
    """Upload a file and return what the page answers."""
    wait_for(browser, "input[type=file]")
    browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(file))
    return wait_for(browser, selector)


def take_back(browser: Chrome) -> None:
    """Remove the file by the page's own button, and wait until the answer is gone."""
    browser.find_element(By.CSS_SELECTOR, "button[aria-label=Clear]").click()
    WebDriverWait(browser, 60).until_not(lambda it: it.find_elements(By.CSS_SELECTOR, ".answer"))


def assert_fits(browser: Chrome, width: int) -> None:
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    outside = """return [...document.querySelectorAll("#result *")].filter(part =>
        part.getBoundingClientRect().right > innerWidth + 1).map(part => part.outerHTML.slice(0, 80))"""
    assert browser.execute_script(outside) == []


def assert_quiet(browser: Chrome, address: str) -> None:
    """No error in the console, and nothing asked of another server."""
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    hosts = {urlsplit(url).netloc for url in requests(browser) if not url.startswith(("blob:", "chrome:"))}
    assert hosts == {urlsplit(address).netloc}


@pytest.mark.parametrize("width", WIDTHS)
def test_a_photo_gets_an_answer_with_its_views(
    browser: Chrome, page: "gradio.Blocks", files: dict[str, Path], width: int
) -> None:
    open_page(browser, page.local_url, width)
    assert "oadwork" in give(browser, files["street"]) and "Where it looked" in wait_for(browser, ".looked")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".parts li.kept")) == 8
    assert len(browser.find_elements(By.CSS_SELECTOR, ".parts li")) == 12
    sizes = browser.execute_script("return [...document.querySelectorAll('#result img')].map(it => it.naturalWidth)")
    assert len(sizes) == 13 and all(sizes)
    assert_fits(browser, width)
    assert_quiet(browser, page.local_url)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("name", "said"), [("letter", "not a readable picture"), ("huge", "81.0 megapixels")])
def test_a_file_that_is_no_photo_gets_a_message_and_the_next_one_works(
    browser: Chrome, page: "gradio.Blocks", files: dict[str, Path], name: str, said: str, width: int
) -> None:
    open_page(browser, page.local_url, width)
    message = give(browser, files[name], ".answer.failed")
    assert "This file cannot be used" in message and said in message
    assert "Traceback" not in browser.page_source
    assert_fits(browser, width)
    take_back(browser)
    assert "oadwork" in give(browser, files["street"], ".answer:not(.failed)")
    assert_quiet(browser, page.local_url)


def test_variants_are_looked_at_on_request(browser: Chrome, page: "gradio.Blocks", files: dict[str, Path]) -> None:
    open_page(browser, page.local_url, 1280)
    assert "variants" not in give(browser, files["street"])
    browser.find_element(By.CSS_SELECTOR, "input[type=checkbox]").click()
    WebDriverWait(browser, 60).until(lambda it: "16 variants" in it.find_element(By.CSS_SELECTOR, ".answer").text)
    assert_quiet(browser, page.local_url)


def test_fonts_are_the_system_s(browser: Chrome, page: "gradio.Blocks") -> None:
    open_page(browser, page.local_url, 1280)
    wait_for(browser, "h1")
    family = browser.execute_script("return getComputedStyle(document.querySelector('h1')).fontFamily")
    assert family.startswith("system-ui") and browser.execute_script("return document.fonts.size") == 0


def test_uploads_go_after_a_while_and_with_the_server_and_nothing_is_reported(
    browser: Chrome, page: "gradio.Blocks", files: dict[str, Path], saved_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from natix_roadwork.inference import demo

    assert demo.DELETE_CACHE == (60, 600) and "within a quarter of an hour" in demo.INTRO
    monkeypatch.setattr(demo, "DELETE_CACHE", (2, 3))
    with demo.running(load_photo_model(str(saved_model))) as second:
        uploads = Path(os.environ["GRADIO_TEMP_DIR"])
        open_page(browser, second.local_url, 1280)
        give(browser, files["street"])
        assert list(uploads.rglob("street.jpg"))
        WebDriverWait(browser, 30).until(lambda _: not [path for path in uploads.rglob("*") if path.is_file()])
        take_back(browser)
        give(browser, files["letter"])
    assert not uploads.exists() and os.environ["GRADIO_TEMP_DIR"] != str(uploads)
    assert not page.analytics_enabled and set(_addresses) <= set(LOCAL)


def test_a_port_that_is_taken_is_named(page: "gradio.Blocks", saved_model: Path) -> None:
    from natix_roadwork.inference.demo import running

    port = urlsplit(page.local_url).port
    with pytest.raises(ValueError, match=f"port={port}"), running(load_photo_model(str(saved_model)), port):
        pass
