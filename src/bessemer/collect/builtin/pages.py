"""pydoc's pages in clean HTML: headings, one entry for each function, docstrings line for line.

pydoc's own HTML is nested tables and non-breaking spaces. Here the same content is marked up by what
it means, so that text extraction keeps signatures and docstrings in order. Three things are left out
because they would differ between machines or repeat on every page: file paths and memory addresses,
values that belong to the running process, and the documentation of inherited members (their names
are listed).
"""

import html
import inspect
import os
import pydoc
import re
import sys
import types
from collections.abc import Mapping
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_MAX_VALUE_CHARS = 200
_BOILERPLATE = frozenset(
    (
        "__abstractmethods__",
        "__annotations__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__hash__",
        "__match_args__",
        "__orig_bases__",
        "__parameters__",
        "__protocol_attrs__",
        "__weakref__",
    )
)
"""Attributes that every class of a kind has and no reader looks up."""
_COMMON_PREFIXES = frozenset({"/", "/usr", "/usr/local", "/opt", "/root", "/home"})


def page(name: str, body: str) -> str:
    """A whole page; `name` is its title and heading."""
    title = html.escape(name)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'</head>\n<body>\n<nav><a href="/index.html">Index</a></nav>\n'
        f"<main>\n<article>\n<h1>{title}</h1>\n{body}</article>\n</main>\n</body>\n</html>\n"
    )


def text_block(text: str) -> str:
    """Text whose lines stay as they are."""
    text = text.strip("\n").rstrip()
    return f"<pre>{html.escape(text.expandtabs(), quote=False)}</pre>\n" if text else ""


def link_list(summaries: Mapping[str, str]) -> str:
    """A list of links to reference pages by name, each with its line of summary where there is one."""
    items = []
    for name, summary in summaries.items():
        text = f": {html.escape(summary, quote=False)}" if summary else ""
        items.append(
            f'<li><a href="/reference/{html.escape(name)}.html">{html.escape(name)}</a>{text}</li>\n'
        )
    return f"<ul>\n{''.join(items)}</ul>\n"


def section(heading: str, body: str, level: int = 2) -> str:
    """A part of a page under a heading; empty when there is nothing in it."""
    heading = html.escape(heading, quote=False)
    return f"<section>\n<h{level}>{heading}</h{level}>\n{body}</section>\n" if body else ""


def entry(head: str, doc: str) -> str:
    """One documented name: its signature, then its docstring.

    The line break keeps entries apart in extracted text, where neighbouring lists run together.
    """
    body = f"<dd>{text_block(doc)}</dd>\n" if doc else ""
    return f"<dl>\n<dt><code>{html.escape(head, quote=False)}</code></dt>\n{body}</dl>\n<br>\n"


class PageDoc:
    """Documents any object as a fragment of HTML. Fragments go through `scrub` before they are used."""

    def __init__(self) -> None:
        self._machine_paths = _machine_paths()

    def scrub(self, fragment: str) -> str:
        """Without memory addresses and without this machine's folders."""
        fragment = _ADDRESS.sub("", fragment)
        for path in self._machine_paths:
            fragment = fragment.replace(html.escape(path), "").replace(path, "")
        return fragment

    def module(self, module: Any) -> str:
        """A module: its docstring, classes, functions and data, each in a section."""
        members = public_members(module)
        classes = [value for value in members.items() if inspect.isclass(value[1])]
        functions = [value for value in members.items() if is_function(value[1])]
        parts = [
            text_block(docstring_of(module)),
            section("Classes", "".join(self.class_(value, key) for key, value in classes)),
            section("Functions", "".join(self.routine(value, key) for key, value in functions)),
            section("Data", self._data(module)),
        ]
        return "".join(parts)

    def class_(self, cls: type, name: str | None = None) -> str:
        """A class: its signature and docstring, then the members that it defines itself."""
        name = name or cls.__name__
        bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
        alias = f"{name} = " if name != cls.__name__ else ""
        parts = [entry(name + (signature_of(cls) or "()"), docstring_of(cls))]
        own = own_members(cls)
        by_kind = {
            "Methods": ("method", "class method", "static method"),
            "Properties": ("readonly property", "data descriptor"),
        }
        for heading, kinds in by_kind.items():
            entries = [self.member(value, key) for key, kind, value in own if kind in kinds]
            parts.append(section(heading, "".join(entries), level=4))
        inherited = _inherited_names(cls)
        for base, names in inherited.items():
            parts.append(f"<p>Inherited from {html.escape(base)}: {html.escape(', '.join(names))}.</p>\n")
        return section(f"{alias}class {cls.__name__}({bases})", "".join(parts), level=3)

    def routine(self, value: Any, name: str) -> str:
        """A function or method: its signature and docstring."""
        prefix = "async " if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value) else ""
        doc = docstring_of(value)
        signature = signature_of(value)
        first, _, rest = doc.partition("\n")
        if first.startswith(f"{name}("):  # extension modules write the signature into the docstring
            doc = rest.lstrip("\n")
            if signature is None:
                return entry(first, doc)
        return entry(f"{prefix}{name}{signature or '(...)'}", doc)

    def member(self, value: Any, name: str) -> str:
        """A function, a member of a class, or a property, by what it is."""
        if isinstance(value, (classmethod, staticmethod)):
            value = value.__func__
        return self.routine(value, name) if is_function(value) else entry(name, docstring_of(value))

    def _data(self, module: Any) -> str:
        exported = getattr(module, "__all__", None)
        lines = []
        for name, value in inspect.getmembers(module, pydoc.isdata):
            if pydoc.visiblename(name, exported, module) and not name.startswith("__"):
                text = self._value_text(value)
                if text is not None:
                    lines.append(f"{name} = {text}")
        return text_block("\n".join(lines))

    def _value_text(self, value: Any) -> str | None:
        """Constants only: a mutable value or a path belongs to this process or machine."""
        if type(value) not in (int, float, complex, bool, str, bytes, type(None)):
            return None
        text = repr(value)
        is_path = isinstance(value, str) and (os.path.isabs(value) or self.scrub(value) != value)
        return None if is_path or len(text) > _MAX_VALUE_CHARS else text


