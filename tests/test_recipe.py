"""Recipes: every fault at once, each with its line and the nearest valid name; units, overrides, inputs."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.config import Bytes, Config, Count, Seconds
from bessemer.errors import ConfigError
from bessemer.located_yaml import parse_yaml
from bessemer.recipe import Recipe, load_recipe, parse_recipe
from bessemer.stages import STAGES, Need, Stage, stage_table


class Shape(Config):
    """A nested config."""

    depth: int = 4
    """Layers."""
    language: str = "en"
    """A text that YAML may take for something else."""


class DataConfig(Config):
    """Data."""

    source: str = "builtin"
    """Where from."""
    shapes: tuple[Shape, ...] = ()
    """A list of configs."""


class TrainConfig(Config):
    """Training."""

    tokens: Count = 1000
    """How many."""
    limit_s: Seconds = 60.0
    """How long."""
    memory_bytes: Bytes = 0
    """How much."""
    model: Shape = Shape()
    """What."""


def _never(config: Config, context: object) -> dict[str, float]:
    raise AssertionError("resolving a recipe runs nothing")


EVERY_MODEL = (Need("model", every=True), Need("pages", optional=True))
TABLE = stage_table(
    [
        Stage("collect", DataConfig, (), "pages", _never),
        Stage("tokens", DataConfig, (Need("pages"),), "tokens", _never),
        Stage("pretrain", TrainConfig, (Need("tokens"),), "model", _never),
        Stage("tune", TrainConfig, (Need("model"),), "model", _never),
        Stage("compare", DataConfig, EVERY_MODEL, "scores", _never),
    ]
)

GOOD = """\
name: demo
seed: 3
stages:
  - collect
  - tokens: {source: x}
  - pretrain:
      name: base
      tokens: 2M
      limit_s: 10m
      memory_bytes: 2GiB
      model:
        depth: 7
  - tune:
      name: first
  - tune:
      name: second
      from: base
  - compare
"""


def resolve(text: str, *overrides: str) -> Recipe:
    return parse_recipe(text, "demo.yaml", overrides, TABLE)


def faults(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        resolve(text, *overrides)
    heading, *lines = str(error.value).split("\n  ")
    assert heading.startswith(f"{len(lines)} fault")
    return lines


def test_units_become_plain_numbers_and_nested_values_are_read() -> None:
    config = resolve(GOOD).stages[2].config
    assert isinstance(config, TrainConfig)
    assert (config.tokens, config.limit_s, config.memory_bytes) == (2_000_000, 600.0, 2 * 2**30)
    assert config.model.depth == 7


def test_inputs_come_from_the_nearest_maker_unless_from_names_another() -> None:
    inputs = {plan.name: plan.inputs for plan in resolve(GOOD).stages}
    assert inputs["first"] == {"model": ("base",)}
    assert inputs["second"] == {"model": ("base",)}
    assert resolve(GOOD.replace("      from: base\n", "")).stages[4].inputs == {"model": ("first",)}


def test_a_stage_that_takes_every_artifact_gets_them_in_recipe_order() -> None:
    assert resolve(GOOD).stages[5].inputs == {"model": ("base", "first", "second"), "pages": ("collect",)}
    narrowed = resolve(GOOD.replace("- compare", "- compare: {from: [second, base]}"))
    assert narrowed.stages[5].inputs["model"] == ("base", "second")


def test_an_optional_input_may_be_absent() -> None:
    text = "stages: [{pretrain: {}}, compare]"
    table = {**TABLE, "pretrain": Stage("pretrain", TrainConfig, (), "model", _never)}
    assert parse_recipe(text, "x.yaml", (), table).stages[1].inputs == {"model": ("pretrain",)}


def test_the_resolved_recipe_loads_to_an_equal_one() -> None:
    recipe = resolve(GOOD)
    assert parse_recipe(recipe.to_yaml(), "again.yaml", (), TABLE) == recipe


def test_name_and_seed_have_defaults() -> None:
    recipe = parse_recipe("stages: [collect]", "recipes/my-run.yaml", (), TABLE)
    assert (recipe.name, recipe.seed) == ("my-run", 0)


def test_all_faults_come_at_once_in_order_of_lines_with_the_nearest_names() -> None:
    text = """\
nam: demo
seed: high
stages:
  - colect
  - collect:
      sorce: x
      shapes:
        - depth: 2
        - dept: 3
  - tokens:
      from: colect
  - pretrain:
      tokens: 2X
      model:
        depth: deep
        language: no
      model: {}
  - tune: {tokens: [1]}
  - tune
