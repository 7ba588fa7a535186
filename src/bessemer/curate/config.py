"""What curation can be told."""

from collections.abc import Mapping

from pydantic import Field, field_validator, model_validator

from bessemer.config import Bytes, Config, Count
from bessemer.curate.rules import Bounds, Rule, apply_settings


class CurateConfig(Config):
    """Extraction, language, rules and deduplication; the defaults follow published recipes for the web."""

    languages: tuple[str, ...] = ("en",)
    """ISO 639 codes to keep; empty keeps all."""
    min_language_score: float = Field(default=0.65, ge=0, le=1)
    """Least probability of the identified language (FineWeb: 0.65)."""
    rules: Mapping[str, bool | Bounds] = {}
    """Changes to the rules in `curate.rules`: a name (or a pattern such as `fineweb.*`) → on, off, or
    `{min: …, max: …}`."""
    max_page_bytes: Bytes = Field(default=16 << 20, gt=0)
    """Larger pages are dropped unread (Common Crawl truncates at 1 MiB, 5 MiB since 2025)."""
    max_nesting: Count = Field(default=2000, gt=0)
    """Most HTML elements open at once; extraction takes quadratic time in it. Browsers stop at 512."""
    max_undecodable: float = Field(default=0.01, ge=0, le=1)
    """Greatest fraction of characters that did not decode or are control characters."""
    url_duplicates: bool = True
    """Drop later captures of a URL that was kept before."""
    exact_duplicates: bool = True
    """Drop texts equal to an earlier one but for case and whitespace."""
    near_duplicates: bool = True
    """Drop texts whose shingle sets overlap an earlier one's by `min_similarity`."""
    shingle_words: Count = Field(default=5, gt=0)
    """Words in a shingle (FineWeb: 5)."""
    bands: Count = Field(default=14, gt=0)
    """Bands of the MinHash index (FineWeb: 14)."""
    rows: Count = Field(default=8, gt=0)
    """Hashes in a band (FineWeb: 8). A pair of similarity s is nominated with 1 - (1 - s^rows)^bands."""
    min_similarity: float = Field(default=0.8, gt=0, le=1)
    """Least exact Jaccard similarity of shingle sets at which a nominated pair counts as duplicates."""
    max_duplicate_share: float = Field(default=0.9, gt=0, le=1)
    """Stop when duplicates would take more than this share of the documents that passed the rules."""
    excerpt_characters: Count = Field(default=2000, ge=0)
    """Head of a dropped document's text that the ledger keeps."""
    records_per_shard: Count = Field(default=250, gt=0)
    """Records that one worker takes at a time; finished shards survive a kill."""
    max_file_bytes: Bytes = Field(default=256 << 20, gt=0)
    """Parquet files of the artifact hold about this much before compression."""
    workers: Count | None = Field(default=None, gt=0, exclude=True)
    """Worker processes; by default the number of CPUs. Never changes the result."""

    @field_validator("rules", mode="before")
    @classmethod
    def _words_for_switches(cls, value: object) -> object:
        # YAML 1.1 reads a bare off as false, YAML 1.2 as a word; both mean the same here.
        if not isinstance(value, Mapping):
            return value
        switches = {"on": True, "off": False}
        return {
            name: switches.get(setting, setting) if isinstance(setting, str) else setting
            for name, setting in value.items()
        }

    @model_validator(mode="after")
    def _rules_exist(self) -> "CurateConfig":
        self.effective_rules()
        return self

    def effective_rules(self) -> tuple[Rule, ...]:
        """All rules with this config's changes. Raises ConfigError."""
        return apply_settings(self.rules)
