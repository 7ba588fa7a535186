"""Verdicts at the thresholds, settings from a recipe, and edits."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bessemer.curate.config import CurateConfig
from bessemer.curate.edits import find_edits, remove_spans
from bessemer.curate.rules import RULES, apply_settings, failed_rules
from bessemer.errors import ConfigError

BOUNDED = [rule for rule in RULES if rule.action == "drop"]


@pytest.mark.parametrize("rule", BOUNDED, ids=lambda rule: rule.name)
def test_a_value_on_the_threshold_passes_and_one_just_beyond_fails(rule: Any):
    for threshold, beyond in ((rule.min, -np.inf), (rule.max, np.inf)):
        if threshold is None:
            continue
        outside = float(np.nextafter(float(threshold), beyond))
        assert rule.fault(threshold) is None
        assert rule.fault(outside) == ("min" if beyond < 0 else "max", threshold)
        assert rule.fails(np.array([threshold, outside])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("num_words", "passes"), [(49, False), (50, True), (100_000, True), (100_001, False)]
)
def test_gopher_keeps_from_50_to_100_000_words(num_words: int, passes: bool):
    values = {rule.name: np.array([np.nan]) for rule in RULES}
    values["gopher.word_count"] = np.array([float(num_words)])
    assert (failed_rules(RULES, values) == [[]]) is passes


def test_failed_rules_are_listed_in_the_order_of_the_table_and_switched_off_ones_are_not():
    values = {rule.name: np.array([np.nan, np.nan]) for rule in RULES}
    values["gopher.word_count"] = np.array([1.0, 60.0])
    values["c4.curly_bracket"] = np.array([2.0, 0.0])
    failed = failed_rules(RULES, values)
    assert [[rule.name for rule in rules] for rules in failed] == [
        ["gopher.word_count", "c4.curly_bracket"],
        [],
    ]
    lenient = apply_settings({"c4.curly_bracket": False})
    assert [rule.name for rule in failed_rules(lenient, values)[0]] == ["gopher.word_count"]


def test_a_recipe_switches_rules_and_moves_single_bounds():
    config = CurateConfig.model_validate(
        {"rules": {"fineweb.*": "on", "c4.curly_bracket": False, "gopher.mean_word_length": {"max": 12}}}
    )
    rules = {rule.name: rule for rule in config.effective_rules()}
    assert rules["fineweb.short_lines"].enabled
    assert not rules["c4.curly_bracket"].enabled
    assert (rules["gopher.mean_word_length"].min, rules["gopher.mean_word_length"].max) == (3, 12)


def test_a_config_that_is_written_out_and_read_again_means_the_same():
    config = CurateConfig.model_validate({"rules": {"gopher.mean_word_length": {"max": 12}, "c4.*": "off"}})
    again = CurateConfig.model_validate_json(config.model_dump_json())
    assert again.effective_rules() == config.effective_rules()


def test_a_bound_of_null_is_taken_away_and_one_left_out_keeps_its_published_value():
    config = CurateConfig.model_validate({"rules": {"gopher.word_count": {"min": 20, "max": None}}})
    again = CurateConfig.model_validate_json(config.model_dump_json())
    for rules in (config.effective_rules(), again.effective_rules()):
        rule = next(rule for rule in rules if rule.name == "gopher.word_count")
        assert (rule.min, rule.max) == (20, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gopher.word_count": {"min": float("nan")}}, "finite number"),
        ({"gopher.word_count": {"max": float("inf")}}, "finite number"),
        ({"gopher.mean_word_lenght": "off"}, "nearest: 'gopher.mean_word_length'"),
        ({"c4.citation_marks": {"max": 3}}, "has no bounds"),
        ({"gopher.mean_word_length": {"min": 20}}, "min 20 is above max 10"),
    ],
)
def test_wrong_rule_settings_are_refused_with_the_way_to_mend_them(settings: dict, message: str):
    with pytest.raises((ConfigError, ValidationError), match=message):
        CurateConfig.model_validate({"rules": settings})


def test_edits_remove_exactly_the_lines_and_marks_that_c4_names():
    text = "Keep me.[12]\nPlease enable JavaScript now.\nWe use cookies.\nKeep[edit] me too.\n" + "x" * 1001
    rules = ("c4.javascript_lines", "c4.policy_lines", "c4.long_word_lines", "c4.citation_marks")
    edits = find_edits(text, rules)
    assert {edit.rule for edit in edits} == set(rules)
    assert remove_spans(text, edits) == "Keep me.\nKeep me too.\n"


def test_overlapping_spans_are_removed_once():
    text = "see [1] our privacy policy and JavaScript\nrest"
    rules = ("c4.javascript_lines", "c4.policy_lines", "c4.citation_marks")
    assert remove_spans(text, find_edits(text, rules)) == "rest"
