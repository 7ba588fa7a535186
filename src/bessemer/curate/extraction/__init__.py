"""From the bytes of a page to its main text and title, or to the reason why there is none."""

from bessemer.curate.extraction.encodings import decode
from bessemer.curate.extraction.html import FALLBACK, extract_page
from bessemer.curate.extraction.main_content import extract_html
from bessemer.curate.extraction.normal_form import clean
from bessemer.curate.extraction.page import Extracted, ExtractionFault

__all__ = ["FALLBACK", "Extracted", "ExtractionFault", "clean", "decode", "extract_html", "extract_page"]
