"""Why a document was kept or dropped, and where it ended: everything that a run knows about it."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import polars as pl

from bessemer.curate.originals import Originals, edited_text, removed_texts
from bessemer.curate.replay import RecordedRule, recorded_rules
from bessemer.curate.whereabouts import document_rows, document_texts, sources_of, token_ranges
from bessemer.errors import BessemerError
from bessemer.formats.ledger import LEDGER_FIELDS, scan_ledger
from bessemer.urls import canonical_url

_MIN_PREFIX = 4
_MAX_SHOWN = 5
_MAX_DUPLICATES = 20
_MAX_SEARCHED_URLS = 200_000
"""URLs among which the nearest to a misspelt one are looked for: each costs some microseconds."""


def explain(artifact_folder: Path, document: str) -> dict[str, Any]:
    """What became of a document, found by id, a prefix of it (4 digits or more), or URL.

    Returns plain data for JSON: `document`, and `records`, one entry for each record of the ledger that
    matches (a page captured twice has two), with its facts and

    - `rules`: every rule's name, value, bounds, and whether the value passes;
    - `edits`: rule, span, and the `text` that was removed where the page can be read again (null else);
      `original` says that it agrees with the ledger and the document, or why it cannot be told;
    - `duplicate`: survivor and partner with their URLs, similarity, and the size of the cluster; null
      where the record is none; `stands_for`: the duplicates dropped in favour of a kept record, or null;
    - `documents`: file and row of the documents; `tokens`: stage, split, file, start and end; both are
      empty where it did not get there.

    Raises BessemerError when there is none, with the reason why no page of it was collected or else the
    nearest URLs, and when a prefix fits several ids.
    """
    ledger = scan_ledger(artifact_folder)
    rows = _find(artifact_folder, ledger, document)
    desk = _Desk(artifact_folder, ledger)
    return {"document": document, "records": [desk.explain(row) for row in rows]}


def _find(folder: Path, ledger: pl.LazyFrame, document: str) -> list[dict[str, Any]]:
    wanted = document.strip()
    spellings = _spellings(wanted)
    matches = (pl.col("id") == wanted) | pl.col("url").is_in(spellings)
    if len(wanted) >= _MIN_PREFIX:
        matches = matches | pl.col("id").str.starts_with(wanted.lower())

    rows = ledger.filter(matches).collect().to_dicts()
    if not rows:
        reason = _reason_not_collected(folder, spellings) or f".{_nearest(ledger, wanted)}"
        raise BessemerError(f"no record of {document!r} in the ledger{reason}")
    ids = sorted({row["id"] for row in rows})
    if len(ids) > 1 and all(row["url"] not in spellings for row in rows):
        listed = "\n  ".join(f"{row['id']}  {row['url']}" for row in rows[:_MAX_SHOWN])
        raise BessemerError(f"{document!r} is the start of {len(ids)} ids; give more digits:\n  {listed}")
    return rows


def _spellings(url: str) -> list[str]:
    """The URL as it is, and as crawls and files write it."""
    scheme, colon, name = url.partition(":")
    as_file = [f"file:{quote(unquote(name))}"] if scheme == "file" and colon else []
    return list(dict.fromkeys([url, canonical_url(url) or url, *as_file]))


def _reason_not_collected(folder: Path, urls: Sequence[str]) -> str | None:
    """What the stages that collected the pages say of a URL that gave none."""
    from bessemer.collect.failures import failure_of  # collect takes half a second to import

    for artifact in sources_of(folder, "pages"):
        if reason := failure_of(artifact.folder, urls):
            return f": stage {artifact.folder.name!r} gave no page of it: {reason}"
    return None


def _nearest(ledger: pl.LazyFrame, wanted: str) -> str:
    url = pl.col("url")
    within = ledger.filter(url.str.to_lowercase().str.contains(wanted.lower(), literal=True))
    near = within.select(url.unique().sort()).head(_MAX_SHOWN).collect()["url"].to_list()
    if not near:
        urls = ledger.select(url.drop_nulls().unique().sort()).head(_MAX_SEARCHED_URLS).collect()
        near = difflib.get_close_matches(wanted, urls["url"].to_list(), n=_MAX_SHOWN, cutoff=0.4)
    return " Nearest:\n  " + "\n  ".join(near) if near else ""


class _Desk:
    """Looks up what belongs to a row of the ledger in the rest of the run."""

    def __init__(self, folder: Path, ledger: pl.LazyFrame) -> None:
        self._folder = folder
        self._ledger = ledger
        self._rules = recorded_rules(folder)
        self._originals = Originals(folder)

    def explain(self, row: Mapping[str, Any]) -> dict[str, Any]:
        facts = {field.name: row[field.name] for field in LEDGER_FIELDS if field.name in row}
        is_kept = row["verdict"] == "kept"
        edits, original = self._edits(row)
        return facts | {
            "edits": edits,
            "original": original,
            "duplicate": self._duplicate(row),
            "stands_for": self._stands_for(row),
            "rules": [_explain_rule(rule, row.get(name)) for name, rule in self._rules.items()],
            "documents": document_rows(self._folder, [row["id"]]).get(row["id"], []) if is_kept else [],
            "tokens": token_ranges(self._folder, row["id"]) if is_kept else [],
        }

    def _edits(self, row: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
        """Edits with their texts, and what is known of the text before them."""
        edits = row["edits"] or []
        if not edits:
            return [], None
        original = self._originals.read(row)
        if original.text is None:
            return [edit | {"text": None} for edit in edits], original.problem
        texts = removed_texts(original.text, edits)
        told = [edit | {"text": text} for edit, text in zip(edits, texts, strict=True)]
        kept_text = document_texts(self._folder, [row["id"]]).get(row["id"])
        expected = kept_text if row["verdict"] == "kept" else None
        if expected is not None and edited_text(original.text, edits) != expected:
            return told, "the edits applied to the page as read again do not give the document"
        return told, "read again from the page; it agrees with the ledger"

    def _duplicate(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        survivor, partner = row["duplicate_survivor"], row["duplicate_partner"]
        if survivor is None:
            return None
        return {
            "survivor": survivor,
            "survivor_url": self._url_of(survivor),
            "partner": partner,
            "partner_url": self._url_of(partner),
            "similarity": row["duplicate_similarity"],
            "cluster_size": self._cluster(survivor).select(pl.len()).collect().item() + 1,
        }

    def _stands_for(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """The duplicates that were dropped in favour of a kept row; null where there are none."""
        if row["verdict"] != "kept":
            return None
        columns = ["id", "url", pl.col("dropped_rule").alias("rule"), "duplicate_similarity"]
        duplicates = self._cluster(row["id"]).select(columns).collect()
        if duplicates.is_empty():
            return None
        listed = duplicates.rename({"duplicate_similarity": "similarity"}).head(_MAX_DUPLICATES)
        return {"documents": duplicates.height, "listed": listed.to_dicts()}

    def _cluster(self, survivor: str) -> pl.LazyFrame:
        return self._ledger.filter(pl.col("duplicate_survivor") == survivor)

    def _url_of(self, id: str | None) -> str | None:
        urls = self._ledger.filter(pl.col("id") == id).select("url").head(1).collect()["url"].to_list()
        return urls[0] if urls else None


def _explain_rule(rule: RecordedRule, value: float | None) -> dict[str, Any]:
    passed = None
    if value is not None and rule.action == "drop":
        passed = rule.fault(value) is None
    return {
        "name": rule.name,
        "value": value,
        "description": rule.description,
        "min": rule.min,
        "max": rule.max,
        "enabled": rule.enabled,
        "action": rule.action,
        "passed": passed,
    }
