"""YAML as plain values, with the place (file:line) of every key, so that a fault can name its line.

A `Path` is the way to a value from the root: `("stages", 2, "pretrain", "tokens")`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from bessemer.errors import ConfigError

Path = tuple[str | int, ...]


@dataclass
class Located:
    """A value read from YAML, the place of each of its parts, and the faults found on the way."""

    value: Any
    places: dict[Path, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def place(self, path: Sequence[str | int]) -> str:
        """Place of the deepest known part on the way to `path`.

        Unknown steps are skipped, since pydantic puts names of union members and of missing fields
        into the paths of its errors.
        """
        known: Path = ()
        for step in path:
            if (*known, step) in self.places:
                known = (*known, step)
        return self.places[known]

    def put(self, path: Path, value: Any, place: str) -> None:
        """Replace the value at `path` (missing mappings on the way are made), at a place of its own.

        A step of digits counts into a list. Raises LookupError with a reason when the way leads
        through something that has no such part.
        """
        parent, way = self.value, ()
        for step in path[:-1]:
            way = (*way, _part_of(parent, step))
            if isinstance(parent, dict) and parent.get(step) is None:
                parent[step] = {}
                self.places[way] = place
            parent = parent[way[-1]]
        way = (*way, _part_of(parent, path[-1]))
        parent[way[-1]] = value
        for old in [known for known in self.places if known[: len(way)] == way]:
            del self.places[old]
        self.places[way] = place


def _part_of(parent: Any, step: str | int) -> str | int:
    """The key or index that `step` means in `parent`. Raises LookupError when it has no such part."""
    if isinstance(parent, dict):
        return step
    if isinstance(parent, list) and str(step).isdigit() and int(step) < len(parent):
        return int(step)
    raise LookupError(f"the recipe has {parent!r} there, which has no part {step!r}")


def parse_yaml(text: str, name: str) -> Located:
    """Parse one YAML document. `name` is what places call the file.

    Duplicate keys and keys that are not text become `faults`. Raises ConfigError on a syntax error.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        located = Located(None, {(): f"{name}:1"})
        if root is not None:
            located.value = _convert(root, (), located, loader, name, ())
        return located
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        detail = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{place}: not valid YAML: {detail}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: not valid YAML: character {error.character:#x}") from error
    except ValueError as error:  # a timestamp such as 2024-13-99 looks like a date but is none
        raise ConfigError(f"{name}: not valid YAML: {error}") from error


def parse_yaml_value(text: str) -> Any:
    """The value of one YAML expression such as `3`, `[a, b]` or `{depth: 4}`. Raises ConfigError."""
    located = parse_yaml(text, "value")
    if located.faults:
        raise ConfigError("; ".join(located.faults))
    return located.value


def _convert(
    node: yaml.Node,
    path: Path,
    located: Located,
    loader: yaml.SafeLoader,
    name: str,
    ancestors: tuple[yaml.Node, ...],
) -> Any:
    place = f"{name}:{node.start_mark.line + 1}"
    located.places.setdefault(path, place)
    if any(node is ancestor for ancestor in ancestors):
        located.faults.append(f"{place}: an alias that contains itself")
        return None
    inner = (*ancestors, node)
    if isinstance(node, yaml.SequenceNode):
        return [
            _convert(item, (*path, index), located, loader, name, inner)
            for index, item in enumerate(node.value)
        ]
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key_place = f"{name}:{key_node.start_mark.line + 1}"
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                located.faults.append(f"{key_place}: key {key!r} is not text; put it in quotes")
                continue
            if key in values:
                first = located.places[(*path, key)]
                located.faults.append(f"{key_place}: key {key!r} is there twice (first at {first})")
                continue
            located.places[(*path, key)] = key_place
            values[key] = _convert(value_node, (*path, key), located, loader, name, inner)
        return values
    return loader.construct_object(node, deep=True)
