"""Pages of HTML: what is in them, and what a browser makes of them."""

import io
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

VOID = {"br", "img", "meta"}


class Page(HTMLParser):
    """Elements, attributes and text, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self._elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[str]:
        """The text right inside elements."""
        return [data for inside, data in self.text if inside == tag]

    def elements(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self._elements if name == tag]

    def values(self, name: str) -> list[str]:
        """Of an attribute, wherever it is."""
        return [value for _, key, value in self.attributes if key == name]

    @property
    def shown(self) -> str:
        """All text but that of the style sheet."""
        return "".join(data for inside, data in self.text if inside != "style")


def check(text: str) -> Page:
    """Reads a page, and holds it to what is asked of every page.

    It is whole, has a text for each picture and a name for each region that scrolls,
    and refers to nothing but itself and files beside it.
    """
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    for tag in ("html", "head", "title", "body", "main", "h1"):
        assert page.tags[tag] == 1
    assert all(page.values("alt")), "a picture without a text"
    assert len(page.values("alt")) == page.tags["img"]
    regions = page.values("role").count("region")
    assert regions == len(page.values("tabindex")) == text.count('class="scroll"')
    assert page.tags.keys().isdisjoint(
        {"script", "link", "iframe", "object", "base", "form"}
    )
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for _, name, value in page.attributes:
        if name in ("src", "srcset", "data", "action"):
            assert value.startswith("data:image/"), value
        if name == "href":
            assert value[1:] in ids if value.startswith("#") else ":" not in value
    (style,) = page.of("style")
    for outside in ("url(", "@import", "http"):
        assert outside not in style
    (policy,) = (x for x in page.values("content") if "src" in x)
    assert policy.startswith("default-src 'none'; img-src data:")
    return page


class Browser:
    """Chromium, without a window.

    Args:
        folder: for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._program = shutil.which("chromium") or shutil.which("google-chrome") or ""
        self._folder = folder
        if not self._program:
            pytest.skip("there is no chromium on the PATH")

    def dom(self, text: str) -> str:
        """Returns a page as it is once it is loaded."""
        return self._run(text, "--dump-dom").decode()

    def colours(self, text: str, *, dark: bool = False) -> set[tuple[int, int, int]]:
        """Returns the colours of the upper part of a page."""
        picture = self.picture(text, dark=dark).getcolors(1 << 24)
        assert picture is not None
        return {colour for _, colour in picture}

    def picture(
        self, text: str, *, dark: bool = False, width: int = 800
    ) -> Image.Image:
        """Takes a picture of the upper part of a page."""
        path = self._folder / "page.png"
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
        size = f"--window-size={width},1600"
        self._run(text, f"--screenshot={path}", size, *scheme)
        return Image.open(io.BytesIO(path.read_bytes())).convert("RGB")

    def _run(self, text: str, *words: str) -> bytes:
        path = self._folder / "page.html"
        path.write_text(text)
        quiet = ("disable-quic", "no-first-run", "disable-background-networking")
        return subprocess.run(
            [
                *(self._program, "--headless", "--no-sandbox", "--disable-gpu"),
                *(f"--{word}" for word in (*quiet, "disable-component-update")),
                *("--disable-sync", f"--user-data-dir={self._folder / 'profile'}"),
                *(*words, f"file://{path}"),
            ],
            capture_output=True,
            timeout=120,
            check=True,
        ).stdout
