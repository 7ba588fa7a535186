"""The main text of an HTML page by the extractor that the config names."""

from dataclasses import replace

from bessemer.curate.extraction.config import ExtractionConfig
from bessemer.curate.extraction.main_content import extract_html
from bessemer.curate.extraction.normal_form import clean
from bessemer.curate.extraction.page import Extracted
from bessemer.curate.extraction.precise import PreciseFault, precise_extractor
from bessemer.curate.extraction.union import choose

FALLBACK = "instead of precise, "
"""How the reason begins where resiliparse stood in for trafilatura."""


def extract_page(html: str, config: ExtractionConfig) -> Extracted:
    """The main text; `extractor` and, where there was a choice, `reason` say how it was made.

    resiliparse reads every page first: it tells the title, drops pages that would take too much work
    whoever parses them, and stands in where trafilatura runs out of its time or breaks.
    Raises ExtractionFault as `extract_html` does.
    """
    fast = extract_html(html, config.max_nesting)
    if config.extractor == "resiliparse":
        return fast
    try:
        text = precise_extractor(config.precise_cpu_s).extract(html)
    except PreciseFault as fault:
        return _noted(fast, f"{FALLBACK}{fault}")
    precise = replace(clean(text, fast.title), extractor="precise")
    if config.extractor == "precise":
        return _noted(precise, None)
    chosen, reason = choose(fast, precise)
    return _noted(chosen, reason)


def _noted(extracted: Extracted, reason: str | None) -> Extracted:
    """With the choice in the document's metadata too."""
    note = {"extractor": extracted.extractor} | ({"extractor_reason": reason} if reason else {})
    return replace(extracted, reason=reason, notes=extracted.notes | note)
