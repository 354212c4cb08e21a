"""A headless Chromium for tests: what a page logs, what it asks the network for, how wide it is."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service


FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


def require_browser() -> tuple[str, str]:
    """Find Chromium or Chrome and the driver; without them the test fails under CI and is skipped elsewhere."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("no chromium and chromedriver on the path (Debian: apt-get install chromium chromium-driver)")
    return binary, driver


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """Start a browser with a fresh profile that records its console and its network."""
    binary, driver = require_browser()
    options = ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    try:
        browser.get("about:blank")
        requests(browser)  # those of the browser's own start page
        yield browser
    finally:
        browser.quit()


def open_page(browser: Chrome, page: Path | str, width: int, dark: bool = False) -> None:
    """Load a page, a file or an address, in a window of so many CSS pixels."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(page if isinstance(page, str) else page.as_uri())


def requests(browser: Chrome) -> list[str]:
    """Addresses that were asked for since the last call, `data:` URIs left out."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]
