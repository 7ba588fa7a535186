"""Candidates to ledger rows: language, edits, rule values, verdicts, and what deduplication will need."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bessemer.curate.config import CurateConfig
from bessemer.curate.dedup.fingerprints import Fingerprints, Subject, fingerprint, select_words
from bessemer.curate.edits import MAX_SPANS, Edit, find_batch_edits, remove_spans
from bessemer.curate.language import Language, identify_languages
from bessemer.curate.measure import measure
from bessemer.curate.records import Candidate, Drop
from bessemer.curate.rules import RULE_NAMES, Rule, failed_rules
from bessemer.curate.texts import Column
from bessemer.formats.ledger import LEDGER_FIELDS

KEPT, DROPPED = "kept", "dropped"

_FACTS_SCHEMA = pa.schema(
    [
        *LEDGER_FIELDS,
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("is_page_capture", pa.bool_(), nullable=False),
    ]
)
JUDGED_SCHEMA = pa.schema([*_FACTS_SCHEMA, *(pa.field(name, pa.float64()) for name in RULE_NAMES)])
"""A ledger row and what only the documents and deduplication need. `text` is edited; of dropped rows
only the head is kept."""


@dataclass(frozen=True)
class Judged:
    """One batch after the rules, before deduplication."""

    table: pa.Table
    """JUDGED_SCHEMA, one row a candidate."""
    fingerprints: Fingerprints
    """Of the rows still kept, for deduplication."""


@dataclass
class _Row:
    """A candidate and what was found out about it."""

    candidate: Candidate
    text: str = ""
    language: Language | None = None
    edits: Sequence[Edit] = ()
    num_spans: int = 0
    """Spans that editing rules would take out; of more than MAX_SPANS none is an edit."""
    failed: Sequence[Rule] = ()
    drop: Drop | None = None


def judge(candidates: Sequence[Candidate], config: CurateConfig) -> Judged:
    """Judge a batch. Pure: the same candidates and config give the same tables, whatever the batch's size."""
    rules = config.effective_rules()
    rows = [_Row(candidate, candidate.text, drop=candidate.drop) for candidate in candidates]
    readable = [row for row in rows if row.drop is None]
    for row, language in zip(readable, identify_languages([row.text for row in readable]), strict=True):
        row.language = language
    on_demand = [rule.name for rule in rules if rule.enabled and rule.is_on_demand]
    values = _edit(readable, rules, on_demand)
    measured = measure([row.text for row in readable], on_demand, config.bad_words)
    values |= measured.values
    for i, (row, failed) in enumerate(zip(readable, failed_rules(rules, values), strict=True)):
        row.failed = failed
        row.drop = _language_drop(row, config) or _edit_drop(row) or _rule_drop(failed, values, i)
    is_kept = np.array([row.drop is None for row in readable], np.bool_)
    kept = [_subject(row, config) for row in readable if row.drop is None]
    fingerprints = fingerprint(kept, select_words(measured.words, is_kept), config)
    return Judged(_table(rows, values, config.excerpt_characters), fingerprints)


def is_kept(table: pa.Table) -> pa.ChunkedArray:
    """Whether no rule dropped a row of a table in JUDGED_SCHEMA, or of the ledger."""
    import pyarrow.compute as pc  # takes 30 ms, which workers do without: they only write

    # A mask; an expression would run through a query engine, which takes a millisecond to start.
    return pc.call_function("equal", [table["verdict"], KEPT])


def _edit(rows: Sequence[_Row], rules: Sequence[Rule], on_demand: Sequence[str]) -> dict[str, Column]:
    """Take the spans of the enabled rules out of the texts; the values of the texts before that."""
    enabled = [rule.name for rule in rules if rule.enabled and rule.action == "edit"]
    found = find_batch_edits([row.text for row in rows], enabled, on_demand)
    for row, edits, num_spans in zip(rows, found.edits, found.num_spans, strict=True):
        row.edits, row.num_spans = edits, num_spans
        if edits:
            row.text = remove_spans(row.text, edits).strip("\n")
    return found.values


