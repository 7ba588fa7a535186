"""The golden values of `@datatrove` against datatrove itself: its filters turn exactly at them."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

filters = pytest.importorskip("datatrove.pipeline.filters")
Document = pytest.importorskip("datatrove.data").Document

DOCUMENTS = [
    json.loads(line)
    for line in (Path(__file__).parent / "documents.jsonl").read_text(encoding="utf-8").splitlines()
]
Verdict = Callable[[str], Any]
"""What a filter returns for a text: True, or False with the reason."""

NO_QUALITY: dict[str, Any] = dict.fromkeys(
    (
        "min_doc_words",
        "max_doc_words",
        "min_avg_word_length",
        "max_avg_word_length",
        "max_symbol_word_ratio",
        "max_bullet_lines_ratio",
        "max_ellipsis_lines_ratio",
        "max_non_alpha_words_ratio",
        "min_stop_words",
    )
)
NO_REPETITION: dict[str, Any] = {
    **dict.fromkeys(("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")),
    "top_n_grams": (),
    "dup_n_grams": (),
}
NO_FINEWEB: dict[str, Any] = {
    "line_punct_thr": -1.0,
    "short_line_thr": math.inf,
    "char_duplicates_ratio": math.inf,
    "new_line_ratio": math.inf,
}
NO_C4: dict[str, Any] = {
    "remove_citations": False,
    "filter_no_terminal_punct": False,
    "min_num_sentences": -1,
    "min_words_per_line": -1,
    "max_word_length": -1,
    "filter_lorem_ipsum": False,
    "filter_javascript": False,
    "filter_curly_bracket": False,
    "filter_policy": False,
}


def quality(**settings: Any) -> Verdict:
    return lambda text: filters.GopherQualityFilter(**(NO_QUALITY | settings)).filter(
        Document(text=text, id="")
    )


def repetition(**settings: Any) -> Verdict:
    return lambda text: filters.GopherRepetitionFilter(**(NO_REPETITION | settings)).filter(
        Document(text=text, id="")
    )


def fineweb(**settings: Any) -> Verdict:
    return lambda text: filters.FineWebQualityFilter(**(NO_FINEWEB | settings)).filter(
        Document(text=text, id="")
    )


AT_MOST: dict[str, tuple[Callable[[float], Verdict], str]] = {
    "gopher.hash_ratio": (lambda bound: quality(max_symbol_word_ratio=bound), "gopher_too_many_hashes"),
    "gopher.ellipsis_ratio": (lambda bound: quality(max_symbol_word_ratio=bound), "gopher_too_many_ellipsis"),
    "gopher.bullet_lines": (lambda bound: quality(max_bullet_lines_ratio=bound), "gopher_too_many_bullets"),
    "gopher.ellipsis_lines": (
        lambda bound: quality(max_ellipsis_lines_ratio=bound),
        "gopher_too_many_end_ellipsis",
    ),
    "gopher.duplicate_lines": (lambda bound: repetition(dup_line_frac=bound), "dup_line_frac"),
    "gopher.duplicate_paragraphs": (lambda bound: repetition(dup_para_frac=bound), "dup_para_frac"),
    "gopher.duplicate_line_characters": (
        lambda bound: repetition(dup_line_char_frac=bound),
        "dup_line_char_frac",
    ),
    "gopher.duplicate_paragraph_characters": (
        lambda bound: repetition(dup_para_char_frac=bound),
        "dup_para_char_frac",
    ),
    **{
        f"gopher.top_{n}_gram": (
            lambda bound, n=n: repetition(top_n_grams=((n, bound),)),
            f"top_{n}_gram",
        )
        for n in (2, 3, 4)
    },
    **{
        f"gopher.duplicate_{n}_grams": (
            lambda bound, n=n: repetition(dup_n_grams=((n, bound),)),
            f"duplicated_{n}_n_grams",
        )
        for n in range(5, 11)
    },
    "fineweb.short_lines": (lambda bound: fineweb(short_line_thr=bound), "short_line_ratio"),
    "fineweb.duplicate_line_characters": (
        lambda bound: fineweb(char_duplicates_ratio=bound),
        "char_dup_ratio",
    ),
    "fineweb.newlines_per_word": (lambda bound: fineweb(new_line_ratio=bound), "list_ratio"),
}
"""By rule: a filter that fails a text whose value is above a bound, and what it then says."""
AT_LEAST: dict[str, tuple[Callable[[float], Verdict], str]] = {
    "gopher.word_count": (lambda bound: quality(min_doc_words=bound), "gopher_short_doc"),
    "gopher.mean_word_length": (
        lambda bound: quality(min_avg_word_length=bound),
        "gopher_below_avg_threshold",
    ),
    "gopher.alphabetic_words": (
        lambda bound: quality(max_non_alpha_words_ratio=bound),
        "gopher_below_alpha_threshold",
    ),
    "gopher.stop_words": (lambda bound: quality(min_stop_words=bound), "gopher_enough_stop_words"),
    "fineweb.terminal_lines": (lambda bound: fineweb(line_punct_thr=bound), "line_punct_ratio"),
}


def cases(rules: dict[str, Any], smallest: float) -> Iterator[Any]:
    """(text, rule, value) of the documents that give one of the rules a value above `smallest`."""
    for document in DOCUMENTS:
        for name, written in document["expected"].items():
            rule = name.removesuffix("@datatrove")
            value = written[0] / written[1] if isinstance(written, list) else written
            if name == rule or rule not in rules or value <= smallest:
                continue
            hashes = document["expected"].get("gopher.hash_ratio@datatrove", [0, 1])
            if rule == "gopher.ellipsis_ratio" and hashes[0] / hashes[1] >= value:
                continue  # datatrove has one bound for both and looks at hash signs first
            yield pytest.param(document["text"], rule, value, id=f"{document['name']}: {rule}")


@pytest.mark.parametrize(("text", "rule", "value"), cases(AT_MOST, -1))
def test_a_greatest_value_is_where_datatrove_turns(text: str, rule: str, value: float):
    with_bound, reason = AT_MOST[rule]
    assert not text or with_bound(value + 1e-9)(text) != (False, reason)
    if value:
        assert with_bound(value - 1e-9)(text) == (False, reason)


@pytest.mark.parametrize(("text", "rule", "value"), cases(AT_LEAST, 0))
def test_a_least_value_is_where_datatrove_turns(text: str, rule: str, value: float):
    with_bound, reason = AT_LEAST[rule]
    assert with_bound(value - 1e-9)(text) is True
    assert with_bound(value + 1e-9)(text) == (False, reason)


def c4_cases() -> Iterator[Any]:
    for document in DOCUMENTS:
        given = {name: value for name, value in document["expected"].items() if name.startswith("c4.")}
        given = {name: value for name, value in given.items() if name.endswith("@datatrove")}
        if given.keys() - {"c4.short_lines@datatrove"}:
            yield pytest.param(document["text"], given, id=document["name"])


@pytest.mark.parametrize(("text", "given"), c4_cases())
def test_c4_counts_what_datatrove_counts(text: str, given: dict[str, float]):
    def verdict(**settings: Any) -> Any:
        return filters.C4QualityFilter(**settings).filter(Document(text=text, id=""))

    for name, reason in (("lorem_ipsum", "lorem_ipsum"), ("curly_bracket", "curly_bracket")):
        if (value := given.get(f"c4.{name}@datatrove")) is not None:
            fails = verdict(min_num_sentences=-1) == (False, reason)
            assert fails == (value > 0)
    sentences = given.get("c4.sentences@datatrove")
    if sentences and not given.get("c4.curly_bracket@datatrove"):
        assert verdict(min_num_sentences=sentences) is True
        assert verdict(min_num_sentences=sentences + 1) == (False, "too_few_sentences")


EDITS = {
    "c4.terminal_lines@datatrove": {"filter_no_terminal_punct": True, "remove_citations": True},
    "c4.short_lines@datatrove": {"min_words_per_line": 3},
}


@pytest.mark.parametrize(
    ("text", "rule", "left"),
    [
        pytest.param(document["text"], rule, left, id=f"{document['name']}: {rule}")
        for document in DOCUMENTS
        for rule, left in document.get("edited", {}).items()
        if rule in EDITS
    ],
)
def test_lines_that_datatrove_keeps_are_kept(text: str, rule: str, left: str):
    document = Document(text=text, id="")
    filters.C4QualityFilter(**(NO_C4 | EDITS[rule])).filter(document)
    assert document.text.splitlines() == left.strip().splitlines()
