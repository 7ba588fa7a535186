import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.synthesize.documentation import (
    Entry,
    argument_names,
    fact_of,
    first_sentence,
    read_documentation,
    read_entries,
)
from stage_helpers import write_documents

MODULE_PAGE = """mathlib

Numbers and what to do with them.

Classes

class Vector(builtins.object)

Vector(x, y=0)
A point in the plane. It is immutable.

Methods

norm(self)
Return the length of the vector.

Functions

gcd(a, b, /)
Return the greatest common divisor
of the integers a and b.

More about it in a second paragraph.

isclose(a, b, *, rel_tol=1e-09) -> bool
Determine whether two numbers are close in value.

_hidden(x)
Return something nobody asks about.

Data

pi = 3.14
"""

OBJECT_PAGE = """arrays.mean

mean(a, axis=None, *rest, keep=False, **options)
Compute the arithmetic mean along an axis.

Parameters
----------
a : array_like

Returns
-------
m : float or array
    The mean.
"""


def facts_of(text, max_summary_characters=90, max_arguments=5):
    found = [fact_of(entry, "d", max_summary_characters, max_arguments) for entry in read_entries(text)]
    return {fact.name: fact for fact in found if fact is not None}


def test_a_module_page_gives_its_classes_and_functions():
    entries = list(read_entries(MODULE_PAGE))
    assert [(entry.name, entry.is_class) for entry in entries] == [
        ("mathlib.Vector", True),
        ("mathlib.gcd", False),
        ("mathlib.isclose", False),
        ("mathlib._hidden", False),
    ]


def test_facts_are_the_first_sentence_the_arguments_and_the_returned_type():
    facts = facts_of(MODULE_PAGE)
    assert set(facts) == {"mathlib.Vector", "mathlib.gcd", "mathlib.isclose"}
    vector, gcd, isclose = facts["mathlib.Vector"], facts["mathlib.gcd"], facts["mathlib.isclose"]
    assert (vector.kind, vector.summary, vector.arguments) == ("class", "A point in the plane.", ("x", "y"))
    assert gcd.summary == "Return the greatest common divisor of the integers a and b."
    assert (gcd.arguments, gcd.returns) == (("a", "b"), None)
    assert (isclose.arguments, isclose.returns) == (("a", "b", "rel_tol"), "bool")
    assert (gcd.module, gcd.short, gcd.document_id) == ("mathlib", "gcd", "d")


def test_an_object_page_gives_its_one_object_and_the_numpy_style_return():
    fact = facts_of(OBJECT_PAGE)["arrays.mean"]
    assert fact.summary == "Compute the arithmetic mean along an axis."
    assert fact.arguments == ("a", "axis", "rest", "keep", "options")
    assert fact.returns == "float or array"


def test_a_class_page_takes_the_signature_under_the_class_line():
    page = "lib.Box\n\nclass Box(object)\n\nBox(width, height)\nA box with straight sides.\n\nMethods"
    assert facts_of(page)["lib.Box"].kind == "class"
    assert facts_of(page)["lib.Box"].arguments == ("width", "height")


def test_bounds_leave_out_long_summaries_and_long_argument_lists():
    assert facts_of(OBJECT_PAGE, max_summary_characters=20) == {}
    assert facts_of(OBJECT_PAGE, max_arguments=4)["arrays.mean"].arguments is None


@pytest.mark.parametrize(
    ("documentation", "sentence"),
    [
        ("Return the sum. Then rest.", "Return the sum."),
        ("Return\n  the sum\nof all.", "Return the sum of all."),
        ("Return x, e.g. the sum of all.", "Return x, e.g. the sum of all."),
        ("Return the sum", None),
        ("Return the sum...", None),
        ("Use e.g.", None),
        ("Too short.", None),
        (">>> sum([1]) is one here.", None),
        ("See https://example.org for all of it.", None),
        ("Übersetzt in eine andere Sprache.", None),
        ("", None),
        ("\n\nSecond paragraph is not the first.", None),
    ],
)
def test_a_first_sentence_is_plain_prose_with_an_end_or_nothing(documentation, sentence):
    assert first_sentence(documentation) == sentence


@pytest.mark.parametrize(
    ("signature", "names"),
    [
        ("()", ()),
        ("(self, a, *args, b=1, **kwargs)", ("a", "args", "b", "kwargs")),
        ("(cls, /, x: int = 3)", ("x",)),
        ("(a[, b])", None),
        ("(...)", None),
        ("(a, a=<object object at 0x1>)", None),
        ("(a): import os\x00", None),
        ("(" * 300 + ")" * 300, None),
    ],
)
def test_argument_names_are_parsed_as_python_or_left_out(signature, names):
    assert argument_names(signature) == names


def test_a_signature_is_never_run(tmp_path):
    target = tmp_path / "ran"
    argument_names(f"(a=open({str(target)!r}, 'w'))")
    assert not target.exists()


def test_an_odd_escape_in_a_default_prints_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert argument_names(r"(pattern='\d+')") == ("pattern",)


JUNK = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            ["lib.name", "name(a, b)", "name(", "class name(x)", "Classes", "Functions", "Returns\n----", ""]
        ),
        st.sampled_from(MODULE_PAGE.split("\n\n") + OBJECT_PAGE.split("\n\n")),
    ),
    max_size=8,
).map("\n\n".join)


@given(JUNK)
def test_any_text_gives_entries_or_none_and_never_fails(text):
    for entry in read_entries(text):
        fact = fact_of(entry, "d", 90, 5)
        if fact is not None:
            assert 15 <= len(fact.summary) <= 90
            assert fact.name == entry.name


def test_prose_that_begins_with_a_word_is_no_reference_page():
    assert list(read_entries("Welcome\n\nThis (is) a page.\n\nIt says f(x).")) == []


def test_of_two_pages_about_one_name_the_first_counts_and_names_are_sorted(tmp_path):
    first = "lib\n\nFunctions\n\nf(a)\nThe first thing it says."
    second = "lib\n\nFunctions\n\nf(a, b)\nThe second thing it says.\n\na(x)\nNo end of sentence"
    documents = write_documents(tmp_path, [[("one", first)], [("two", second), ("junk", "Nothing here.")]])
    found = read_documentation(documents.folder, 90, 5)
    assert found.names == ["lib.a", "lib.f"]
    assert [(fact.name, fact.summary, fact.document_id) for fact in found.facts] == [
        ("lib.f", "The first thing it says.", "one")
    ]


def test_arguments_with_a_private_name_are_not_asked_about():
    entry = Entry("heapq.merge", False, "(iterables, _key=None)", None, "Merge sorted inputs.")
    fact = fact_of(entry, "d", 90, 5)
    assert fact is not None
    assert fact.arguments is None
