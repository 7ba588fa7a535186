"""Ways through a config's types: which step of a path is a field, a key of a free mapping, or a union's tag.

A free mapping is a field such as `Mapping[str, bool | Bounds]`: its keys are the user's, and may hold dots.
"""

import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any

from pydantic import BaseModel

Path = tuple[str | int, ...]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type names, at any depth: `Mapping[str, bool | Bounds]` → Bounds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)


def dotted_way(model: type[BaseModel], values: Any, steps: Sequence[str]) -> Path:
    """The path that the steps of `a.b.c` mean where keys may hold dots themselves.

    `values` are those that the recipe has so far. Inside a free mapping the longest run of steps that is
    a key there is one; else all steps but a last one that is a field of the mapping's models. So
    `rules.gopher.word_count.min` means `("rules", "gopher.word_count", "min")`.
    """
    annotation: Any = model
    way: list[str | int] = []
    rest = list(steps)
    while rest:
        if isinstance(values, Mapping) and _is_free_mapping(annotation):
            num_taken = _steps_of_key(annotation, values, rest)
        else:
            num_taken = 1
        step = ".".join(rest[:num_taken])
        annotation = _inside(annotation, step)
        values = values.get(step) if isinstance(values, Mapping) else None
        if values is None and _is_free_mapping(annotation):
            values = {}
        way.append(step)
        rest = rest[num_taken:]
    return tuple(way)


def without_tags(model: type[BaseModel], path: Path) -> tuple[Path, Path | None]:
    """The path of one of pydantic's errors without the names of union members that it puts in.

    Second, the path of the first union on the way whose member is a model, None where there is none: an
    error of this union's models.
    """
    annotation: Any = model
    plain: list[str | int] = []
    union: Path | None = None
    for step in path:
        members = _union_members(annotation)
        if len(members) > 1:
            annotation = _member(members, str(step))
            if union is None and annotation is not None and any(models_in(annotation)):
                union = tuple(plain)
            continue
        plain.append(step)
        annotation = _inside(annotation, step)
    return tuple(plain), union


def _steps_of_key(annotation: Any, values: Mapping[str, Any], steps: Sequence[str]) -> int:
    (value_type,) = typing.get_args(_bare(annotation))[1:]
    fields = [name for each in models_in(value_type) for name in each.model_fields]
    for num_taken in range(len(steps), 0, -1):
        if ".".join(steps[:num_taken]) in values and _may_follow(steps[num_taken:], fields):
            return num_taken
    return len(steps) - 1 if len(steps) > 1 and steps[-1] in fields else len(steps)


def _may_follow(rest: Sequence[str], fields: Sequence[str]) -> bool:
    """Whether steps after a key lead into its value: nothing, or a field, be it misspelt."""
    return (
        not rest or not fields or (len(rest) == 1 and bool(difflib.get_close_matches(rest[0], fields, n=1)))
    )


def _is_free_mapping(annotation: Any) -> bool:
    origin = typing.get_origin(_bare(annotation))
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _inside(annotation: Any, step: str | int) -> Any:
    """The type of the part of a value that `step` names; None where nothing is known of it."""
    for member in _union_members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            for name, field in member.model_fields.items():
                if step in (name, field.alias):
                    return field.annotation
        elif typing.get_origin(member) is not None:
            arguments = [argument for argument in typing.get_args(member) if argument is not Ellipsis]
            return arguments[-1] if arguments else None
    return None


def _bare(annotation: Any) -> Any:
    """A type without `Annotated`, and without None where only one other member is left."""
    members = _union_members(annotation)
    return members[0] if len(members) == 1 else annotation


def _union_members(annotation: Any) -> list[Any]:
    """The members of a union but None; a list of the type itself when it is no union."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _union_members(typing.get_args(annotation)[0])
    if origin in (typing.Union, UnionType):
        members = [member for member in typing.get_args(annotation) if member is not NoneType]
        return _union_members(members[0]) if len(members) == 1 else members
    return [annotation]


def _member(members: Sequence[Any], tag: str) -> Any:
    """The member that a tag such as `function-after[check(), Bounds]` names; None for a plain one."""
    for member in members:
        if any(re.search(rf"\b{re.escape(each.__name__)}\b", tag) for each in models_in(member)):
            return member
    return None
