"""Which of two extractors' texts a page gets: the precise one, unless it lost what the other has.

trafilatura leaves out more of the boilerplate and, on some layouts, some of the content; or it runs lines
together. So the rule asks resiliparse's text for its *solid* lines, which are hardly ever boilerplate:
running text (MIN_WORDS words or more), rows of tables, and code (indented lines). It depends on nothing but
the two texts. The page gets

1. where only one has text, that one;
2. resiliparse's, where trafilatura's holds less than MIN_KEPT of the words of the solid lines;
3. resiliparse's, where less than MIN_KEPT of the lines of code are lines of trafilatura's;
4. resiliparse's, where trafilatura's longest line has more than LONG_LINE characters and MAX_GROWTH times as
   many as resiliparse's longest, as when a page laid out by tables becomes one row;
5. else trafilatura's.
"""

import re
from collections import Counter
from collections.abc import Sequence

from bessemer.curate.extraction.page import Extracted

MIN_WORDS = 10
MIN_KEPT = 0.9
LONG_LINE = 500
MAX_GROWTH = 2
_WORD = re.compile(r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]|\w+")
"""Words; single letters of scripts that put no blanks between words."""
_LIST_MARK = re.compile(r"\s+(?:[•◦‣▪*-]|\d+\.)\s")


def choose(fast: Extracted, precise: Extracted) -> tuple[Extracted, str]:
    """The text that the page gets, and why in words. `fast` is resiliparse's."""
    if not precise.text:
        return fast, "trafilatura finds no text"
    if not fast.text:
        return precise, "resiliparse finds no text"
    lines, precise_lines = fast.text.split("\n"), precise.text.split("\n")
    solid = [line for line in lines if _is_row(line) or _is_code(line) or _is_running(line)]
    kept = _share_of_words(solid, precise.text)
    if kept < MIN_KEPT:
        return fast, f"trafilatura keeps {kept:.0%} of its running text, rows and code"
    kept_code = _share_of_lines([line for line in lines if _is_code(line)], precise_lines)
    if kept_code < MIN_KEPT:
        return fast, f"trafilatura keeps {kept_code:.0%} of its lines of code"
    longest, longest_fast = max(map(len, precise_lines)), max(map(len, lines))
    if longest > max(LONG_LINE, MAX_GROWTH * longest_fast):
        return fast, f"trafilatura runs paragraphs together: a line of {longest:,} characters"
    return precise, f"trafilatura keeps {kept:.0%} of the other's running text, rows and code"


def _is_row(line: str) -> bool:
    return "\t" in line.strip()


def _is_code(line: str) -> bool:
    return line.startswith(("  ", "\t")) and not _is_row(line) and _LIST_MARK.match(line) is None


def _is_running(line: str) -> bool:
    return len(_WORD.findall(line)) >= MIN_WORDS


def _share_of_words(lines: Sequence[str], text: str) -> float:
    """Share of the words of the lines, as a multiset, that the text holds; 1 of none."""
    wanted = Counter(word for line in lines for word in _WORD.findall(line))
    return (wanted & Counter(_WORD.findall(text))).total() / wanted.total() if wanted else 1.0


def _share_of_lines(lines: Sequence[str], others: Sequence[str]) -> float:
    """Share of the lines that are among the others, whatever their indentation; 1 of none."""
    there = {other.strip() for other in others}
    return sum(line.strip() in there for line in lines) / len(lines) if lines else 1.0
