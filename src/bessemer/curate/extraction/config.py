"""What extraction can be told; `CurateConfig` inherits it."""

import importlib.util
from typing import Literal

from pydantic import Field, field_validator

from bessemer.config import Bytes, Config, Count, Seconds

Extractor = Literal["resiliparse", "precise", "union"]
PRECISE_EXTRA = "pip install 'bessemer[precise]'"
_PRECISE_PACKAGES = ("trafilatura", "lxml_html_clean")


class ExtractionConfig(Config):
    """Which extractor reads a page, and which pages are too large or too broken to be read."""

    extractor: Extractor = "resiliparse"
    """resiliparse: fast. precise: trafilatura, less boilerplate at ten times the cost. union: both, and per
    page the one that suits it (`extraction.union`). Compared in docs/extraction.md."""
    precise_cpu_s: Seconds = Field(default=10.0, gt=0)
    """Processor time that trafilatura may take for a page. Beyond it resiliparse's text is taken, so that
    with precise and union the slowest pages depend on the machine; the ledger says which."""
    max_page_bytes: Bytes = Field(default=16 << 20, gt=0)
    """Larger pages are dropped unread (Common Crawl truncates at 1 MiB, 5 MiB since 2025)."""
    max_nesting: Count = Field(default=2000, gt=0)
    """Most HTML elements open at once; extraction takes quadratic time in it. Browsers stop at 512."""
    max_undecodable: float = Field(default=0.01, ge=0, le=1)
    """Greatest fraction of characters that did not decode or are control characters."""

    @field_validator("extractor")
    @classmethod
    def _extractor_is_installed(cls, extractor: Extractor) -> Extractor:
        missing = [name for name in _PRECISE_PACKAGES if importlib.util.find_spec(name) is None]
        if extractor != "resiliparse" and missing:
            raise ValueError(
                f"{extractor} needs {' and '.join(missing)}, not installed here: {PRECISE_EXTRA}, or take "
                "resiliparse"
            )
        return extractor
