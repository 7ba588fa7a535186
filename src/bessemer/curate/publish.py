"""The last step of curation: shards and duplicates to the documents and the ledger, and the counts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bessemer.curate.by_language import LanguageCounts
from bessemer.curate.config import CurateConfig
from bessemer.curate.dedup.marks import Marker
from bessemer.curate.dedup.resolve import Duplicates
from bessemer.curate.extraction import FALLBACK
from bessemer.curate.judge import DROPPED, is_kept
from bessemer.curate.rules import RULE_NAMES, describe
from bessemer.curate.shards import Shard
from bessemer.formats.documents import DocumentWriter
from bessemer.formats.ledger import LedgerWriter, ledger_schema
from bessemer.formats.parquet_shards import finish_together
from bessemer.runner.ahead import taken_ahead
from bessemer.runner.context import Metrics

_STAGES = ("read", "extract", "language", "edit", "rules", "duplicates")


def write_artifact(
    shards: Sequence[Shard], duplicates: Duplicates, config: CurateConfig, output: Path
) -> Metrics:
    """Write `documents-*.parquet`, `ledger-*.parquet` and `duplicate_pairs-*.parquet` in input order.

    Returns the counts.
    """
    schema = ledger_schema(RULE_NAMES, describe(config.effective_rules()))
    marker = Marker(shards, duplicates, config.min_similarity)
    funnel: Counter[tuple[str, str]] = Counter()
    languages = LanguageCounts()
    extractors: Counter[str] = Counter()
    num_records = num_documents = num_characters = num_text_bytes = 0
    with (
        DocumentWriter(output, config.max_file_bytes) as documents,
        LedgerWriter(output, schema, config.max_file_bytes) as ledger,
    ):
        for table in _marked(shards, duplicates, marker):
            kept = table.filter(is_kept(table))
            documents.write(kept)
            ledger.write(_with_excerpts(table, config.excerpt_characters))
            num_records += table.num_rows
            num_documents += kept.num_rows
            num_characters += _total("utf8_length", kept["text"])
            num_text_bytes += _total("binary_length", kept["text"])
            drops = zip(table["dropped_stage"].to_pylist(), table["dropped_rule"].to_pylist(), strict=True)
            funnel.update((stage, rule) for stage, rule in drops if stage is not None)
            languages.add(table)
            extractors.update(_extractors(table))
        finish_together([documents, ledger])
    marker.write_pairs(output, config.max_file_bytes)
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
        **languages.metrics(),
        **{f"extractor.{name}": count for name, count in sorted(extractors.items())},
    }


def _extractors(table: pa.Table) -> Iterator[str]:
    """The extractor of each HTML page; once more as `fallbacks` where it stood in for another."""
    for name, reason in zip(
        table["extractor"].to_pylist(), table["extractor_reason"].to_pylist(), strict=True
    ):
        if name is not None:
            yield name
        if reason is not None and reason.startswith(FALLBACK):
            yield "fallbacks"


def _funnel_order(drop: tuple[str, str]) -> tuple[int, int, str]:
    stage, rule = drop
    return _STAGES.index(stage), RULE_NAMES.index(rule) if rule in RULE_NAMES else 0, rule


def _marked(shards: Sequence[Shard], duplicates: Duplicates, marker: Marker) -> Iterator[pa.Table]:
    """Every batch of every shard, with the verdicts of deduplication."""
    next_rows = duplicates.first_rows.tolist()
    batches = ((number, batch) for number, shard in enumerate(shards) for batch in shard.batches())
    for number, batch in taken_ahead(batches):
        is_row = is_kept(batch).to_numpy()
        rows = np.arange(next_rows[number], next_rows[number] + int(is_row.sum()))
        next_rows[number] += len(rows)
        yield marker.mark(batch, number, rows, is_row)


def _total(length: str, texts: pa.ChunkedArray) -> int:
    """Sum over texts of what the Arrow function `length` says of each."""
    return pc.call_function("sum", [pc.call_function(length, [texts])]).as_py() or 0


def _with_excerpts(table: pa.Table, num_characters: int) -> pa.Table:
    """The table with the head of the text of dropped rows as `excerpt`; null for kept or textless ones."""
    slice_ = pc.SliceOptions(0, num_characters)
    heads = pc.call_function("utf8_slice_codeunits", [table["text"]], slice_)
    is_dropped = pc.call_function("equal", [table["verdict"], DROPPED])
    has_head = pc.call_function("greater", [pc.call_function("binary_length", [heads]), 0])
    field = table.schema.field("excerpt")
    nothing = pa.scalar(None, field.type)
    has_excerpt = pc.call_function("and", [is_dropped, has_head])
    excerpts = pc.call_function("if_else", [has_excerpt, heads, nothing])
    return table.set_column(table.schema.get_field_index("excerpt"), field, excerpts)
