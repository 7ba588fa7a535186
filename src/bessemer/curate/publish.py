"""The last step of curation: shards and duplicates to the documents and the ledger, and the counts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from bessemer.curate.config import CurateConfig
from bessemer.curate.deduplicate import Duplicate
from bessemer.curate.judge import DROPPED, KEPT
from bessemer.curate.rules import RULE_NAMES, describe
from bessemer.curate.shards import Shard
from bessemer.formats.documents import DocumentWriter
from bessemer.formats.ledger import LedgerWriter, ledger_schema
from bessemer.runner.context import Metrics

_STAGES = ("read", "extract", "language", "edit", "rules", "duplicates")
_FILLED = (
    "verdict",
    "dropped_stage",
    "dropped_rule",
    "dropped_value",
    "dropped_threshold",
    "duplicate_survivor",
    "duplicate_partner",
    "duplicate_similarity",
)


def write_artifact(
    shards: Sequence[Shard], duplicates: Mapping[int, Duplicate], config: CurateConfig, output: Path
) -> Metrics:
    """Write `documents-*.parquet` and `ledger-*.parquet` in input order; returns the counts.

    `duplicates` is keyed by row number over all shards.
    """
    ids = [id for shard in shards for id in shard.table(["id"])["id"].to_pylist()]
    schema = ledger_schema(RULE_NAMES, describe(config.effective_rules()))
    funnel: Counter[tuple[str, str]] = Counter()
    num_records = num_documents = num_characters = num_text_bytes = 0
    with (
        DocumentWriter(output, config.max_file_bytes) as documents,
        LedgerWriter(output, schema, config.max_file_bytes) as ledger,
    ):
        for shard in shards:
            found = [duplicates.get(row) for row in range(num_records, num_records + shard.num_rows)]
            table = _mark_duplicates(shard.table(), found, ids, config.min_similarity)
            verdicts = table["verdict"].to_pylist()
            texts = table["text"].to_pylist()
            documents.write(table.filter(pa.array([verdict == KEPT for verdict in verdicts], pa.bool_())))
            ledger.write(_with_excerpts(table, verdicts, texts, config.excerpt_characters))
            kept = [text for text, verdict in zip(texts, verdicts, strict=True) if verdict == KEPT]
            num_records += table.num_rows
            num_documents += len(kept)
            num_characters += sum(len(text) for text in kept)
            num_text_bytes += sum(len(text.encode()) for text in kept)
            drops = zip(table["dropped_stage"].to_pylist(), table["dropped_rule"].to_pylist(), strict=True)
            funnel.update((stage, rule) for stage, rule in drops if stage is not None)
    return {
        "records": num_records,
        "other_records": sum(shard.num_other_records for shard in shards),
        "documents": num_documents,
        "dropped": num_records - num_documents,
        "characters": num_characters,
        "text_bytes": num_text_bytes,
        "duplicates": sum(count for (stage, _), count in funnel.items() if stage == "duplicates"),
        "unreadable": sum(count for (stage, _), count in funnel.items() if stage in ("read", "extract")),
        **{f"dropped.{rule}": funnel[stage, rule] for stage, rule in sorted(funnel, key=_funnel_order)},
    }


def _funnel_order(drop: tuple[str, str]) -> tuple[int, int, str]:
    stage, rule = drop
    return _STAGES.index(stage), RULE_NAMES.index(rule) if rule in RULE_NAMES else 0, rule


def _mark_duplicates(
    table: pa.Table, found: Sequence[Duplicate | None], ids: Sequence[str], min_similarity: float
) -> pa.Table:
    """The table with verdict and evidence filled in where a row is a duplicate."""
    columns = {name: table[name].to_pylist() for name in _FILLED}
    for i, duplicate in enumerate(found):
        if duplicate is None:
            continue
        is_near = duplicate.rule == "duplicates.near"
        columns["verdict"][i] = DROPPED
        columns["dropped_stage"][i] = "duplicates"
        columns["dropped_rule"][i] = duplicate.rule
        columns["dropped_value"][i] = duplicate.similarity
        columns["dropped_threshold"][i] = min_similarity if is_near else None
        columns["duplicate_survivor"][i] = ids[duplicate.survivor]
        columns["duplicate_partner"][i] = ids[duplicate.partner]
        columns["duplicate_similarity"][i] = duplicate.similarity
    for name, values in columns.items():
        field = table.schema.field(name)
        place = table.schema.get_field_index(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    return table


def _with_excerpts(
    table: pa.Table, verdicts: Sequence[str], texts: Sequence[str], num_characters: int
) -> pa.Table:
    """The table with the head of the text of dropped rows as `excerpt`; null for kept or textless ones."""
    excerpts = [
        text[:num_characters] or None if verdict == DROPPED else None
        for text, verdict in zip(texts, verdicts, strict=True)
    ]
    field = table.schema.field("excerpt")
    place = table.schema.get_field_index("excerpt")
    return table.set_column(place, field, pa.array(excerpts, field.type))
