"""The frame of an HTML page that needs nothing but itself, and its pieces."""

import base64
from collections.abc import Iterable, Sequence

from predictor.page.markup import Html, join, tag

# Whatever a name of a class tried: no script runs, and nothing is fetched.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = Html("""
:root {
  color-scheme: light dark;
  --paper: #fff; --card: #f5f6f8; --ink: #1c2128; --quiet: #5b6470; --line: #d9dde3;
  --first: #0072b2; --second: #d55e00; --heat: 0, 114, 178;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --card: #1e232a; --ink: #e6e9ed; --quiet: #9aa4b0;
    --line: #39414c; --first: #56b4e9; --second: #f0883e; --heat: 86, 180, 233;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 {
  font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--line);
}
h3 { font-size: 1rem; margin: .5rem 0; }
p { margin: .4rem 0 .8rem; max-width: 48rem; }
.quiet, figcaption, caption, dd { color: var(--quiet); font-size: .875rem; }
.warning { border-left: 4px solid var(--second); padding-left: .75rem; }
.grid { display: grid; gap: 1rem; }
.cards { grid-template-columns: repeat(4, 1fr); margin: 1.25rem 0; }
@media (max-width: 40rem) { .cards { grid-template-columns: 1fr 1fr; } }
.card { background: var(--card); border-radius: .5rem; padding: .75rem 1rem; }
.card b { display: block; font-size: 1.7rem; line-height: 1.3; }
.card span { display: block; }
.plots { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; stroke-linejoin: round; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
table { font-variant-numeric: tabular-nums; }
caption { text-align: left; caption-side: bottom; padding-top: .4rem; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid var(--line); font-weight: 600; }
td { border-bottom: 1px solid var(--card); overflow-wrap: anywhere; }
td:not(.number) { min-width: 7rem; }
.number { text-align: right; white-space: nowrap; }
.matrix td, .matrix th { padding: .25rem .4rem; min-width: 2.4rem; text-align: right; }
.matrix th:first-child { text-align: left; min-width: 7rem; }
bdi { white-space: pre-wrap; }
.names { font-size: .875rem; line-height: 1.9; overflow-wrap: anywhere; }
.names bdi, .warning bdi {
  background: var(--card); border-radius: .25rem; padding: .1rem .4rem;
  margin-right: .3rem;
}
.photos { grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
.photos img, .missing { width: 100%; border-radius: .25rem; margin-bottom: .3rem; }
.photos img { display: block; }
.photos figcaption { line-height: 1.35; overflow-wrap: anywhere; }
.photos b { color: var(--ink); font-weight: 600; }
.missing { aspect-ratio: 4 / 3; background: var(--card); }
dt { font-weight: 600; margin-top: .5rem; }
dd { margin: 0; max-width: 48rem; }
summary { cursor: pointer; }
""")


def page(title: str, *content: Html) -> str:
    """A whole page, for a screen of any width, light or dark."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", _STYLE),
    )
    body = tag("body", tag("h1", named(title)), *content)
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def section(title: str, *content: Html) -> Html:
    """A part of the page."""
    return tag("section", tag("h2", title), *content)


def named(name: str) -> Html:
    """A name, which may hold any script, in either direction, and line breaks."""
    return tag("bdi", name)


def quiet(text: object) -> Html:
    """A remark."""
    return tag("p", text, class_="quiet")


def card(value: str, name: str, about: str) -> Html:
    """A figure that everybody looks at first."""
    what = tag("span", about, class_="quiet")
    return tag("div", tag("span", name), tag("b", value), what, class_="card")


def grid(kind: str, pieces: Iterable[Html]) -> Html:
    """Pieces side by side, as many as there is room for."""
    return tag("div", *pieces, class_=f"grid {kind}")


def plot(drawing: Html, title: str, about: str) -> Html:
    """A plot, and what it shows."""
    return tag("figure", tag("h3", title), drawing, tag("figcaption", about))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], note: str) -> Html:
    """Names to the left, numbers, which are text here, to the right.

    Args:
        header: of the columns.
        rows: cells; markup is a name.
        note: below the table; may be empty.
    """
    body = [list(row) for row in rows]
    left = [all(isinstance(row[at], Html) for row in body) for at in range(len(header))]

    def line(name: str, cells: Sequence[object]) -> Html:
        kinds = ({} if is_left else {"class_": "number"} for is_left in left)
        pairs = zip(cells, kinds, strict=True)
        return tag("tr", *(tag(name, cell, **kind) for cell, kind in pairs))

    caption = [tag("caption", note)] if note else []
    rows_ = tag("tbody", *(line("td", row) for row in body))
    whole = tag("table", *caption, tag("thead", line("th", header)), rows_)
    return tag("div", whole, class_="scroll")


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    """Counts of rows by columns, the darker the larger their share of the row."""
    columns = [tag("th", number) for number in range(1, len(names) + 1)]
    rows = [tag("tr", tag("th", "label"), *columns)]
    for number, (name, row) in enumerate(zip(names, counts, strict=True), 1):
        cells = [
            tag("td", count or "", style=_heat(count / max(1, sum(row))))
            for count in row
        ]
        rows.append(tag("tr", tag("th", f"{number} ", named(name)), *cells))
    return tag("div", tag("table", *rows, class_="matrix"), class_="scroll")


def photo(encoded: bytes | None, about: str, *lines: Html) -> Html:
    """A JPEG, or room for it, and lines below."""
    if encoded is None:
        picture = tag("div", class_="missing")
    else:
        data = f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"
        picture = tag("img", src=data, alt=about, loading="lazy")
    return tag("figure", picture, tag("figcaption", *(tag("div", x) for x in lines)))


def terms(definitions: Iterable[tuple[str, str]]) -> Html:
    """Words and what they mean."""
    pairs = [join([tag("dt", word), tag("dd", text)]) for word, text in definitions]
    return tag("dl", *pairs)


def _heat(share: float) -> str:
    return f"background: rgba(var(--heat), {0.75 * share:.2f})"
