"""A page in a real browser, as somebody has it before them who looks, clicks and types."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Page, ViewportSize, async_playwright, expect

__all__ = ["DESK", "PHONE", "brightness", "browsing"]

DESK = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=390, height=844)
PATIENCE_MS = 20_000


@asynccontextmanager
async def browsing(
    chromium: str,
    url: str,
    viewport: ViewportSize = DESK,
    *,
    failing: str | None = None,
    **options: Any,
) -> AsyncIterator[Page]:
    """The page at a server's `url`. Fails when the browser complained about anything, or asked
    anybody else. With `failing`, complaints that hold this text are expected.
    """
    complaints: list[str] = []

    def complain(text: str) -> None:
        if failing is None or failing not in text:
            complaints.append(text)

    origin = "/".join(url.split("/")[:3])
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        try:
            page = await browser.new_page(viewport=viewport, **options)
            page.set_default_timeout(PATIENCE_MS)
            expect.set_options(timeout=PATIENCE_MS)
            page.on("pageerror", lambda error: complain(str(error)))
            page.on("console", lambda said: complain(said.text) if said.type == "error" else None)
            page.on(
                "request",
                lambda request: (
                    None
                    if request.url.startswith((origin, "data:"))
                    else complain(f"asked for {request.url}")
                ),
            )
            await page.goto(url)
            yield page
        finally:
            await browser.close()
    assert complaints == []


async def brightness(page: Page) -> int:
    """Of the page's paper: 0 is black, 765 white."""
    paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in paper[4:-1].split(","))
