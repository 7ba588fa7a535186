"""The process that renders pages: `python -m bessemer.collect.builtin.render`.

Reads one JSON request from standard input, `{"kind": …, "names": […]}`. Writes an empty line once it
has started, then answers each name in order with one JSON line, `{"name": …, "pages": {…},
"faults": []}`. It runs apart from the collector because importing and inspecting foreign modules may
hang, crash, print or change the process.
"""

import importlib
import json
import os
import pydoc_data.topics
import sys
import traceback
import warnings
from typing import Any, TextIO

from bessemer.collect.builtin.names import LEFT_OUT
from bessemer.collect.builtin.pages import (
    PageDoc,
    docstring_of,
    is_function,
    link_list,
    own_members,
    page,
    public_members,
    section,
    summary_of,
    text_block,
)

MAX_PAGE_CHARS = 400_000
"""A larger page is not made: nobody reads it, and its parts have pages of their own."""
_MAX_CLASS_CHARS = 60_000
"""A larger class of a package gives one page a method."""
_MIN_DOC_CHARS = 200
"""An object whose docstring is shorter gets no page of its own."""

Pages = dict[str, str]
"""Path below the server's root, without `.html` → HTML."""


class Renderer:
    """Renders names of three kinds. Objects that two modules export get one page, under the first name."""

    def __init__(self) -> None:
        self._doc = PageDoc()
        self._names: dict[int, str] = {}  # id of a documented object → the name of its page

    def render(self, kind: str, name: str) -> Pages:
        """Pages of one name: a topic, a module, or a module of a package. Raises what its import raises."""
        if kind == "topics":
            return {f"topics/{name}": page(name, text_block(pydoc_data.topics.topics[name]))}
        module = importlib.import_module(name)
        if kind == "modules":
            return {f"reference/{name}": page(name, self.scrub(self._doc.module(module)))}
        return self._package_module(name, module)

    def scrub(self, fragment: str) -> str:
        """Without what is particular to this machine."""
        return self._doc.scrub(fragment)

    def _package_module(self, name: str, module: Any) -> Pages:
        """An overview of a module, and one page for each class and function that it exports."""
        pages: Pages = {}
        summaries: dict[str, dict[str, str]] = {"Classes": {}, "Functions": {}}
        for member, value in public_members(module).items():
            is_class = not is_function(value)
            if f"{name}.{member}" in LEFT_OUT or not _is_of_package(value, name.partition(".")[0]):
                continue
            if not is_class and len(docstring_of(value)) < _MIN_DOC_CHARS:
                continue
            qualified = self._names.setdefault(id(value), f"{name}.{member}")
            if qualified == f"{name}.{member}":
                pages |= self._class(qualified, value) if is_class else self._object(qualified, value)
            summaries["Classes" if is_class else "Functions"][qualified] = summary_of(value)
        overview = text_block(docstring_of(module)) + "".join(
            section(heading, link_list(names)) for heading, names in summaries.items() if names
        )
        return {f"reference/{name}": page(name, self.scrub(overview)), **pages}

    def _class(self, qualified: str, cls: type) -> Pages:
        """A class on one page, or an overview and a page a method where one page would be too long."""
        whole = self.scrub(self._doc.class_(cls))
        if len(whole) <= _MAX_CLASS_CHARS:
            return {f"reference/{qualified}": page(qualified, whole)}
        methods = {
            f"{qualified}.{name}": value
            for name, kind, value in own_members(cls)
            if kind != "data" and not name.startswith("_") and len(docstring_of(value)) >= _MIN_DOC_CHARS
        }
        pages: Pages = {}
        for name, value in methods.items():
            pages |= self._object(name, value)
        summaries = {name: summary_of(value) for name, value in methods.items()}
        overview = text_block(docstring_of(cls)) + section("Methods", link_list(summaries))
        return {f"reference/{qualified}": page(qualified, self.scrub(overview)), **pages}

    def _object(self, qualified: str, value: Any) -> Pages:
        body = self._doc.member(value, qualified.rpartition(".")[2])
        return {f"reference/{qualified}": page(qualified, self.scrub(body))}


def _is_of_package(value: Any, package: str) -> bool:
    """Not something that the module merely re-exports from elsewhere, such as typing.Any."""
    return (getattr(value, "__module__", None) or package).partition(".")[0] == package


def _answer(renderer: Renderer, kind: str, name: str) -> dict[str, Any]:
    try:
        pages = renderer.render(kind, name)
    except (Exception, SystemExit) as error:  # foreign code at import may raise anything; it is reported
        reason = " ".join(traceback.format_exception_only(error)[-1].split())
        return {"name": name, "pages": {}, "faults": [renderer.scrub(f"cannot be documented: {reason}")]}
    faults = [
        f"page too long: {path}, {len(text)} characters"
        for path, text in pages.items()
        if len(text) > MAX_PAGE_CHARS
    ]
    kept = {path: text for path, text in pages.items() if len(text) <= MAX_PAGE_CHARS}
    return {"name": name, "pages": kept, "faults": faults}


def main() -> None:
    """Answer the request on standard input."""
    request = json.loads(sys.stdin.read())
    with _answer_stream() as answers:
        answers.write("\n")
        answers.flush()
        warnings.simplefilter("ignore")
        renderer = Renderer()
        for name in request["names"]:
            answers.write(json.dumps(_answer(renderer, request["kind"], name)) + "\n")
            answers.flush()


def _answer_stream() -> TextIO:
    """Standard output for the answers alone: what modules print, from Python or C, goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
