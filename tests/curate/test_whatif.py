"""What if: the predicted verdicts are those of a real run with the settings."""

import json
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from curate_helpers import html_page, prose, stage_context, write_pages

from bessemer.curate.config import CurateConfig
from bessemer.curate.freed import Freed, freed_duplicates
from bessemer.curate.replay import RecordedRule, recorded_rules, replay, with_settings
from bessemer.curate.stage import curate
from bessemer.curate.whatif import what_if
from bessemer.curate.whatif_text import format_what_if
from bessemer.errors import BessemerError, ConfigError
from bessemer.formats.ledger import scan_ledger

SETTINGS = ["gopher.word_count.min=200", "c4.curly_bracket.max=3", "fineweb.short_lines=on", "c4.sent*=off"]
AS_CONFIG = {
    "gopher.word_count": {"min": 200},
    "c4.curly_bracket": {"max": 3},
    "fineweb.short_lines": True,
    "c4.sent*": False,
}


def _pages(work: Path) -> None:
    pages = []
    for seed in range(60):
        paragraphs = prose(seed, 6 + seed % 40)
        if seed % 5 == 0:
            paragraphs[0] = "{ " * (seed // 5 % 5) + paragraphs[0]
        if seed % 7 == 0:
            paragraphs += ["Short line."] * 40
        pages.append((f"https://a{seed % 3}.org/{seed}", "text/html", html_page(f"Page {seed}", paragraphs)))
    pages.append(("https://a.org/copy", "text/html", html_page("Copy", prose(39, 45))))
    pages.append(
        ("https://a.org/copy2", "text/html", html_page("Copy", [*prose(39, 45), "One more line here."]))
    )
    pages.append(("https://a.org/image", "image/png", b"\x89PNG"))
    write_pages(work / "pages", pages)


def _curate(work: Path, out: str, rules: dict) -> Path:
    (work / out).mkdir()
    curate(
        CurateConfig.model_validate({"workers": 1, "rules": rules}), stage_context(work / "pages", work / out)
    )
    return work / out / "output"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    work = tmp_path_factory.mktemp("whatif")
    _pages(work)
    return _curate(work, "before", {}), _curate(work, "after", AS_CONFIG)


def _verdicts(folder: Path) -> dict[str, str | None]:
    rule = pl.when(pl.col("dropped_stage") == "rules").then(pl.col("dropped_rule"))
    return dict(scan_ledger(folder).select("id", rule).collect().rows())


def test_predicted_rule_verdicts_are_exactly_those_of_a_run_with_the_settings(runs: tuple[Path, Path]):
    before, after = runs
    changed, _ = with_settings(recorded_rules(before), SETTINGS)
    predicted = dict(replay(before, changed).select("id", "failed_rule").collect().rows())
    happened = _verdicts(after)
    assert predicted == happened
    assert _verdicts(before) != happened


def test_the_counts_are_those_of_the_two_runs_and_the_bounds_hold(runs: tuple[Path, Path]):
    before, after = runs
    answer = what_if(before, SETTINGS, None)
    kept = [
        set(scan_ledger(run).filter(pl.col("verdict") == "kept").collect()["id"]) for run in (before, after)
    ]
    assert answer["kept"]["before"] == len(kept[0])
    assert answer["kept"]["at_least"] <= len(kept[1]) <= answer["kept"]["at_most"]
    failing = {id for id, rule in _verdicts(after).items() if rule is not None}
    assert {row["id"] for row in answer["newly_dropped"]["listed"]} == kept[0] & failing
    passing = {id for id, rule in _verdicts(before).items() if rule is not None} - failing
    assert {row["id"] for row in answer["newly_passing"]["listed"]} == passing
    assert passing
    assert kept[0] & failing
    for name, counts in answer["dropped_by_rule"].items():
        assert counts["after"] == list(_verdicts(after).values()).count(name)
    assert answer["unexplained"] == 0


def test_settings_that_change_nothing_change_nothing(runs: tuple[Path, Path]):
    answer = what_if(runs[0], ["gopher.word_count.min=50"])
    assert answer["newly_passing"]["records"] == answer["newly_dropped"]["records"] == 0
    assert answer["kept"]["at_least"] == answer["kept"]["at_most"] == answer["kept"]["before"]


def test_the_answer_is_one_json_document_and_a_text(runs: tuple[Path, Path]):
    answer = what_if(runs[0], SETTINGS)
    assert json.loads(json.dumps(answer)) == answer
    text = format_what_if(answer)
    assert "gopher.word_count: min 50 max 100000 → min 200 max 100000" in text
    assert f"documents kept: {answer['kept']['before']:,} before" in text


def test_an_edit_rule_tells_that_its_verdicts_cannot_be_replayed(runs: tuple[Path, Path]):
    answer = what_if(runs[0], ["c4.policy_lines=off"])
    assert [edit["rule"] for edit in answer["edits"]] == ["c4.policy_lines"]
    assert "cannot be replayed" in format_what_if(answer)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("gopher.wordcount.min=5", "did you mean 'gopher.word_count'"),
        ("languages=en", r"known: bigscience\.\*, c4\.\*, fineweb.* are no rules"),
        ("gopher.word_count", "write it as RULE.max=12"),
        ("gopher.word_count=5", "expected on or off"),
        ("gopher.word_count.min=x", "expected a number, got 'x'"),
        ("gopher.word_count.max=nan", "expected a finite number"),
        ("gopher.word_count.max=1", "min 50 is above max 1"),
        ("c4.policy_lines.max=3", "has no bounds"),
    ],
)
def test_wrong_settings_are_refused_with_the_way_to_mend_them(
    runs: tuple[Path, Path], setting: str, message: str
):
    with pytest.raises(ConfigError, match=message):
        what_if(runs[0], [setting])


