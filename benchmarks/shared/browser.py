"""Debian's chromium, driven by Playwright, as a browser that a running window has let in."""

import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gemma4vec.errors import InputError


def find_browser() -> tuple[str, Any]:
    """(path of chromium, Playwright's `sync_playwright`).

    Raises:
        InputError: one of the two is missing.
    """
    chromium = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    if chromium is None:
        raise InputError("needs chromium: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise InputError('needs Playwright: pip install "gemma4vec[uitest]"') from error
    return chromium, sync_playwright


@contextmanager
def open_browser(opener: urllib.request.OpenerDirector, base: str) -> Iterator[tuple[Any, Any]]:
    """(browser, its context), without a screen, with the cookie that the window at `base` gave to `opener`."""
    chromium, sync_playwright = find_browser()
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_cookies([_cookie_of(opener, base)])
        yield browser, context
        browser.close()


def _cookie_of(opener: urllib.request.OpenerDirector, base: str) -> dict[str, str]:
    """The cookie that the window has given, for the browser."""
    handlers: list[Any] = opener.handlers  # type: ignore[attr-defined]
    jar = next(one.cookiejar for one in handlers if isinstance(one, urllib.request.HTTPCookieProcessor))
    found = next(iter(jar))
    return {"name": found.name, "value": str(found.value), "url": base}
