"""The golden documents, whose values were derived by hand from the published definitions."""

import json
from pathlib import Path
from typing import Any

import pytest

from bessemer.curate.edits import find_batch_edits, find_edits, remove_spans
from bessemer.curate.measure import measure
from bessemer.curate.rules import RULE_NAMES

_LINES = (Path(__file__).parent / "rules.jsonl").read_text(encoding="utf-8").splitlines()
DOCUMENTS = [json.loads(line) for line in _LINES]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["name"])
def test_a_golden_document_has_the_values_of_the_definitions(document: dict[str, Any]):
    text, expected = document["text"], document["expected"]
    assert set(expected) <= set(RULE_NAMES)
    values = measure([text], list(expected)).values | find_batch_edits([text], (), list(expected)).values
    wanted = {
        name: value[0] / value[1] if isinstance(value, list) else value for name, value in expected.items()
    }
    assert {name: float(values[name][0]) for name in expected} == pytest.approx(wanted)
    for rule, left in document.get("edited", {}).items():
        assert remove_spans(text, find_edits(text, [rule])) == left, rule
