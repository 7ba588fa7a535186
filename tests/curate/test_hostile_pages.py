"""Small pages that would take a parser minutes or gigabytes: read in bounded time, or dropped by name."""

import time

import pytest

from bessemer.curate.config import CurateConfig
from bessemer.curate.edits import MAX_SPANS
from bessemer.curate.extraction import ExtractionFault, extract_html
from bessemer.curate.extraction.preparation import MAX_OPTIONS
from bessemer.curate.judge import judge
from bessemer.curate.kernels.page_shape import page_shape
from bessemer.curate.records import Candidate

PROSE = "<p>" + "A paragraph that is long enough to be the content of the page. " * 4 + "</p>"
BOUND_S = 5
"""Processor time; an idle machine takes a tenth of it."""


@pytest.fixture(autouse=True)
def bounded():
    # Compiled before the clock starts, which also counts the twenty seconds that compiling all rules takes.
    page_shape(PROSE)
    judge([Candidate("", 0, "", text=PROSE)], CurateConfig())
    started = time.process_time()
    yield
    assert time.process_time() - started < BOUND_S


@pytest.mark.parametrize(
    "form",
    [
        "<select>" + "<option>one " * 200_000,
        "<select>" + "<option value=1>one</option>" * 200_000 + "</select>",
        "<SELECT>" + "<OpTgroup label='x>y'><OPTION>one " * 100_000 + "</SELECT>",
    ],
    ids=["left open", "closed", "in groups"],
)
def test_hundreds_of_thousands_of_options_are_taken_out_and_the_page_is_read(form: str):
    text = extract_html(PROSE + form + "</select>" + PROSE, 2000).text
    assert text.count("A paragraph that is long enough") == 8
    assert "one one" not in text


def test_ordinary_forms_are_left_to_the_parser():
    form = "<select>" + "<option>one</option>" * (MAX_OPTIONS - 1) + "</select>"
    assert "one" not in extract_html(PROSE + form + PROSE, 2000).text


@pytest.mark.parametrize("name", ["title", "class", "style", "id", "src", "data-x"])
def test_an_attribute_of_ten_megabytes_is_no_trouble(name: str):
    text = extract_html(f"{PROSE}<img {name}='{'x y' * 3_500_000}'><p>Last words of the page.</p>", 2000).text
    assert text.endswith("Last words of the page.")


def test_a_tag_with_a_hundred_thousand_attributes_is_dropped_by_name():
    attributes = " ".join(f"a{i}=1" for i in range(100_000))
    with pytest.raises(ExtractionFault) as caught:
        extract_html(f"<p {attributes}>text</p>", 2000)
    assert (caught.value.rule, caught.value.value) == ("extract.attributes", 100_000)


@pytest.mark.parametrize(
    ("tag", "num_attributes"),
    [
        ("<br>", 0),
        ("<a href=x>", 1),
        ("<a href='x y=z' title=\"b > c\" download>", 3),
        ("<img src=data:image/png;base64,ab/cd/ef== alt=x />", 2),
        ("<p a/b/c=1>", 3),
        ("<p a = 1\n\tb>", 2),
        ("<p a='1'b='2'c>", 3),
        ("</p a b>", 2),
    ],
)
def test_attributes_are_counted_as_the_standard_splits_them(tag: str, num_attributes: int):
    assert page_shape(tag).most_attributes == num_attributes
    assert page_shape(f"<p a>x{tag}<p b>").most_attributes == max(1, num_attributes)


@pytest.mark.parametrize(("num_marks", "dropped_rule"), [(MAX_SPANS, None), (MAX_SPANS + 1, "edit.spans")])
def test_a_text_with_too_many_spans_to_remove_is_dropped_by_name(num_marks: int, dropped_rule: str | None):
    config = CurateConfig.model_validate(
        {"languages": [], "rules": {"*": "off", "c4.citation_marks": "on"}, "near_duplicates": False}
    )
    candidates = [
        Candidate("pages.warc", i, f"{i}", text=text)
        for i, text in enumerate(("[1]" * num_marks + "x", "a[1]b"))
    ]
    many, few = judge(candidates, config).table.to_pylist()
    assert many["dropped_rule"] == dropped_rule
    assert many["c4.citation_marks"] == 3 * num_marks
    assert len(many["edits"]) == (0 if dropped_rule else num_marks)
    assert (few["verdict"], few["text"]) == ("kept", "ab")
