"""Candidates to ledger rows: language, edits, rule values, verdicts, and what deduplication will need."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bessemer.curate.config import CurateConfig
from bessemer.curate.edits import Edit, find_edits, remove_spans
from bessemer.curate.kernels.shingles import minhash_signatures, shingle_sets
from bessemer.curate.language import Language, identify_language
from bessemer.curate.measure import measure
from bessemer.curate.near_duplicates import hash_family
from bessemer.curate.records import Candidate, Drop
from bessemer.curate.rules import DROP_RULES, RULE_NAMES, Rule, failed_rules
from bessemer.formats.ledger import LEDGER_FIELDS

KEPT, DROPPED = "kept", "dropped"

JUDGED_SCHEMA = pa.schema(
    [
        *LEDGER_FIELDS,
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("is_page_capture", pa.bool_(), nullable=False),
        *(pa.field(name, pa.float64()) for name in RULE_NAMES),
    ]
)
"""A ledger row and what only the documents and deduplication need. `text` is edited; of dropped rows
only the head is kept."""


@dataclass(frozen=True)
class Judged:
    """One batch after the rules, before deduplication."""

    table: pa.Table
    """JUDGED_SCHEMA, one row a candidate."""
    signatures: NDArray[np.uint32]
    """[rows still kept, hashes]."""
    shingles: NDArray[np.uint64]
    """Shingle sets of the rows still kept, end to end."""
    shingle_offsets: NDArray[np.int64]
    """[rows still kept + 1]."""


@dataclass
class _Row:
    """A candidate and what was found out about it."""

    candidate: Candidate
    text: str = ""
    language: Language | None = None
    edits: Sequence[Edit] = ()
    values: dict[str, float] | None = None
    failed: Sequence[Rule] = ()
    drop: Drop | None = None


def judge(candidates: Sequence[Candidate], config: CurateConfig) -> Judged:
    """Judge a batch. Pure: the same candidates and config give the same tables, whatever the batch's size."""
    rules = config.effective_rules()
    rows = [_Row(candidate, candidate.text, drop=candidate.drop) for candidate in candidates]
    readable = [row for row in rows if row.drop is None]
    for row in readable:
        row.language = identify_language(row.text)
        _edit(row, rules)
    measured = measure([row.text for row in readable])
    for i, (row, failed) in enumerate(zip(readable, failed_rules(rules, measured.values), strict=True)):
        assert row.values is not None
        row.values |= {name: float(measured.values[name][i]) for name in DROP_RULES}
        row.failed = failed
        row.drop = _language_drop(row, config) or _edit_drop(row) or _rule_drop(row)
    is_kept = np.array([row.drop is None for row in readable], np.bool_)
    sets, offsets = _keep_sets(
        *shingle_sets(measured.words.hashes, measured.words.offsets, config.shingle_words), is_kept
    )
    signatures = minhash_signatures(sets, offsets, *hash_family(config.bands * config.rows))
    return Judged(_table(rows, config.excerpt_characters), signatures, sets, offsets)


def _edit(row: _Row, rules: Sequence[Rule]) -> None:
    found = find_edits(row.text)
    editing = {rule.name: rule.enabled for rule in rules if rule.action == "edit"}
    row.values = dict.fromkeys(editing, 0.0)
    for edit in found:
        row.values[edit.rule] += edit.end - edit.start
    row.edits = [edit for edit in found if editing[edit.rule]]
    if row.edits:
        row.text = remove_spans(row.text, row.edits).strip("\n")


def _language_drop(row: _Row, config: CurateConfig) -> Drop | None:
    assert row.language is not None
    code, score = row.language
    if not config.languages:
        return None
    if code not in config.languages:
        return Drop("language", "language.code", f"{code} is not among {', '.join(config.languages)}", score)
    if score < config.min_language_score:
        return Drop("language", "language.score", None, score, "min", config.min_language_score)
    return None


def _edit_drop(row: _Row) -> Drop | None:
    return None if row.text.strip() else Drop("edit", "edit.empty", "nothing was left after the edits")


def _rule_drop(row: _Row) -> Drop | None:
    if not row.failed:
        return None
    rule = row.failed[0]
    assert row.values is not None
    value = row.values[rule.name]
    fault = rule.fault(value)
    assert fault is not None
    return Drop("rules", rule.name, rule.description, value, *fault)


def _keep_sets(
    sets: NDArray[np.uint64], offsets: NDArray[np.int64], is_kept: NDArray[np.bool_]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    lengths = np.diff(offsets)
    kept_offsets = np.concatenate(([0], np.cumsum(lengths[is_kept])))
    return sets[np.repeat(is_kept, lengths)], kept_offsets.astype(np.int64)


def _table(rows: Sequence[_Row], excerpt_characters: int) -> pa.Table:
    records = [_record(row, excerpt_characters) for row in rows]
    return pa.Table.from_pylist(records, schema=JUDGED_SCHEMA)


def _record(row: _Row, excerpt_characters: int) -> dict[str, Any]:
    candidate, drop = row.candidate, row.drop
    values = row.values or {}
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
        "language": row.language.code if row.language else None,
        "language_score": row.language.score if row.language else None,
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
        **{name: values.get(name) for name in RULE_NAMES},
    }
