"""Where raw pages come from, and how politely a crawl behaves."""

from datetime import date, datetime
from typing import Literal

from pydantic import Field, field_validator, model_validator

from bessemer.collect.common_crawl.config import CommonCrawlConfig
from bessemer.collect.crawl_config import DEFAULT_MAX_PAGES, CrawlConfig
from bessemer.collect.hub.config import HubConfig
from bessemer.config import Bytes, Config, Count, Seconds

Format = Literal[
    "auto",
    "text",
    "html",
    "markdown",
    "code",
    "transcript",
    "pdf",
    "epub",
    "jsonl",
    "parquet",
    "arrow",
    "warc",
]

_SOURCES = ("urls", "path", "common_crawl", "hub")
"""Fields of which one says where the pages come from."""


class CollectConfig(Config):
    """One source of raw pages: the built-in corpus, a crawl from seed URLs, Common Crawl, local files, or a
    data set of the Hugging Face hub."""

    source: Literal["builtin", "urls", "path", "common_crawl", "hub"] = "builtin"
    """Follows from the field of that name when it is given; may also hold it: `source: {path: corpus/}`."""
    urls: tuple[str, ...] = ()
    """Seeds of a crawl."""
    path: str | tuple[str, ...] = ()
    """Files, folders or glob patterns, relative to the working directory."""
    format: Format = "auto"
    """Kind of the files under `path`; `auto` goes by each name's extension."""
    common_crawl: CommonCrawlConfig | None = None
    """Files or single pages of a Common Crawl archive."""
    hub: HubConfig | None = None
    """A data set of the Hugging Face hub, by name. One on disk is read with `path`."""
    text_column: str = "text"
    """Rows (JSONL, Parquet, Arrow): the column that holds the document."""
    id_column: str | None = None
    """Rows: the column that names the document; its URL ends in it. Default: `id` where there is one."""
    url_column: str | None = None
    """Rows: the column that holds the document's URL; handed on as `url`."""
    source_column: str = "source"
    """Rows: the column that says where the document came from."""
    licence_column: str | None = None
    """Rows: the column that holds the document's licence. Default: `licence` or `license`."""
    date_column: str | None = None
    """Rows: the column that says when the document was fetched (ISO 8601, or seconds since 1970)."""
    metadata_columns: tuple[str, ...] | None = None
    """Rows: the other columns to keep. Default: all but binary ones."""
    source_name: str | None = None
    """What documents from files name as their source. Default: the folder or file that `path` names."""
    licence: str | None = None
    """Licence of the documents, as an SPDX expression; what a page, file or row says about itself wins."""
    fetched_at: str | None = None
    """ISO 8601 date of the documents. Default: when the file was last changed; what a row says wins."""
    max_document_bytes: Bytes = Field(default=32 << 20, ge=1, le=64 << 20)
    """A longer row, text file, or text of a PDF or EPUB is dropped and reported."""
    document_cpu_s: Seconds = Field(default=60.0, ge=1)
    """PDF and EPUB: a file whose parser runs for longer (processor time) is dropped and reported."""
    document_memory_bytes: Bytes = Field(default=2 << 30, ge=256 << 20)
    """PDF and EPUB: a file whose parser needs more (address space) is dropped and reported."""
    max_pages: Count | None = Field(default=None, ge=1)
    """Stop after so many pages, documents or rows. Default with `urls`: 10,000. WARC files are not cut."""
    max_file_bytes: Bytes = Field(default=256 << 20, ge=1)
    """Size at which the next WARC file begins."""
    builtin_modules: tuple[str, ...] | None = None
    """Built-in corpus: only these modules, without topics and packages. Default: everything."""
    builtin_packages: tuple[str, ...] = ("numpy", "polars", "pyarrow", "torch")
    """Built-in corpus: installed packages that get one page for each public function and class."""
    builtin_deadline_s: Seconds = Field(default=60.0, gt=0)
    """Built-in corpus: a module that takes longer to document is tried once more, with ten times as much;
    then the stage stops."""
    crawl: CrawlConfig = CrawlConfig()
    """How the crawler behaves; the built-in corpus is crawled too, without delay."""

    @model_validator(mode="before")
    @classmethod
    def _infer_source(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        if isinstance(values.get("source"), dict):
            inside = values["source"]
            if len(inside) != 1 or (name := next(iter(inside))) not in _SOURCES:
                raise ValueError(f"source: takes one of {', '.join(_SOURCES)}, or builtin")
            if name in values:
                raise ValueError(f"{name} is given twice, once inside source")
            values = {**values, "source": name, name: inside[name]}
        elif "source" not in values:
            given = [name for name in _SOURCES if values.get(name)]
            if len(given) > 1:
                raise ValueError(f"{' and '.join(given)} are both given; use one collect stage for each")
            # An empty list is a slip that the check below names; it must not mean the built-in corpus.
            given = given or [name for name in _SOURCES if values.get(name) is not None]
            values = {**values, "source": given[0]} if given else values
        if values.get("source") == "urls" and "max_pages" not in values:
            values = {**values, "max_pages": DEFAULT_MAX_PAGES}
        return values

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "CollectConfig":
        for name in _SOURCES:
            is_given = bool(getattr(self, name))
            if self.source == name and not is_given:
                raise ValueError(f"source: {name} needs {name}: to be given")
            if self.source != name and is_given:
                raise ValueError(f"{name} is given, but source is {self.source}; remove one of them")
        if self.source == "common_crawl" and self.max_pages is not None:
            raise ValueError("max_pages does not bound common_crawl; use its limit (pages) or files")
        return self

    @field_validator("fetched_at", mode="before")
    @classmethod
    def _yaml_dates_are_texts(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, date) else value  # a datetime is a date, too

    @field_validator("fetched_at")
    @classmethod
    def _is_a_date(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{value!r} is no date; write it as 2026-01-31") from None
        return value

    @property
    def paths(self) -> tuple[str, ...]:
        """`path` as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path
