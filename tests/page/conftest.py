"""The dashboard in a process of its own, and a browser that looks at it."""

from collections.abc import Callable, Generator
from typing import Any

import pytest
from support.browser import Open, chromium
from support.command_line import next_line, started

sync_api: Any = pytest.importorskip("playwright.sync_api")
"""`make test-page` installs it; the types of every other tool do without it."""


@pytest.fixture(scope="session")
def chrome() -> Generator[Any]:
    program = chromium()
    if program is None:
        pytest.skip("no chromium (Debian's package chromium)")
    with sync_api.sync_playwright() as playwright:
        # As root there is no sandbox; everything here comes from this machine.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def address(redis_url: str) -> Generator[str]:
    """With a token made for this run in its last part, as the command prints it."""
    with started("-m", "worker", "dashboard", "--port", "0", WORKER_REDIS_URL=redis_url) as process:
        yield next_line(process).strip()


@pytest.fixture
def look(chrome: Any, address: str) -> Generator[Open]:
    """Opens the page in a browser of its own; a complaint of the browser, such as of the CSP, fails the test."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def opened(*, width: int = 1320, height: int = 900, scheme: Any = "light", signed_in: bool = True) -> Any:
        context = chrome.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1, locale="en-GB"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", _listening(complaints))
        page.on("pageerror", _listening(complaints))
        page.goto(address if signed_in else address.partition("#")[0])
        if signed_in:
            page.wait_for_selector("body[data-shown]", timeout=60_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [line for line in complaints if "403" not in line] == []


def _listening(complaints: list[str]) -> Callable[[Any], None]:
    """Of a message on the console, or of an error that nobody caught."""

    def listen(what: Any) -> None:
        if getattr(what, "type", "error") == "error":
            complaints.append(getattr(what, "text", str(what)))

    return listen
