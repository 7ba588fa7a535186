"""A recipe file → an ordered list of validated stage configs with their inputs.

    name: quickstart
    seed: 1
    stages:
      - collect: {source: builtin}
      - tokens                      # a bare kind: all defaults
      - pretrain:
          name: base                # default: the kind; unique
          from: tokens              # default: the nearest earlier stage that makes what is needed
          tokens: 2M

Every fault is reported at once, with its line and, for a name that is not known, the nearest one.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bessemer.config import Config
from bessemer.config_faults import describe_faults
from bessemer.config_paths import dotted_way
from bessemer.errors import ConfigError
from bessemer.located_yaml import Located, parse_yaml, parse_yaml_value
from bessemer.stages import STAGES, Maker, Need, Stage

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_TOP_KEYS = ("name", "seed", "stages")
_OWN_KEYS = ("name", "from")
"""Keys of a stage that belong to the recipe, not to the stage's config."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of a resolved recipe."""

    name: str
    stage: Stage
    config: Config
    inputs: Mapping[str, tuple[str, ...]]
    """Artifact kind → names of the earlier stages that supply it, in recipe order."""

    @property
    def kind(self) -> str:
        return self.stage.kind


@dataclass(frozen=True)
class Recipe:
    """A recipe whose every name and value has been checked."""

    name: str
    seed: int
    stages: tuple[StagePlan, ...]

    def remarks(self) -> list[str]:
        """What is allowed and yet perhaps not meant; see `Config.remarks`."""
        return [f"stage {plan.name!r}: {remark}" for plan in self.stages for remark in plan.config.remarks()]

    def to_yaml(self) -> str:
        """The resolved recipe, with every default and input written out; it loads to an equal recipe."""
        stages = []
        for plan in self.stages:
            suppliers = sorted(
                {name for names in plan.inputs.values() for name in names},
                key=[earlier.name for earlier in self.stages].index,
            )
            options: dict[str, Any] = {"name": plan.name}
            if suppliers:
                options["from"] = suppliers
            stages.append({plan.kind: options | plan.config.model_dump(mode="json")})
        document = {"name": self.name, "seed": self.seed, "stages": stages}
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def load_recipe(path: Path, overrides: Sequence[str] = (), table: Mapping[str, Stage] = STAGES) -> Recipe:
    """Read and resolve a recipe file. Raises ConfigError that lists every fault.

    `overrides` are `stage.key[.sub]=value`, `name=value` or `seed=value`, with values in YAML. A key may
    hold dots where the config has a free mapping: `curate.rules.gopher.word_count.min=5`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no recipe file {path}{_recipes_beside(path)}") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a recipe file (a YAML text): {error}") from error
    return parse_recipe(text, str(path), overrides, table)


def parse_recipe(
    text: str, file: str, overrides: Sequence[str] = (), table: Mapping[str, Stage] = STAGES
) -> Recipe:
    """Resolve the text of a recipe; `file` is what messages call it. Raises ConfigError."""
    located = parse_yaml(text, file)
    if not isinstance(located.value, dict):
        raise ConfigError(f"{file}:1: a recipe is a mapping with the keys {', '.join(_TOP_KEYS)}")
    reading = _Reading(located, table, list(located.faults))
    reading.check_top_keys()
    reading.find_entries()
    for override in overrides:
        reading.apply(override)
    name, seed = reading.run_name(Path(file).stem), reading.seed()
    plans = [plan for entry in reading.entries if (plan := reading.plan(entry)) is not None]
    reading.check_together(plans)
    if reading.faults:
        count = len(reading.faults)
        heading = f"{count} fault{'s' * (count > 1)} in the recipe:"
        raise ConfigError("\n  ".join([heading, *sorted(reading.faults, key=_line_of)]))
    return Recipe(name, seed, tuple(plans))


@dataclass(frozen=True)
class _Entry:
    """One item under `stages:` whose kind is known."""

    index: int
    stage: Stage
    name: str

    @property
    def path(self) -> tuple[str | int, ...]:
        return ("stages", self.index, self.stage.kind)


@dataclass
class _Reading:
    """A recipe that is being checked; methods add to `faults` instead of raising."""

    located: Located
    table: Mapping[str, Stage]
    faults: list[str]
    entries: list[_Entry] = field(default_factory=list)

    def fault(self, path: Sequence[str | int], message: str) -> None:
        self.faults.append(f"{self.located.place(path)}: {message}")

    def check_top_keys(self) -> None:
        for key in self.located.value:
            if key not in _TOP_KEYS:
                self.fault((key,), f"unknown key {key!r}{nearest(key, _TOP_KEYS)}")

    def find_entries(self) -> None:
        """Bring every item to the form `{kind: options}` and settle the stages' names."""
        items = self.located.value.get("stages")
        if not isinstance(items, list) or not items:
            self.fault(("stages",), "a recipe needs `stages:`, a list of at least one stage")
            return
        for index, item in enumerate(items):
            path = ("stages", index)
            if isinstance(item, str):
                item = items[index] = dict[str, Any]({item: None})
            if not isinstance(item, dict) or len(item) != 1:
                self.fault(path, "a stage is written `- kind` or `- kind: {options}`, one kind an item")
                continue
            (kind,) = item
            if kind not in self.table:
                self.fault((*path, kind), f"unknown stage kind {kind!r}{nearest(kind, self.table)}")
                continue
            if item[kind] is None:
                item[kind] = {}
            if not isinstance(item[kind], dict):
                self.fault((*path, kind), f"the options of {kind!r} must be `key: value` lines")
                continue
            self.entries.append(_Entry(index, self.table[kind], self._stage_name(path, kind, item[kind])))

    def _stage_name(self, path: tuple[str | int, ...], kind: str, options: dict[str, Any]) -> str:
        name = options.get("name", kind)
        place = (*path, kind, "name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self.fault(place, f"stage name {name!r} must be lower-case letters, digits, '_' and '-'")
        elif any(entry.name == name for entry in self.entries):
            self.fault(place, f"two stages are called {name!r}; give one of them another `name:`")
        return str(name)

    def apply(self, override: str) -> None:
        """Apply one `--set`."""
        place = f"--set {override}"
        way, equals, text = override.partition("=")
        steps = tuple(step.strip() for step in way.split("."))
        if not equals or not all(steps):
            self.faults.append(f"{place}: write it as stage.key=value")
            return
        try:
            value = parse_yaml_value(text)
        except ConfigError as error:
            self.faults.append(f"{place}: {error}")
            return
        if steps in (("name",), ("seed",)):
            self.located.put(steps, value, place)
            return
        names = [entry.name for entry in self.entries]
        if steps[0] not in names:
            hint = nearest(steps[0], [*names, "name", "seed"])
            self.faults.append(f"{place}: no stage is called {steps[0]!r}{hint}")
        elif len(steps) == 1:
            self.faults.append(f"{place}: write it as {steps[0]}.key=value")
        elif steps[1:] == ("name",):
            self.faults.append(f"{place}: a stage can be renamed only in the recipe file")
        else:
            try:
                self._put(self.entries[names.index(steps[0])], steps[1:], value, place)
            except LookupError as error:
                self.faults.append(f"{place}: {error.args[0]}")

    def _put(self, entry: _Entry, steps: tuple[str, ...], value: Any, place: str) -> None:
        """Put an override's value where its steps lead in the options of a stage."""
        options = self.located.value["stages"][entry.index][entry.stage.kind]
        way = dotted_way(entry.stage.config_type(), options, steps)
        holder = options
        for step in way[:-1]:
            holder = holder.get(step) if isinstance(holder, dict) else None
        if isinstance(holder, bool):
            # `rules.NAME.min=5` over `NAME: off`: the switch gives way to the mapping.
            self.located.put((*entry.path, *way[:-1]), {}, place)
        self.located.put((*entry.path, *way), value, place)

    def run_name(self, default: str) -> str:
        name = self.located.value.get("name", default)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            message = f"the recipe's name {name!r} must be lower-case letters, digits, '_' and '-'"
            self.fault(("name",), message)
        return str(name)

    def seed(self) -> int:
        seed = self.located.value.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            self.fault(("seed",), f"the seed must be a whole number from 0, got {seed!r}")
            return 0
        return seed

    def plan(self, entry: _Entry) -> StagePlan | None:
        """Validate one stage's config and find its inputs."""
        options = self.located.value["stages"][entry.index][entry.stage.kind]
        inputs = self._inputs(entry, options.get("from"))
        config_type = entry.stage.config_type()
        values = {key: value for key, value in options.items() if key not in _OWN_KEYS}
        try:
            config = config_type.model_validate(values)
        except ValidationError as error:
            for path, message in describe_faults(error, config_type, extra_keys=_OWN_KEYS):
                self.fault((*entry.path, *path), f"stage {entry.name!r}: {message}")
            return None
        return StagePlan(entry.name, entry.stage, config, inputs)

    def check_together(self, plans: Sequence[StagePlan]) -> None:
        """Find what only shows when a stage's config is seen beside those of the stages before it."""
        makers: dict[str, Maker] = {}
        paths = {entry.name: entry.path for entry in self.entries}
        for plan in plans:
            if any(name not in makers for names in plan.inputs.values() for name in names):
                continue  # one of them has a fault of its own
            inputs = {kind: [makers[name] for name in names] for kind, names in plan.inputs.items()}
            makers[plan.name] = Maker(plan.name, plan.kind, plan.config, inputs)
            for fault in plan.stage.faults_with(plan.config, inputs):
                self.fault(paths[plan.name], f"stage {plan.name!r}: {fault}")

    def _inputs(self, entry: _Entry, wanted: Any) -> dict[str, tuple[str, ...]]:
        earlier = self.entries[: self.entries.index(entry)]
        named = self._named_suppliers(entry, wanted, earlier)
        inputs = {}
        for need in entry.stage.needs:
            chosen = [supplier.name for supplier in named if supplier.stage.makes == need.kind]
            makers = [supplier.name for supplier in earlier if supplier.stage.makes == need.kind]
            if len(chosen) > 1 and not need.every:
                message = f"stage {entry.name!r} takes one {need.kind!r} artifact, `from:` names {chosen}"
                self.fault((*entry.path, "from"), message)
            suppliers = chosen or (makers if need.every else makers[-1:])
            if suppliers:
                inputs[need.kind] = tuple(suppliers)
            elif not need.optional and self._knows_all_before(entry):
                self.fault(entry.path, self._missing(entry, need))
        return inputs

    def _named_suppliers(self, entry: _Entry, wanted: Any, earlier: list[_Entry]) -> list[_Entry]:
        """The earlier stages that `from:` names, in recipe order."""
        if wanted is None:
            return []
        path = (*entry.path, "from")
        names = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self.fault(path, "`from:` takes the name of an earlier stage, or a list of names")
            return []
        kinds = [need.kind for need in entry.stage.needs]
        for name in names:
            supplier = next((stage for stage in earlier if stage.name == name), None)
            if supplier is None:
                later = any(stage.name == name for stage in self.entries)
                hint = "; it comes later" if later else nearest(name, [stage.name for stage in earlier])
                self.fault(path, f"`from: {name}` names no earlier stage{hint}")
            elif supplier.stage.makes not in kinds:
                made, needed = supplier.stage.makes, ", ".join(kinds) or "nothing"
                self.fault(path, f"`from: {name}` makes {made!r}; {entry.name!r} takes: {needed}")
        return [stage for stage in earlier if stage.name in names]

    def _knows_all_before(self, entry: _Entry) -> bool:
        """False when an earlier item has a fault of its own: it may be the supplier that is missed."""
        return self.entries.index(entry) == entry.index

    def _missing(self, entry: _Entry, need: Need) -> str:
        makers = [stage.kind for stage in self.table.values() if stage.makes == need.kind]
        return (
            f"stage {entry.name!r} needs {need.kind!r}, which no earlier stage makes; "
            f"put a stage of kind {' or '.join(makers) or '(none is known)'} before it"
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all of them."""
    known = list(dict.fromkeys(known))
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known) or 'none'}"


def _line_of(fault: str) -> tuple[bool, int]:
    """Sort key of a fault: by line of the recipe, then what `--set` brought."""
    line = re.match(r"(?!--set).*?:(\d+)(?::\d+)?: ", fault)
    return (line is None, int(line[1]) if line else 0)


def _recipes_beside(path: Path) -> str:
    names = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    return nearest(path.stem, names) if names else ""