def _language_drop(row: _Row, config: CurateConfig) -> Drop | None:
    assert row.language is not None
    code, score = row.language.code, row.language.score
    if config.languages and code not in config.languages:
        return Drop("language", "language.code", f"{code} is not among {', '.join(config.languages)}", score)
    least = config.least_score(code)
    if score < least:
        return Drop("language", "language.score", None, score, "min", least)
    return None


def _edit_drop(row: _Row) -> Drop | None:
    if row.num_spans > MAX_SPANS:
        return Drop("edit", "edit.spans", "more spans to remove", row.num_spans, "max", MAX_SPANS)
    return None if row.text.strip() else Drop("edit", "edit.empty", "nothing was left after the edits")


def _rule_drop(failed: Sequence[Rule], values: Mapping[str, Column], place: int) -> Drop | None:
    if not failed:
        return None
    rule = failed[0]
    value = float(values[rule.name][place])
    fault = rule.fault(value)
    assert fault is not None
    return Drop("rules", rule.name, rule.description, value, *fault)


def _subject(row: _Row, config: CurateConfig) -> Subject:
    url = row.candidate.url if row.candidate.is_page_capture else None
    lead = 0
    if config.cuts_text and row.edits:
        lead = remove_spans(row.candidate.text, row.edits).index(row.text)
    return Subject(url, row.text, lead)


def _table(rows: Sequence[_Row], values: Mapping[str, Column], excerpt_characters: int) -> pa.Table:
    """`values` are those of the readable rows, in order."""
    records = [_record(row, excerpt_characters) for row in rows]
    facts = pa.Table.from_pylist(records, schema=_FACTS_SCHEMA)
    is_readable = np.array([row.candidate.drop is None for row in rows], np.bool_)
    columns = [_value_column(values.get(name), is_readable) for name in RULE_NAMES]
    return pa.Table.from_arrays([*facts.columns, *columns], schema=JUDGED_SCHEMA)


def _value_column(values: Column | None, is_readable: NDArray[np.bool_]) -> pa.Array:
    """The values of a rule, null in rows that cannot be read and where nobody asked for the rule."""
    if values is None:
        return pa.nulls(len(is_readable), pa.float64())
    column = np.zeros(len(is_readable))
    column[is_readable] = values
    return pa.array(column, mask=~is_readable)


def _record(row: _Row, excerpt_characters: int) -> dict[str, Any]:
    candidate, drop = row.candidate, row.drop
    return {
        "id": candidate.id,
        "url": candidate.url,
        "source": candidate.source,
        "title": candidate.title,
        "file": candidate.file,
        "offset": candidate.offset,
        "record_type": candidate.record_type,
        "content_type": candidate.content_type,
        "encoding": candidate.encoding,
        "fetched_at": candidate.fetched_at,
        "num_bytes": candidate.num_bytes,
        "num_characters": len(candidate.text),
        "extractor": candidate.extractor,
        "extractor_reason": candidate.extractor_reason,
        "language": row.language.code if row.language else None,
        "language_score": row.language.score if row.language else None,
        "second_language": row.language.second_code if row.language else None,
        "second_language_share": row.language.second_share if row.language else None,
        "verdict": KEPT if drop is None else DROPPED,
        "dropped_stage": drop.stage if drop else None,
        "dropped_rule": drop.rule if drop else None,
        "dropped_value": drop.value if drop else None,
        "dropped_bound": drop.bound if drop else None,
        "dropped_threshold": drop.threshold if drop else None,
        "detail": drop.detail if drop else None,
        "failed_rules": [rule.name for rule in row.failed],
        "edits": [edit._asdict() for edit in row.edits],
        "text": row.text if drop is None else row.text[:excerpt_characters],
        "metadata": json.dumps(candidate.metadata, sort_keys=True),
        "is_page_capture": candidate.is_page_capture,
    }
