"""What curation can be told."""

from collections.abc import Mapping

from pydantic import Field, field_validator, model_validator

from bessemer.config import Bytes, Count
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.extraction.config import ExtractionConfig
from bessemer.curate.language_config import LanguageConfig
from bessemer.curate.rules import Bounds, Rule, apply_settings
from bessemer.curate.word_lists import read_word_list
from bessemer.errors import ConfigError


class CurateConfig(DuplicateConfig, LanguageConfig, ExtractionConfig):
    """Extraction, language, rules and deduplication: the fields of the classes that it inherits, and these.
    The defaults follow published recipes for the web."""

    rules: Mapping[str, bool | Bounds] = {}
    """Changes to the rules in `curate.rules`: a name (or a pattern such as `fineweb.*`) → on, off, or
    `{min: …, max: …}`, where null takes a bound away. Variants only by a pattern with `@`:
    `gopher.*@datatrove`."""
    bad_words: tuple[str, ...] = ()
    """What `c4.bad_words` counts: words and phrases, or the path of a file with one a line."""
    excerpt_characters: Count = Field(default=500, ge=0)
    """Head of a dropped document's text that the ledger keeps."""
    shard_bytes: Bytes | None = Field(default=None, gt=0)
    """Bytes of a file that one worker takes at a time; finished shards survive a kill. By default a 64th
    of the pages, between 512 KiB and 8 MiB."""
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

    @field_validator("bad_words", mode="before")
    @classmethod
    def _read_bad_words(cls, value: object) -> object:
        return read_word_list(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _rules_exist(self) -> "CurateConfig":
        for rule in self.effective_rules():
            if rule.enabled and rule.needs and not getattr(self, rule.needs):
                raise ConfigError(f"curate.rules: {rule.name} needs curate.{rule.needs}: a list or a file")
        return self

    def effective_rules(self) -> tuple[Rule, ...]:
        """All rules with this config's changes. Raises ConfigError."""
        return apply_settings(self.rules)
