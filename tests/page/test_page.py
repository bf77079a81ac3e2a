"""The dashboard as people see it: what it says, that it is live, and that nobody is left out of it."""

from pathlib import Path
from typing import Any

import pytest
from support.browser import SCREENSHOTS, Open
from support.dead_letters import bury, celery_message, fail
from support.fleet_hour import CANARY, an_hour
from support.polling import wait_until
from support.producer import Producer

expect: Any = pytest.importorskip("playwright.sync_api").expect
DOCS = Path(__file__).parents[2] / "docs" / "operate"

CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const linear = (value) => value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const light = (color) => {
    const [red, green, blue] = rgb(color).map(linear);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!color.endsWith(", 0)") && color !== "transparent") return color;
    }
    return "rgb(255,255,255)";
  };
  const bad = [];
  for (const node of document.querySelectorAll("main *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || node instanceof SVGElement) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push(`${node.tagName} ${node.textContent.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return bad;
}"""
"""Texts of less contrast than WCAG's 4.5 to 1."""


def text(page: Any, selector: str) -> str:
    return page.locator(selector).inner_text()


def press(page: Any, button: Any) -> None:
    """By the keyboard alone, once it is there: a button that is hidden leaves the focus where it was."""
    expect(button).to_be_visible()
    button.focus()
    page.keyboard.press("Enter")


def kept(page: Any, name: str) -> None:
    """The picture in the docs, where somebody asks for new ones."""
    if SCREENSHOTS:
        page.screenshot(path=DOCS / f"{name}.png", full_page=True)


def test_it_says_what_stands_still_and_what_to_type(look: Open, valkey: Any) -> None:
    an_hour(valkey)
    page = look()
    assert "lane reports stands still" in text(page, "#verdict-text")
    assert text(page, "#verdict-command").startswith("responses-worker runbook")
    assert page.locator("#verdict").get_attribute("data-ok") == "false"
    assert {"interactive", "batch", "reports"} <= set(page.locator("#t-lanes td.name").all_inner_texts())
    assert "420" in text(page, "#t-lanes")
    assert "upstream_timeout" in text(page, "#b-failures")
    assert text(page, "#b-tenants").startswith("acme")
    assert "spill" in text(page, "#t-routes")
    assert "silent" in text(page, "#t-workers")
    assert page.locator("#chart-answers rect").count() > 60
    assert page.locator("#chart-latency path").count() == 2
    kept(page, "dashboard")


def test_it_is_live(look: Open, valkey: Any) -> None:
    """Without a reload; frozen, it holds still; and when Redis is gone it says so."""
    page = look()
    expect(page.locator("#t-lanes")).to_contain_text("interactive")
    valkey.rpush("responses.research", *range(1234))
    expect(page.locator("#t-lanes")).to_contain_text("1,234", timeout=8000)
    page.keyboard.press("f")
    valkey.rpush("responses.research", *range(1000))
    shown = page.locator("body").get_attribute("data-shown")
    with page.expect_response("**/view") as answer:
        page.evaluate("fetch('/view')")
    assert answer.value.ok
    assert page.locator("body").get_attribute("data-shown") == shown
    page.keyboard.press("f")
    expect(page.locator("#t-lanes")).to_contain_text("2,234", timeout=8000)


def test_markup_from_outside_is_text(look: Open, valkey: Any) -> None:
    """In lanes, tenants, codes, routes, hosts and dead letters."""
    an_hour(valkey, canary=CANARY)
    page = look()
    for place in ("#b-failures", "#b-tenants", "#t-routes", "#t-workers", "#t-dead", "#t-failed", "#troubles"):
        assert CANARY in text(page, place), place
    assert page.locator("main img").count() == 0
    assert "owned" not in page.title()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_dark(look: Open, valkey: Any, scheme: str) -> None:
    """Every text has the contrast that WCAG asks for, 4.5 to 1."""
    an_hour(valkey)
    page = look(scheme=scheme)
    assert page.evaluate(CONTRAST) == []
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("t")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert page.evaluate(CONTRAST) == []
    if scheme == "dark":
        page.keyboard.press("t")
        kept(page, "dashboard-dark")


def test_it_fits_a_phone(look: Open, valkey: Any) -> None:
    """Tables scroll within themselves; the page does not scroll sideways; fingers find the buttons."""
    an_hour(valkey)
    page = look(width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    heights = page.locator(".tools button").evaluate_all("all => all.map((one) => one.getBoundingClientRect().height)")
    assert min(heights) >= 40
    kept(page, "dashboard-phone")


def test_it_needs_no_mouse(look: Open, valkey: Any) -> None:
    """Every control and every scrolling table can be reached by Tab, shows it, and has a name."""
    an_hour(valkey)
    page = look()
    reached: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.innerText.slice(0, 20)"))
    assert {"freeze", "theme", "copy", "Sign out", "Redrive"} <= set(reached)
    page.keyboard.press("2")
    assert page.evaluate("document.activeElement.id") == "lanes"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, svg[role], meter, section')].filter((one) => "
        "!(one.getAttribute('aria-label') || one.getAttribute('aria-labelledby') || one.textContent.trim())).length"
    )
    assert unnamed == 0
    assert page.locator("#verdict").get_attribute("aria-live") == "polite"


def test_a_dead_letter_is_put_back_by_hand(look: Open, valkey: Any, producer: Producer) -> None:
    """Only after a question that says what it costs; with the keyboard alone."""
    bury(valkey, request_id="order-1", tenant="default", message=celery_message(producer))
    page = look()
    button = page.get_by_role("button", name="Put order-1 back on its lane")
    press(page, button)
    expect(page.locator("#confirm")).to_contain_text("paid for again")
    page.keyboard.press("Escape")
    assert valkey.xlen("responses:dead") == 1
    press(page, button)
    press(page, page.locator("#confirm-yes"))
    expect(page.locator("#acted")).to_contain_text("replayed")
    wait_until(lambda: valkey.llen("responses.interactive") == 1, what="the message on its lane")
    expect(page.locator("#t-dead")).to_contain_text("None.", timeout=8000)


def test_failed_requests_run_anew_by_hand(look: Open, valkey: Any) -> None:
    """The question names their number; cancelled, nothing happens."""
    for number in range(3):
        fail(valkey, f"r{number}")
    page = look()
    button = page.get_by_role("button", name="Run upstream_error of lane interactive anew")
    press(page, button)
    expect(page.locator("#confirm")).to_contain_text("Run 3 requests of lane interactive anew")
    page.keyboard.press("Escape")
    assert valkey.xlen("responses:failed") == 3
    press(page, button)
    press(page, page.locator("#confirm-yes"))
    expect(page.locator("#acted")).to_contain_text("3 redriven")
    wait_until(lambda: valkey.llen("responses.interactive\x06\x169") == 3, what="the messages on their lane")
    expect(page.locator("#t-failed")).to_contain_text("None.", timeout=8000)


def test_without_the_token_there_is_only_a_door(look: Open, address: str) -> None:
    page = look(signed_in=False)
    page.get_by_label("Token of this dashboard").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This is not the token.")
    page.get_by_label("Token of this dashboard").fill(address.partition("=")[2])
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_text("live", timeout=10_000)
    assert "token" not in page.url
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token of this dashboard")).to_be_visible()
