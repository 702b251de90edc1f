"""Headless Chromium for tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service

CHROMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Skips where there is none, except in CI, where it has to be there."""
    chrome, driver = next(filter(None, map(shutil.which, CHROMES)), None), shutil.which("chromedriver")
    if not chrome or not driver:
        lacking = "wants Chromium and its chromedriver: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    quiet = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
    # Without a sandbox, as in containers and as root it has none; without names, so that it reaches nothing.
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "host-resolver-rules=MAP * ~NOTFOUND", *quiet):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    held = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(held)
    finally:
        held.quit()


class Browser:
    """One page after another, as a reader sees it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Opens a file in a window of so many pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(page.as_uri())

    def ask(self, script: str, *arguments: Any) -> Any:
        """What an expression of JavaScript is."""
        return self.driver.execute_script(f"return ({script})", *arguments)

    def console(self) -> list[str]:
        """What the page has complained of since the last call."""
        return [line["message"] for line in self.driver.get_log("browser")]  # pyright: ignore[reportAttributeAccessIssue]

    def press(self, *keys: str) -> None:
        """Keys to whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()
