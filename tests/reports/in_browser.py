"""What tests of pages in a browser share: how one is opened, and what must not happen on it."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000  # milliseconds; two busy cores may be slow
HOSTILE = (
    "</script><script>window.hacked = true</script>"
    "<img src=x onerror='window.hacked = true; alert(1)'>"
)
DARK = {"runOnly": ["color-contrast", "link-in-text-block"]}
LIVE = "html[data-charts=live]"


def open_page(
    browser: Browser, address: str, ready: str = LIVE, **context: Any
) -> tuple[Page, list[str]]:
    """The page once it is ready, its charts live, and what goes wrong on the way and later."""
    tab = browser.new_context(offline=True, **context).new_page()
    troubles: list[str] = []
    tab.add_init_script(LISTEN)
    tab.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda r: None if is_local(r.url) else troubles.append(r.url))
    tab.goto(address)
    # Not by `wait_for_function`, which is an eval: the page's policy forbids it.
    tab.locator(ready).first.wait_for(state="attached", timeout=PATIENCE)
    return tab, troubles


def fits(tab: Page, width: int) -> None:
    """Wait until the charts have followed the window, and see that nothing is wider than it."""
    tab.set_viewport_size({"width": width, "height": 844})
    tab.evaluate(FIT)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def is_local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))


def violations(tab: Page) -> dict[tuple[Any, ...], list[str]]:
    """What an accessibility checker says of the page at three widths and in both modes."""
    tab.evaluate(Axe().axe_script)
    found = {}
    for scheme, width in (("light", 1280), ("light", 768), ("light", 360), ("dark", 360)):
        tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        fits(tab, width)
        # Everything but the colours is the same in both modes, and they at all widths.
        options = {"resultTypes": ["violations"]} | (DARK if scheme == "dark" else {})
        for violation in tab.evaluate("(options) => axe.run(options)", options)["violations"]:
            where = [node["html"][:200] for node in violation["nodes"]]
            found[scheme, width, violation["id"], violation["impact"]] = where
    return found


LISTEN = """addEventListener("securitypolicyviolation", (event) =>
  console.error(`${event.effectiveDirective} blocks ${event.blockedURI} ${event.sample}`))"""

# Charts follow the width of the window a moment later.
FIT = """() => new Promise((resolve) => {
  const live = [...document.querySelectorAll("figure .live svg")];
  const look = () => live.every((svg) => svg.getBoundingClientRect().right <= innerWidth)
    ? resolve() : requestAnimationFrame(look);
  look();
})"""