"""
    assert faults(text) == [
        "demo.yaml:1: unknown key 'nam'; did you mean 'name'?",
        "demo.yaml:2: the seed must be a whole number from 0, got 'high'",
        "demo.yaml:4: unknown stage kind 'colect'; did you mean 'collect'?",
        "demo.yaml:6: stage 'collect': unknown key 'sorce'; did you mean 'source'?",
        "demo.yaml:9: stage 'collect': unknown key 'shapes.1.dept'; did you mean 'depth'?",
        "demo.yaml:11: `from: colect` names no earlier stage; did you mean 'collect'?",
        "demo.yaml:13: stage 'pretrain': tokens: unknown unit 'X' in '2X'; known units: k, m, b, t",
        "demo.yaml:15: stage 'pretrain': model.depth: input should be a valid integer, "
        "unable to parse string as an integer, got 'deep'",
        "demo.yaml:16: stage 'pretrain': model.language: input should be a valid string, got False "
        "(YAML reads yes, no, on and off as true and false: put the word in quotes)",
        "demo.yaml:17: key 'model' is there twice (first at demo.yaml:14)",
        "demo.yaml:18: stage 'tune': tokens: input should be a valid integer, got [1]",
        "demo.yaml:19: two stages are called 'tune'; give one of them another `name:`",
    ]


def test_a_missing_input_is_named_with_the_kinds_that_make_it() -> None:
    assert faults("stages:\n  - collect\n  - tune\n") == [
        "demo.yaml:3: stage 'tune' needs 'model', which no earlier stage makes; "
        "put a stage of kind pretrain or tune before it"
    ]


@pytest.mark.parametrize(
    ("supplier", "message"),
    [
        ("compare", "`from: compare` names no earlier stage; it comes later"),
        ("tokens", "`from: tokens` makes 'tokens'; 'second' takes: model"),
        ("[base, first]", "stage 'second' takes one 'model' artifact, `from:` names ['base', 'first']"),
        ("3", "`from:` takes the name of an earlier stage, or a list of names"),
    ],
)
def test_a_wrong_supplier_is_refused(supplier: str, message: str) -> None:
    assert faults(GOOD.replace("from: base", f"from: {supplier}")) == [f"demo.yaml:17: {message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [collect", "demo.yaml:1:17: not valid YAML"),
        ("a: b: c", "demo.yaml:1:5: not valid YAML"),
        ("- collect", "demo.yaml:1: a recipe is a mapping"),
        ("", "demo.yaml:1: a recipe is a mapping"),
        ("name: x", "demo.yaml:1: a recipe needs `stages:`"),
        ("stages: [[collect]]", "a stage is written `- kind`"),
        ("stages: [{collect: {}, tokens: {}}]", "one kind an item"),
        ("stages: [{collect: 3}]", "options of 'collect' must be"),
        ("stages: [{collect: {name: Base One}}]", "stage name 'Base One' must be lower-case"),
        ("stages: [{collect: {1: x}}]", "key 1 is not text"),
        ("name: ../x\nstages: [collect]", "demo.yaml:1: the recipe's name '../x'"),
        ("stages: &a [*a]", "an alias that contains itself"),
    ],
)
def test_a_recipe_of_the_wrong_form_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(text)
    assert message in str(error.value)


def test_overrides_reach_keys_nested_keys_list_items_and_the_top() -> None:
    text = "stages: [{collect: {shapes: [{depth: 1}, {depth: 2}]}}, tokens, pretrain]"
    nested = ("pretrain.model.depth=9", "collect.shapes.1.depth=5")
    recipe = resolve(text, *nested, "seed=8", "name=other", "pretrain.tokens=3k")
    collect, _, pretrain = (plan.config for plan in recipe.stages)
    assert isinstance(collect, DataConfig)
    assert isinstance(pretrain, TrainConfig)
    assert [shape.depth for shape in collect.shapes] == [1, 5]
    assert (pretrain.model.depth, pretrain.tokens, recipe.seed, recipe.name) == (9, 3000, 8, "other")


def test_an_override_names_the_stage_not_its_kind_and_may_rewire_it() -> None:
    recipe = resolve(GOOD, "second.from=first", "second.model={depth: 2}")
    assert recipe.stages[4].inputs == {"model": ("first",)}
    assert recipe.stages[4].config == TrainConfig(model=Shape(depth=2))


class Limits(Config):
    """Bounds."""

    min: float | None = None
    """Least."""
    max: float | None = None
    """Greatest."""


class FilterConfig(Config):
    """A config with mappings whose keys are the user's."""

    rules: Mapping[str, bool | Limits] = {}
    """Rule to switch or bounds."""
    weights: Mapping[str, float] | None = None
    """Host to weight."""


