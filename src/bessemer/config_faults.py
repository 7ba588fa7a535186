"""Pydantic's validation errors in the words of a recipe: the path of each fault and how to mend it."""

import difflib
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]


def describe_faults(
    error: ValidationError, model: type[BaseModel], extra_keys: Iterable[str] = ()
) -> list[tuple[Path, str]]:
    """(path, message) of every fault. `extra_keys` are valid at the top beside the model's fields."""
    faults: dict[tuple[Path, str], None] = {}  # members of a union repeat each other's faults
    for detail in error.errors(include_url=False):
        path = detail["loc"]
        name = ".".join(str(step) for step in path)
        if detail["type"] == "extra_forbidden":
            known = fields_at(model, path[:-1]) + (list(extra_keys) if len(path) == 1 else [])
            close = difflib.get_close_matches(str(path[-1]), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
            message = f"unknown key {name!r}; {hint}"
        elif detail["type"] == "missing":
            message = f"key {name!r} is required"
        else:
            message = _about_value(name, detail["msg"], detail["input"])
        faults[(path, message)] = None
    return list(faults)


def fields_at(model: type[BaseModel], path: Path) -> list[str]:
    """Names of the fields that a mapping at `path` inside a `model` may have."""
    models = [model]
    for step in path:
        annotations = [
            field.annotation
            for candidate in models
            for name, field in candidate.model_fields.items()
            if step in (name, field.alias)
        ]
        # An index, a key of a free mapping, or the tag of a union member: still the same models.
        models = [found for annotation in annotations for found in _models_in(annotation)] or models
    return [field.alias or name for candidate in models for name, field in candidate.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _about_value(name: str, reason: str, value: Any) -> str:
    reason = reason.removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    shown = repr(value)
    if isinstance(value, dict) or len(shown) > 60:
        shown = ""
    message = f"{name}: {reason}" if name else reason
    if shown and shown not in reason:
        message += f", got {shown}"
    if isinstance(value, bool) and "string" in reason:
        message += " (YAML reads yes, no, on and off as true and false: put the word in quotes)"
    return message
