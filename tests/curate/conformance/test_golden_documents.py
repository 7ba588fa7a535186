"""The golden documents, whose values were derived by hand from the published definitions."""

import json
from pathlib import Path
from typing import Any

import pytest

from bessemer.curate.edits import find_batch_edits, find_edits, remove_spans
from bessemer.curate.measure import measure
from bessemer.curate.rules import RULE_NAMES, RULES

FOLDER = Path(__file__).parent
DOCUMENTS = [
    json.loads(line) for line in (FOLDER / "documents.jsonl").read_text(encoding="utf-8").splitlines()
]


def wanted(document: dict[str, Any]) -> dict[str, float]:
    """Rule → value, fractions worked out."""
    return {
        name: value[0] / value[1] if isinstance(value, list) else value
        for name, value in document["expected"].items()
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["name"])
def test_a_golden_document_has_the_values_of_the_definitions(document: dict[str, Any]):
    text, expected = document["text"], wanted(document)
    names = list(expected)
    values = measure([text], names, document.get("bad_words", ())).values
    values |= find_batch_edits([text], (), names).values
    assert {name: float(values[name][0]) for name in expected} == pytest.approx(expected)
    for rule, left in document.get("edited", {}).items():
        assert remove_spans(text, find_edits(text, [rule])) == left, rule


def test_every_rule_has_a_document_whose_value_is_neither_nothing_nor_trivial():
    covered = {name for each in DOCUMENTS for name, value in wanted(each).items() if value}
    covered |= {name for each in DOCUMENTS for name in each.get("edited", {})}
    assert covered == set(RULE_NAMES)


def test_the_table_of_rules_is_the_one_in_force():
    """`rules.json` is for other projects; it must say what the code does."""
    table = json.loads((FOLDER / "rules.json").read_text(encoding="utf-8"))
    assert table == {
        rule.name: {"value": rule.description, "min": rule.min, "max": rule.max, "action": rule.action}
        for rule in RULES
    }