def test_a_pattern_leaves_rules_that_need_a_word_list_alone_as_in_a_recipe(runs: tuple[Path, Path]):
    _, named = with_settings(recorded_rules(runs[0]), ["c4.*=on"])
    assert named["c4.terminal_lines"].enabled
    assert not named["c4.bad_words"].enabled
    assert what_if(runs[0], ["c4.*=on"])["rules"]["c4.long_lines"]["after"]["enabled"]
    with pytest.raises(BessemerError, match=r"did not measure c4\.bad_words"):
        what_if(runs[0], ["c4.bad_words=on"])


def test_a_rule_that_was_not_measured_is_named(runs: tuple[Path, Path], tmp_path: Path):
    for path in runs[0].glob("ledger-*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["fineweb.short_lines"]), tmp_path / path.name)
    with pytest.raises(BessemerError, match=r"no values of fineweb\.short_lines"):
        what_if(tmp_path, ["fineweb.short_lines=on"])


def test_nan_and_null_break_no_bound_as_when_curating():
    values = pl.DataFrame({"x": [float("nan"), None, 0.1, 0.2]})
    assert values.select(fails=RecordedRule("x", max=0.1).fails())["fails"].to_list() == [
        False,
        False,
        False,
        True,
    ]


def test_variants_are_matched_only_by_patterns_that_name_them():
    rules = {name: RecordedRule(name, max=1) for name in ("a.b", "a.b@v")}
    assert list(with_settings(rules, ["a.*=off"])[1]) == ["a.b"]
    assert list(with_settings(rules, ["a.*@v=off"])[1]) == ["a.b@v"]


def _duplicate(id: str, rule: str, survivor: str, partner: str) -> dict[str, str]:
    return {
        "id": id,
        "dropped_rule": f"duplicates.{rule}",
        "duplicate_survivor": survivor,
        "duplicate_partner": partner,
    }


@pytest.mark.parametrize(
    ("members", "failing", "bounds"),
    [
        ([("b", "near", "a", "a")], {"a"}, Freed(1, 1, 1)),
        ([("b", "near", "a", "a"), ("c", "near", "a", "b")], {"a"}, Freed(1, 1, 1)),
        ([("b", "near", "a", "a"), ("c", "near", "a", "a")], {"a"}, Freed(1, 1, 2)),
        ([("b", "exact", "a", "a"), ("c", "exact", "a", "a")], {"a"}, Freed(1, 1, 1)),
        ([("b", "url", "a", "a")], {"a"}, Freed(1, 0, 1)),
        ([("b", "near", "a", "a"), ("c", "near", "a", "b")], {"b"}, Freed(1, 0, 1)),
        ([("b", "near", "a", "a")], {"a", "b"}, Freed(1, 0, 0)),
        ([("b", "near", "a", "a")], {"z"}, Freed(0, 0, 0)),
    ],
)
def test_what_a_cluster_frees_lies_between_its_recorded_links(members: list, failing: set, bounds: Freed):
    assert freed_duplicates([_duplicate(*member) for member in members], failing) == bounds


@pytest.mark.parametrize(
    ("members", "failing", "pairs", "bounds"),
    [
        # b and c were each most like a, but are duplicates of each other as well
        ([("b", "near", "a", "a"), ("c", "near", "a", "a")], {"a"}, [("b", "c")], Freed(1, 1, 1)),
        # a chain breaks where its middle goes
        ([("b", "near", "a", "a"), ("c", "near", "a", "b")], {"b"}, [("a", "b"), ("b", "c")], Freed(1, 0, 1)),
        ([("b", "near", "a", "a"), ("c", "near", "a", "b")], {"b"}, [("a", "c")], Freed(1, 0, 0)),
        # e is equal to a, which goes, and takes over its pairs
        ([("b", "near", "a", "a"), ("e", "exact", "a", "a")], {"a"}, [("a", "b")], Freed(1, 1, 1)),
        # of another cluster, which loses nobody
        ([("b", "near", "a", "a"), ("c", "near", "a", "a")], {"a"}, [("y", "z")], Freed(1, 1, 2)),
    ],
)
def test_all_confirmed_pairs_narrow_what_a_cluster_frees(
    members: list, failing: set, pairs: list, bounds: Freed
):
    assert freed_duplicates([_duplicate(*member) for member in members], failing, pairs) == bounds
