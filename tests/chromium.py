"""Pages in a headless Chromium, driven by Playwright: real keys, a real pointer, the console and the network.

Playwright brings its driver but no browser; the tests use the Chromium of the system and are skipped without one.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["Tab", "chromium"]


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """A running browser, with these options of its own; skips the test if there is no Chromium on PATH."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here to open the pages in")
    arguments = [*options, "--no-sandbox", "--mute-audio", "--disable-gpu", "--force-color-profile=srgb"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


class Tab:
    """One page of a browser, with everything it complained about and every address it asked for."""

    def __init__(self, browser: Browser, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        scheme = "dark" if dark else "light"
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        self.page.on("console", lambda m: m.type in ("error", "warning", "assert") and self.complaints.append(m.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.on("request", lambda request: self.addresses.append(request.url))

    def open(self, path: Path) -> None:
        """Load a file, and forget complaints and addresses of the page before."""
        self.complaints.clear()
        self.addresses.clear()
        self.page.goto(path.as_uri())

    def box(self, selector: str) -> dict[str, float]:
        """Scroll an element into view; return its x, y, width and height in the window."""
        script = "e => (e.scrollIntoView({block: 'center'}), e.getBoundingClientRect().toJSON())"
        return self.page.locator(selector).evaluate(script)

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Wait until an expression is true.

        ``Page.wait_for_function`` evaluates its expression inside the page, which the Content-Security-Policy of a
        report forbids.
        """
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"still not true after {seconds} s: {condition}")
            self.page.wait_for_timeout(50)

    def press(self, key: str, times: int = 1) -> None:
        """Press and release a key."""
        for _ in range(times):
            self.page.keyboard.press(key)
