"""What every page keeps in a real browser."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SIZES = [(1440, 900), (390, 844), (320, 700)]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def sign_in(page: Page, base: str, name: str, password: str) -> None:
    page.goto(f"{base}/account/login/")
    page.fill("input[name=login]", name)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(f"{base}/")


def check_page(page: Page, url: str) -> None:
    """No policy violation or script error, nothing inline, no sideways scrolling, axe clean in both themes, one h1."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width, height in SIZES if scheme == "light" else SIZES[:1]:
            page.set_viewport_size({"width": width, "height": height})
            page.goto(url)
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.querySelectorAll('main [style]').length") == 0, url
            beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert beyond <= 0, f"{url} is {beyond} px too wide at {width}"
        found = Axe().run(page, options={"runOnly": {"type": "tag", "values": TAGS}}).response["violations"]
        summary = [(item["id"], [node["html"][:160] for node in item["nodes"][:3]]) for item in found]
        assert not summary, f"{url} {scheme}: {summary}"
    assert page.locator("h1").count() == 1
    assert page.title().endswith(" · AuditPortal")
    wanted = [text for text in said if "404" not in text]  # the error page is itself a 404
    assert wanted == []