def filters(options: str, *overrides: str) -> FilterConfig:
    table = stage_table([Stage("filter", FilterConfig, (), "documents", _never)])
    (plan,) = parse_recipe(f"stages: [{{filter: {options}}}]", "demo.yaml", overrides, table).stages
    assert isinstance(plan.config, FilterConfig)
    return plan.config


@pytest.mark.parametrize(
    ("options", "override", "expected"),
    [
        ("{}", "filter.rules.a.word_count.min=5", {"a.word_count": Limits(min=5)}),
        ("{rules: {a.b: {max: 9}}}", "filter.rules.a.b.min=5", {"a.b": Limits(min=5, max=9)}),
        ("{rules: {a.b: off}}", "filter.rules.a.b.min=5", {"a.b": Limits(min=5)}),
        ("{rules: {a.min: off}}", "filter.rules.a.min=on", {"a.min": True}),
        ("{rules: {a: {max: 9}}}", "filter.rules.a.b@c.max=8", {"a": Limits(max=9), "a.b@c": Limits(max=8)}),
        ("{}", "filter.rules.a.grams_*=off", {"a.grams_*": False}),
        ("{}", "filter.rules.a.b={min: 1}", {"a.b": Limits(min=1)}),
    ],
)
def test_an_override_reaches_a_key_that_holds_dots(options: str, override: str, expected: dict) -> None:
    assert filters(options, override).rules == expected


def test_a_mapping_to_plain_values_takes_all_steps_as_one_key() -> None:
    assert filters("{}", "filter.weights.docs.python.org=2").weights == {"docs.python.org": 2}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "filter.rules.a.b=of",
            "rules.a.b: input should be a valid boolean, unable to interpret input, got 'of'; "
            "a mapping of min, max is possible too",
        ),
        ("filter.rules.a.b={mn: 5}", "unknown key 'rules.a.b.mn'; did you mean 'min'?"),
        (
            "filter.rules.a.b.min=x",
            "rules.a.b.min: input should be a valid number, unable to parse string as a number, got 'x'",
        ),
    ],
)
def test_a_fault_in_a_union_is_told_once_without_the_names_of_its_members(
    override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        filters("{}", override)
    assert str(error.value).split("\n  ")[1:] == [f"--set {override}: stage 'filter': {message}"]


def test_wrong_overrides_are_refused_like_wrong_lines() -> None:
    keys = ["bse.tokens=1", "base.tokns=1", "base.model.dpth=1", "base.name=x", "base.tokens.x=1"]
    assert faults(GOOD, "base", "base=3", *keys) == [
        "--set base: write it as stage.key=value",
        "--set base=3: write it as base.key=value",
        "--set bse.tokens=1: no stage is called 'bse'; did you mean 'base'?",
        "--set base.name=x: a stage can be renamed only in the recipe file",
        "--set base.tokens.x=1: the recipe has '2M' there, which has no part 'x'",
        "--set base.model.dpth=1: stage 'base': unknown key 'model.dpth'; did you mean 'depth'?",
        "--set base.tokns=1: stage 'base': unknown key 'tokns'; did you mean 'tokens'?",
    ]


def test_a_fault_that_an_override_brings_is_placed_at_the_override() -> None:
    (fault,) = faults(GOOD, "base.model={depth: x}")
    assert fault.startswith("--set base.model={depth: x}: stage 'base': model.depth: ")


def test_a_missing_recipe_file_is_reported_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("stages: [collect]")
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        load_recipe(tmp_path / "quikstart.yaml", (), TABLE)
    with pytest.raises(ConfigError, match="not a recipe file"):
        load_recipe(tmp_path, (), TABLE)


@given(st.text(max_size=200))
def test_any_text_gives_a_value_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        assert () in parse_yaml(text, "any.yaml").places


def test_every_stage_of_the_table_has_suppliers_in_it_and_its_kind_as_key() -> None:
    made = {stage.makes for stage in STAGES.values()}
    for kind, stage in STAGES.items():
        assert stage.kind == kind
        assert {need.kind for need in stage.needs} <= made
