"""report.html: one self-contained page about a run.

Owns: the page. Pictures are inlined, the style is inlined, no script and no address outside the
file; all text is escaped. Does not own: what is in the pictures (`plots`, `pictures`).
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2939; --soft: #667085; --line: #e4e7ec;
  --page: #f9fafb; --card: #ffffff; --accent: #1570ef; }
@media (prefers-color-scheme: dark) { :root { --ink: #eaecf0; --soft: #98a2b3; --line: #344054;
  --page: #101828; --card: #1d2939; --accent: #84adff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 38px 0 4px; }
p { margin: 4px 0 12px; } .soft { color: var(--soft); }
nav { margin: 10px 0 0; } nav a { color: var(--accent); text-decoration: none; margin-right: 16px; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px; min-width: 0; }
.grid { display: grid; gap: 12px; }
.facts { grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.plots { grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); }
.volumes { grid-template-columns: repeat(auto-fill, minmax(520px, 1fr)); }
.particles { grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); }
@media (max-width: 600px) { .plots, .volumes { grid-template-columns: 1fr; } }
.plot { background: #ffffff; max-width: 620px; width: 100%; justify-self: center; }
.plot.broad { max-width: none; grid-column: 1 / -1; }
figure { margin: 0; } img { display: block; width: 100%; height: auto; border-radius: 4px; }
.tiles { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; text-align: center;
  font-size: 12px; color: var(--soft); margin-top: 3px; }
figcaption { font-size: 12px; color: var(--soft); margin-top: 4px; overflow-wrap: anywhere; }
.head { display: flex; justify-content: space-between; gap: 12px; margin: 0 0 8px; }
.head b { color: var(--ink); } .head span { color: var(--soft); font-size: 13px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
tr:last-child td { border-bottom: none; }
.files td { text-align: left; }
"""


# Few tiles are not blown up to the width of the page.
_TILE_MAX_PX = 200


@dataclass(frozen=True)
class Section:
    """One part of the page: an anchor, a heading, a sentence, and a body that is HTML already."""

    anchor: str
    title: str
    text: str
    body: str


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the whole page; sections without a body are left out."""
    shown = [section for section in sections if section.body]
    links = "".join(f'<a href="#{escape(s.anchor)}">{escape(s.title)}</a>' for s in shown)
    parts = "".join(
        f'<section id="{escape(s.anchor)}"><h2>{escape(s.title)}</h2>'
        f'<p class="soft">{escape(s.text)}</p>{s.body}</section>\n'
        for s in shown
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>"
        f'<h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p><nav>{links}</nav>\n'
        f"{parts}</main></body></html>\n"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names and values as a grid."""
    cells = "".join(
        f'<div class="card"><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>'
        for name, value in pairs
    )
    return f'<dl class="grid facts" style="margin:0">{cells}</dl>'


def plots(figures: Sequence[tuple[str, bytes]], broad: bool = False) -> str:
    """Return plots (alternative text, PNG), side by side where there is room.

    Broad ones take the whole width each.
    """
    kind = "card plot broad" if broad else "card plot"
    cells = "".join(f'<figure class="{kind}">{_image(png, text)}</figure>' for text, png in figures)
    return f'<div class="grid plots">{cells}</div>' if figures else ""


def strip_card(title: str, note: str, png: bytes, labels: Sequence[str]) -> str:
    """Return a card with one picture of several tiles and a label under each."""
    under = "".join(f"<span>{escape(label)}</span>" for label in labels)
    return (
        f'<figure class="card" style="max-width:{_TILE_MAX_PX * len(labels)}px">'
        f'<div class="head"><b>{escape(title)}</b>'
        f"<span>{escape(note)}</span></div>{_image(png, title)}"
        f'<div class="tiles">{under}</div></figure>'
    )


def grid(kind: str, cells: Sequence[str]) -> str:
    """Return cells in a grid of a kind that the style knows: volumes, particles, wide."""
    return f'<div class="grid {kind}">{"".join(cells)}</div>' if cells else ""


def thumbnail(png: bytes, lines: Sequence[str]) -> str:
    """Return a particle with lines of text under it."""
    text = "<br>".join(escape(line) for line in lines)
    return f'<figure class="card">{_image(png, lines[0])}<figcaption>{text}</figcaption></figure>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column is text, the others numbers."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="card wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def paths(pairs: Sequence[tuple[str, str]]) -> str:
    """Return files and what they hold."""
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(what)}</td></tr>"
        for name, what in pairs
    )
    return f'<div class="card wide"><table class="files"><tbody>{rows}</tbody></table></div>'


def _image(png: bytes, text: str) -> str:
    data = b64encode(png).decode("ascii")
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'
