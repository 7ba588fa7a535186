"""Puts the review page together and writes it beside the run's report."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from bessemer.curate.review.gather import duplicate_clusters, edited_records
from bessemer.curate.review.languages import languages_section
from bessemer.curate.review.ledger import ReviewLedger, open_ledger
from bessemer.curate.review.samples import RuleSamples, sample_reason, sample_rule
from bessemer.curate.review.sections import (
    clusters_section,
    edits_section,
    funnel_section,
    run_name,
    samples_section,
    sources_section,
    values_section,
)
from bessemer.curate.review.tables import funnel
from bessemer.export.markup import tag
from bessemer.runner.files import write_atomically

PER_GROUP = 3
"""Samples in a group: with some 60 rules and four groups each the page stays below 2 MB."""
_LINKS = (
    ("funnel", "Funnel"),
    ("languages", "Languages"),
    ("sources", "Sources"),
    ("values", "Values"),
    ("samples", "Samples"),
    ("edits", "Edits"),
    ("duplicates", "Duplicates"),
)
_KEYS = (
    ("j", "next sample"),
    ("k", "the one before"),
    ("n", "next rule"),
    ("p", "rule before"),
    ("g", "top"),
)


def write_review(folder: Path, *, seed: int = 0, per_group: int = PER_GROUP) -> Path:
    """Write `review.html` into the run's folder (`review-STAGE.html` of a stage not called `curate`).

    Equal artifacts and seeds give equal bytes. Returns the path; raises BessemerError when `folder` holds
    no ledger.
    """
    name = "review.html" if folder.name == "curate" else f"review-{folder.name}.html"
    path = folder.parent / name
    write_atomically(path, render_review(folder, seed=seed, per_group=per_group).encode())
    return path


def render_review(folder: Path, *, seed: int = 0, per_group: int = PER_GROUP) -> str:
    """The page as HTML."""
    ledger = open_ledger(folder, seed)
    sections = {
        "funnel": funnel_section(ledger),
        "languages": languages_section(ledger),
        "sources": sources_section(ledger),
        "values": values_section(ledger),
        "samples": samples_section(ledger, _samples(ledger, per_group)),
        "edits": edits_section(edited_records(ledger, per_group)),
        "duplicates": clusters_section(duplicate_clusters(ledger, per_group)),
    }
    return _page(run_name(folder), seed, {id: part for id, part in sections.items() if part is not None})


def _samples(ledger: ReviewLedger, per_group: int) -> list[RuleSamples]:
    """Reasons and rules in the order of judgement; then the rules that are off."""
    dropped = {name: count for _, name, count in funnel(ledger)}
    stages = {name: stage for stage, name, _ in funnel(ledger)}
    before, after = [], []
    for name, count in dropped.items():
        if name not in ledger.rules:
            samples = sample_reason(ledger, name, count, per_group)
            (after if stages[name] == "duplicates" else before).append(samples)
    judging = [rule for rule in ledger.rules.values() if rule.action == "drop"]
    on, off = [], []
    for rule in judging:
        samples = sample_rule(ledger, rule, dropped.get(rule.name, 0), per_group)
        (on if rule.enabled else off).append(samples)
    return [*before, *on, *after, *off]


def _page(title: str, seed: int, sections: dict[str, Markup]) -> str:
    """One document that runs nothing but its own script and loads nothing."""
    script = _resource("bessemer.curate.review", "review.js")
    style = _resource("bessemer.export", "report.css") + _resource("bessemer.curate.review", "review.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    contents = [tag("a", text, href=f"#{id}") for id, text in _LINKS if id in sections]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"Review of {title}"),
        tag("style", Markup(style)),
    )
    top = tag(
        "header",
        tag("h1", f"Review of {title}"),
        tag("p", f"Samples are drawn with seed {seed}; bessemer why explains any record.", class_="muted"),
        tag("nav", *contents, aria_label="Contents"),
        _key_help(_KEYS),
    )
    body = tag("body", top, tag("main", *sections.values()), tag("script", Markup(script)), class_="review")
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _key_help(keys: Sequence[tuple[str, str]]) -> Markup:
    told = [tag("span", tag("kbd", key), f" {meaning}") for key, meaning in keys]
    return tag("p", *told, class_="keys small muted")


def _resource(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
