"""Pydantic's validation errors in the words of a recipe: the path of each fault and how to mend it."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from bessemer.config_paths import Path, models_in, without_tags

_NOT_A_MAPPING = frozenset({"model_type", "model_attributes_type", "dict_type"})


def describe_faults(
    error: ValidationError, model: type[BaseModel], extra_keys: Iterable[str] = ()
) -> list[tuple[Path, str]]:
    """(path, message) of every fault. `extra_keys` are valid at the top beside the model's fields."""
    faults: dict[tuple[Path, str], None] = {}  # members of a union repeat each other's faults
    relevant, unions = _relevant(error, model)
    for path, detail in relevant:
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
            if path in unions:
                message += f"; a mapping of {', '.join(fields_at(model, path))} is possible too"
        faults[(path, message)] = None
    return list(faults)


def messages(error: ValidationError) -> list[str]:
    """What a config's own checks said, without pydantic's words."""
    return [_plain(fault["msg"]) for fault in error.errors()]


def _plain(reason: str) -> str:
    return reason.removeprefix("Value error, ")


def _relevant(
    error: ValidationError, model: type[BaseModel]
) -> tuple[list[tuple[Path, Mapping[str, Any]]], set[Path]]:
    """(path in the recipe, error), without what union members say that the user cannot have meant.

    Every member of `bool | Bounds` complains of a wrong value. Where the user wrote a mapping only the
    models' complaints count, else only those of the others. Second, the paths where a mapping had been
    possible.
    """
    located = [(*without_tags(model, detail["loc"]), detail) for detail in error.errors(include_url=False)]
    met_mapping = {
        union for _, union, detail in located if union is not None and detail["type"] not in _NOT_A_MAPPING
    }
    unions = {union for _, union, _ in located if union is not None}
    relevant = []
    for path, union, detail in located:
        if union is not None and union not in met_mapping and _has_other_fault(located, union):
            continue
        if union is None and path in unions and path in met_mapping:
            continue
        relevant.append((path, detail))
    return relevant, unions - met_mapping


def _has_other_fault(located: Iterable[tuple[Path, Path | None, Any]], union: Path) -> bool:
    return any(path == union and other is None for path, other, _ in located)


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
        models = [found for annotation in annotations for found in models_in(annotation)] or models
    return [field.alias or name for candidate in models for name, field in candidate.model_fields.items()]


def _about_value(name: str, reason: str, value: Any) -> str:
    reason = _plain(reason)
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
