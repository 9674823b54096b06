"""Elements of a page (text, tables, figures, sections) as HTML; text is escaped unless it is already HTML."""

import html
from collections.abc import Sequence
from pathlib import Path

STYLE = Path(__file__).with_name("page.css")
"""Style sheet of the page, part of the package."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy: a browser loads nothing but the page itself."""


class Html(str):
    """Text that is already HTML."""

    __slots__ = ()


def escaped(text: str) -> Html:
    """Escape `text` for HTML; HTML is returned unchanged."""
    return text if isinstance(text, Html) else Html(html.escape(text))


def page(title: str, sections: Sequence[str]) -> str:
    """The whole document, in one file."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escaped(title)}</title>
<style>
{STYLE.read_text()}</style>
</head>
<body>
<main>
<h1>{escaped(title)}</h1>
{"".join(sections)}</main>
</body>
</html>
"""


def section(heading: str, explained: str, *parts: str) -> Html:
    """A section of the page: heading, one-sentence explanation, content."""
    return Html(
        f"<section>\n<h2>{escaped(heading)}</h2>\n{paragraph(explained)}{''.join(map(escaped, parts))}</section>\n"
    )


def paragraph(text: str) -> Html:
    """A paragraph."""
    return Html(f"<p>{escaped(text)}</p>\n")


def missing(why: str) -> Html:
    """Placeholder for a part whose input was not given."""
    return Html(f'<p class="missing">Not shown: {escaped(why)}</p>\n')


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table; the first cell of each row is its header. Wide tables scroll by themselves, by touch or keyboard."""
    names = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escaped(first)}</th>{"".join(map(_cell, others))}</tr>\n' for first, *others in rows
    )
    return Html(
        f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(caption)}"><table>\n'
        f"<caption>{escaped(caption)}</caption>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{body}</tbody>\n"
        "</table></div>\n"
    )


def _cell(cell: str) -> Html:
    return cell if isinstance(cell, Html) and cell.startswith("<td") else Html(f"<td>{escaped(cell)}</td>")


def shaded(text: str, share: float) -> Html:
    """A table cell, coloured more strongly for larger `share`, 0 to 1."""
    return Html(f'<td class="shaded" style="--share:{share:.3f}">{escaped(text)}</td>')


def barred(text: str, share: float, colour: int) -> Html:
    """A table cell with a bar of width `share`, 0 to 1, in the colour of that number."""
    return Html(
        f'<td class="barred"><span class="bar c{colour}" style="--share:{share:.3f}"></span>{escaped(text)}</td>'
    )


def figure(caption: str, picture: str) -> Html:
    """A picture (HTML) with a caption above."""
    return Html(f"<figure>\n<figcaption>{escaped(caption)}</figcaption>\n{picture}</figure>\n")


def side_by_side(parts: Sequence[str]) -> Html:
    """Elements side by side if the window is wide enough."""
    return Html(f'<div class="grid">\n{"".join(map(escaped, parts))}</div>\n')


def folded(summary: str, inner: str, *, is_open: bool) -> Html:
    """A collapsible element."""
    state = " open" if is_open else ""
    return Html(f"<details{state}><summary>{escaped(summary)}</summary>\n{escaped(inner)}</details>\n")
