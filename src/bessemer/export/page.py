"""The shell of the report page: one self-contained HTML file, light and dark, that asks nobody for anything."""

from collections.abc import Sequence

from markupsafe import Markup

from bessemer.export.markup import Node, tag

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content-Security-Policy: should markup ever slip through, the browser still runs and loads nothing."""


def page(title: str, subtitle: Node, links: Sequence[tuple[str, str]], body: Sequence[Node]) -> str:
    """A whole HTML document; `links` are (section id, text) of the contents line."""
    contents = tag("nav", *(tag("a", text, href=f"#{id}") for id, text in links), aria_label="Contents")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(_STYLE)),
    )
    top = tag("header", tag("h1", title), tag("p", subtitle, class_="muted"), contents)
    document = tag("html", head, tag("body", top, tag("main", *body)), lang="en")
    return f"<!doctype html>\n{document}\n"


_STYLE = """
:root {
  --paper: #fbfaf8; --card: #ffffff; --ink: #1f2328; --soft: #5b626b; --line: #e3e1dc;
  --accent: #b4481a; --accent-soft: #f6e3d8; --good: #1a7240; --bad: #b02525; --shade: #f3f1ed;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181b; --card: #1e2125; --ink: #e6e4e0; --soft: #a0a5ac; --line: #33373d;
    --accent: #f0915e; --accent-soft: #44291b; --good: #64c98a; --bad: #f28b82; --shade: #24282d;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 1080px; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { font-size: 2rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 0 0 0.4rem; letter-spacing: -0.005em; }
h3 { font-size: 1rem; margin: 1.6rem 0 0.5rem; }
p { margin: 0 0 0.8rem; }
header p { margin: 0.3rem 0 1rem; }
section { margin-top: 3rem; scroll-margin-top: 1rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; border-block: 1px solid var(--line);
  padding: 0.55rem 0; font-size: 0.92rem; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
.muted, .lead { color: var(--soft); }
.lead { max-width: 46rem; }
.small { font-size: 0.875rem; }
code, pre, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.875em; }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 0.8rem;
  margin: 1.5rem 0 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 0.8rem 1rem; }
.tiles dt { color: var(--soft); font-size: 0.85rem; }
.tiles dd { margin: 0; font-size: 1.55rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles dd.note { font-size: 0.8rem; font-weight: 400; color: var(--soft); }

.flow { display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 0.8rem;
  list-style: none; margin: 1rem 0 0; padding: 0; counter-reset: stage; }
.flow li { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 0.65rem 0.85rem; border-top: 3px solid var(--accent); counter-increment: stage; }
.flow li.open { border-top-color: var(--line); }
.flow b { display: block; overflow-wrap: anywhere; }
.flow b::before { content: counter(stage) " "; color: var(--accent); font-variant-numeric: tabular-nums; }
.flow li.open b::before { color: var(--soft); }
.flow .time { float: right; color: var(--soft); font-size: 0.85rem; font-variant-numeric: tabular-nums; }
.flow span.made { display: block; font-size: 0.85rem; color: var(--soft); line-height: 1.4; margin-top: 0.15rem; }

.panel { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 0.9rem 1rem; margin: 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1rem; }
figure { margin: 0; }
.panel.wide svg { max-width: 760px; }
figcaption { font-size: 0.92rem; margin-bottom: 0.4rem; }
figcaption span { color: var(--soft); }
svg.chart { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: inherit; fill: var(--ink); font-size: 13px; }
svg .tick { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .raw { fill: none; stroke: var(--accent); stroke-opacity: 0.28; stroke-width: 1; }
svg .trend { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .dot { fill: var(--accent); }
svg .whisker { stroke: var(--accent); stroke-width: 2; stroke-linecap: round; stroke-opacity: 0.55; }
svg .hover { fill: transparent; }
svg .hover:hover { fill: var(--accent); fill-opacity: 0.08; }
svg .bar { fill: var(--accent); fill-opacity: 0.45; }
svg .bar-total { fill: var(--soft); fill-opacity: 0.45; }
svg .bar-kept { fill: var(--accent); }

.scroll { overflow-x: auto; margin: 0.6rem 0 0.9rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { text-align: left; padding: 0.45rem 0.9rem 0.45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: 0.85rem; vertical-align: bottom; }
td:first-child { font-weight: 500; }
table.figures td { white-space: nowrap; font-variant-numeric: tabular-nums; }
table.figures td small { display: block; color: var(--soft); font-size: 0.8rem; }
tr.total td { font-weight: 600; border-bottom: 0; }

.question { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 0.8rem 1rem;
  margin: 0 0 0.9rem; }
.question > p { margin: 0 0 0.15rem; font-weight: 600; overflow-wrap: anywhere; }
.question .answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 230px), 1fr));
  gap: 0.5rem 1rem; margin-top: 0.6rem; }
.answer { border-left: 3px solid var(--line); padding-left: 0.7rem; overflow-wrap: anywhere; font-size: 0.95rem; }
.answer.right { border-color: var(--good); }
.answer.wrong { border-color: var(--bad); }
.answer .who { display: flex; justify-content: space-between; gap: 0.6rem; font-size: 0.82rem; color: var(--soft); }
.right .verdict { color: var(--good); }
.wrong .verdict { color: var(--bad); }
.chip { display: inline-block; background: var(--accent-soft); border-radius: 99px; padding: 0.02rem 0.6rem;
  font-size: 0.8rem; white-space: nowrap; }

details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0 0 0.6rem; }
summary { cursor: pointer; padding: 0.6rem 1rem; overflow-wrap: anywhere; }
details pre { margin: 0; padding: 0.8rem 1rem; border-top: 1px solid var(--line); white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 22rem; overflow-y: auto; background: var(--shade); border-radius: 0 0 10px 10px; }
details p { margin: 0; padding: 0 1rem 0.6rem; }
pre.tree { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 0.8rem 1rem; line-height: 1.45; }
@media (max-width: 560px) {
  body { padding: 1.25rem 0.9rem 3rem; }
  h1 { font-size: 1.6rem; }
  .flow { grid-template-columns: 1fr; gap: 0.5rem; }
  svg text { font-size: 17px; }
  svg .tick { font-size: 16px; }
}
@media print { body { max-width: none; } .question, details, figure { break-inside: avoid; } }
"""