def docstring_of(value: Any) -> str:
    """The docstring with its indentation taken off; a class's own, a method's own or inherited.

    pydoc falls back to comments in the source; that takes ten times as long and seldom helps.
    """
    if inspect.isclass(value):
        own = vars(value).get("__doc__")
        return inspect.cleandoc(own) if isinstance(own, str) else ""
    return inspect.getdoc(value) or ""


def public_members(module: Any) -> dict[str, Any]:
    """Classes and functions that a module exports, sorted by name.

    That is what `__all__` says; without it, what the module or one of its own submodules defines.
    """
    exported = getattr(module, "__all__", None)
    # A standard module `bisect` may be written in C as `_bisect`.
    own = (module.__name__, f"_{module.__name__}", None)
    members = {}
    for name in sorted(set(exported if exported is not None else vars(module))):
        value = getattr(module, name, None)
        if not (inspect.isclass(value) or is_function(value)):
            continue
        origin = getattr(value, "__module__", None)
        is_own = origin in own or str(origin).startswith(f"{module.__name__}.")
        if (is_own or exported is not None) and pydoc.visiblename(name, exported, module):
            members[name] = value
    return members


def is_function(value: Any) -> bool:
    """A routine, or a callable object that stands for one, such as a numpy ufunc."""
    if inspect.isclass(value) or inspect.ismodule(value):
        return False
    return inspect.isroutine(value) or (
        callable(value)
        and isinstance(getattr(value, "__name__", None), str)
        and isinstance(value.__doc__, str)
    )


def own_members(cls: type) -> list[tuple[str, str, Any]]:
    """(name, kind, value) of what a class defines itself and readers look up, by name.

    What a base in a private module of the same package defines counts too (torch.Tensor has its
    methods from torch._C): readers know it by this class only.
    """
    package = cls.__module__.partition(".")[0]
    owners = {cls, *(base for base in cls.__bases__ if base.__module__.startswith(f"{package}._"))}
    return [
        (attribute.name, attribute.kind, attribute.object)
        for attribute in inspect.classify_class_attrs(cls)
        if attribute.defining_class in owners
        and attribute.name not in _BOILERPLATE
        and pydoc.visiblename(attribute.name, obj=cls)
        # Slot wrappers document the language (`Return repr(self).`), not the class.
        and not isinstance(attribute.object, types.WrapperDescriptorType)
    ]


def signature_of(value: Any) -> str | None:
    """The signature as source would have it, None when Python does not know it."""
    try:
        return str(inspect.signature(value))
    except (ValueError, TypeError, NameError, AttributeError):
        return None


def summary_of(value: Any) -> str:
    """First line of the docstring that is not a signature."""
    lines = [line.strip() for line in docstring_of(value).splitlines()]
    name = getattr(value, "__name__", "")
    return next((line for line in lines if line and not (name and line.startswith(f"{name}("))), "")


def _inherited_names(cls: type) -> dict[str, list[str]]:
    """Public members by the base class that defines them, in method resolution order."""
    bases: dict[str, list[str]] = {base.__name__: [] for base in cls.__mro__[1:] if base is not object}
    for attribute in inspect.classify_class_attrs(cls):
        base = attribute.defining_class
        if base is not cls and base.__name__ in bases and not attribute.name.startswith("_"):
            bases[base.__name__].append(attribute.name)
    return {base: sorted(names) for base, names in bases.items() if names}


def _machine_paths() -> list[str]:
    """Folders that say something about this machine, longest first."""
    places = {sys.prefix, sys.base_prefix, sys.executable, os.getcwd(), os.path.expanduser("~"), *sys.path}
    places |= {os.path.realpath(place) for place in places}
    specific = {place for place in places if os.path.isabs(place) and place not in _COMMON_PREFIXES}
    return sorted(specific, key=lambda place: (-len(place), place))
