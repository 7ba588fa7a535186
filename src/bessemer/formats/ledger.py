"""The decision ledger: one row for every record that entered curation, kept or not.

`ledger-00000.parquet`, … hold what is known of the record, what was decided and why, and the value of
every rule in a column of the rule's name, so that "what if this threshold were 0.2" is a query. The
rules with their thresholds are in the Parquet metadata under `bessemer.rules`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bessemer.formats.documents import DEFAULT_SHARD_BYTES
from bessemer.formats.parquet_shards import ParquetEncoding, ShardedParquetWriter, shard_paths

if TYPE_CHECKING:
    import polars as pl

LEDGER_STEM = "ledger"
_RULES_KEY = b"bessemer.rules"

EDIT_TYPE = pa.struct([("rule", pa.string()), ("start", pa.int64()), ("end", pa.int64())])
"""A span that a rule removed: code point offsets into the extracted text."""

LEDGER_FIELDS: tuple[pa.Field, ...] = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("url", pa.string()),
    pa.field("source", pa.string()),
    pa.field("title", pa.string()),
    pa.field("file", pa.string(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("record_type", pa.string()),
    pa.field("content_type", pa.string()),
    pa.field("encoding", pa.string()),
    pa.field("fetched_at", pa.string()),
    pa.field("num_bytes", pa.int64()),
    pa.field("num_characters", pa.int64()),
    pa.field("extractor", pa.string()),
    pa.field("extractor_reason", pa.string()),
    pa.field("language", pa.string()),
    pa.field("language_score", pa.float64()),
    pa.field("second_language", pa.string()),
    pa.field("second_language_share", pa.float64()),
    pa.field("verdict", pa.string(), nullable=False),
    pa.field("dropped_stage", pa.string()),
    pa.field("dropped_rule", pa.string()),
    pa.field("dropped_value", pa.float64()),
    pa.field("dropped_bound", pa.string()),
    pa.field("dropped_threshold", pa.float64()),
    pa.field("detail", pa.string()),
    pa.field("failed_rules", pa.list_(pa.string())),
    pa.field("edits", pa.list_(EDIT_TYPE)),
    pa.field("duplicate_survivor", pa.string()),
    pa.field("duplicate_partner", pa.string()),
    pa.field("duplicate_similarity", pa.float64()),
    pa.field("excerpt", pa.large_string()),
)
"""`file` and `offset`: the record's place. `num_bytes`: decoded payload; `num_characters`: extracted text
before edits. `extractor`: what made the text of an HTML page, and why that one where there was a choice.
`second_language`: what a share of the text is in instead. `verdict`: kept or dropped; dropped rows name the
first stage and rule that dropped them, the value, and the threshold it crossed (`dropped_bound` says which:
min or max). `failed_rules`: every enabled rule that the document fails. `duplicate_survivor`: id of the
kept document of the cluster; `duplicate_partner`: id of the most similar confirmed duplicate, with the
exact similarity. `excerpt`: the head of the text of dropped documents."""


_ENCODING = ParquetEncoding(
    repetitive_columns=(
        "source",
        "file",
        "record_type",
        "content_type",
        "encoding",
        "fetched_at",
        "language",
        "verdict",
        "dropped_stage",
        "dropped_rule",
        "dropped_bound",
        "dropped_threshold",
        "failed_rules.list.element",
        "edits.list.element.rule",
    ),
    compression_level=6,
)
"""Values of rules are nearly all different: a dictionary of them takes more room than they do. Together with
the level, 16 % fewer bytes than the defaults on real pages."""


def ledger_schema(rule_names: Iterable[str], rules: Mapping[str, Any]) -> pa.Schema:
    """The ledger's schema: the fixed fields, one float64 column a rule, the rules as JSON metadata."""
    values = [pa.field(name, pa.float64()) for name in rule_names]
    return pa.schema([*LEDGER_FIELDS, *values], metadata={_RULES_KEY: json.dumps(rules)})


class LedgerWriter(ShardedParquetWriter):
    """Writes ledger rows into shards of bounded size; see `ShardedParquetWriter`."""

    def __init__(self, folder: Path, schema: pa.Schema, max_shard_bytes: int = DEFAULT_SHARD_BYTES) -> None:
        super().__init__(folder, LEDGER_STEM, schema, max_shard_bytes, _ENCODING)


def scan_ledger(folder: Path) -> "pl.LazyFrame":
    """The ledger as a lazy frame. Raises BessemerError when there is none."""
    import polars as pl  # takes longer to import than a worker takes to read a page

    return pl.scan_parquet(shard_paths(folder, LEDGER_STEM))


def read_rules(folder: Path) -> dict[str, Any]:
    """The rules that made this ledger: name → min, max, enabled, action, description."""
    metadata = pq.read_schema(shard_paths(folder, LEDGER_STEM)[0]).metadata
    return json.loads(metadata[_RULES_KEY])
