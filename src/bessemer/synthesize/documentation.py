"""Reading facts out of curated reference pages.

A reference page's text starts with the qualified name it documents, as a line of its own. A page of
one object goes on with its signature; a page of a module lists its classes and functions under the
headings `Classes` and `Functions`. Wherever a signature stands on a line, its documentation follows
at once and ends with the entry:

    bisect_left(a, x, lo=0, hi=None, *, key=None)
    Return the index where to insert item x in list a, assuming a is sorted.

Documents of any other shape give no facts, and are no error.
"""

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bessemer.formats.documents import read_documents
from bessemer.synthesize.facts import Fact
from bessemer.synthesize.verify import normalized_words

_NAME_LINE = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
_SIGNATURE = re.compile(r"(?:async )?([A-Za-z_]\w*)(\(.*\))(?: -> (.+))?")
_CLASS_LINE = re.compile(r"(?:\w+ = )?class (\w+)\(.*\)")
_HEADINGS = frozenset({"Classes", "Functions", "Methods", "Properties", "Data"})
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'`(])")
_NUMPY_RETURNS = re.compile(r"^Returns\n-+\n(?:\w+ : )?([^\n]+)", re.MULTILINE)
_PLAIN_WORD = re.compile(r"(?<![\w.`'\"-])[a-z]{2,14}(?![\w`'\"(=-])")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_MIN_WORD_DOCUMENTS = 2
_MIN_SUMMARY_WORDS = 3
_MIN_SUMMARY_CHARACTERS = 15
_MAX_RETURNS_CHARACTERS = 30


@dataclass(frozen=True)
class Documentation:
    """What a set of reference pages documents."""

    names: list[str]
    """Every qualified name with an entry, usable or not: a question about one is never declined."""
    facts: list[Fact]
    """The names whose entries are short and plain enough to ask about; sorted by name."""
    words: list[str]
    """Lower-case words that several documents use, sorted."""
    mentions: Counter[str]
    """In how many documents an identifier occurs: what many pages mention is well known."""


@dataclass(frozen=True)
class Entry:
    """One documented name of a page."""

    name: str
    """Qualified."""
    is_class: bool
    signature: str
    """With parentheses."""
    annotation: str | None
    """What stands after `->`."""
    documentation: str
    """The docstring, lines as they are."""


def read_documentation(folder: Path, max_summary_characters: int, max_arguments: int) -> Documentation:
    """All names and usable facts of a documents artifact; of two pages about one name the first wins."""
    names: dict[str, None] = {}
    facts: dict[str, Fact] = {}
    words: Counter[str] = Counter()
    mentions: Counter[str] = Counter()
    for batch in read_documents(folder, columns=["id", "text"]):
        for id, text in zip(batch.column("id").to_pylist(), batch.column("text").to_pylist(), strict=True):
            words.update(set(_PLAIN_WORD.findall(text)))
            mentions.update(set(_IDENTIFIER.findall(text)))
            for entry in read_entries(text):
                if entry.name in names:
                    continue
                names[entry.name] = None
                fact = fact_of(entry, id, max_summary_characters, max_arguments)
                if fact is not None:
                    facts[entry.name] = fact
    common = sorted(word for word, count in words.items() if count >= _MIN_WORD_DOCUMENTS)
    return Documentation(sorted(names), [facts[name] for name in sorted(facts)], common, mentions)


def read_entries(text: str) -> Iterator[Entry]:
    """Entries of one page, in order; none when the text is not a reference page."""
    blocks = [block for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip()]
    if len(blocks) < 2 or not _NAME_LINE.fullmatch(blocks[0].strip()):
        return
    page = blocks[0].strip()
    if _is_object_page(page, blocks[1]):
        yield from _object_entry(page, blocks[1:])
    else:
        yield from _module_entries(page, blocks[1:])


def _is_object_page(page: str, block: str) -> bool:
    first_line = block.partition("\n")[0]
    signature, class_line = _SIGNATURE.fullmatch(first_line), _CLASS_LINE.fullmatch(first_line)
    short = page.rpartition(".")[2]
    return class_line is not None or (signature is not None and signature[1] == short)


def _object_entry(page: str, blocks: list[str]) -> Iterator[Entry]:
    is_class = _CLASS_LINE.fullmatch(blocks[0].partition("\n")[0]) is not None
    body = blocks[1:] if is_class else blocks
    if body and (match := _SIGNATURE.fullmatch(body[0].partition("\n")[0])):
        rest = [block for block in body[1:] if block.strip() not in _HEADINGS]
        documentation = "\n\n".join([body[0].partition("\n")[2], *rest])
        yield Entry(page, is_class, match[2], match[3], documentation)


def _module_entries(page: str, blocks: list[str]) -> Iterator[Entry]:
    section, awaited = "", ""
    for number, block in enumerate(blocks):
        first_line, _, rest = block.partition("\n")
        if block.strip() in _HEADINGS:
            section = block.strip()
        elif match := _CLASS_LINE.fullmatch(block.strip()):
            section, awaited = "Classes", match[1]
        elif match := _SIGNATURE.fullmatch(first_line):
            is_class = section == "Classes" and match[1] == awaited
            if is_class or section == "Functions":
                following = "\n\n".join([rest, *blocks[number + 1 : number + 6]])
                yield Entry(f"{page}.{match[1]}", is_class, match[2], match[3], following)
                awaited = "" if is_class else awaited


def fact_of(entry: Entry, document_id: str, max_summary_characters: int, max_arguments: int) -> Fact | None:
    """The fact that an entry states, or None when its first sentence is too long, too short or not prose."""
    summary = first_sentence(entry.documentation)
    if summary is None or not _MIN_SUMMARY_CHARACTERS <= len(summary) <= max_summary_characters:
        return None
    if entry.name.rpartition(".")[2].startswith("_"):
        return None
    arguments = argument_names(entry.signature)
    if arguments is not None and (
        len(arguments) > max_arguments or any(a.startswith("_") for a in arguments)
    ):
        arguments = None  # a private parameter is not for its users to give
    kind = "class" if entry.is_class else "function"
    return Fact(entry.name, kind, summary, arguments, _returns(entry), document_id)


def first_sentence(documentation: str) -> str | None:
    """The first sentence of the first paragraph, on one line, when it is plain prose that ends properly."""
    paragraph = " ".join(documentation.split("\n\n")[0].split())
    sentence = _SENTENCE_END.split(paragraph)[0]
    is_prose = (
        sentence.endswith(".")
        and not sentence.endswith(("..", "e.g.", "i.e."))
        and sentence.isascii()
        and not re.search(r">>>|::|->|=|https?:|[{}|<>\\]", sentence)
        and len(normalized_words(sentence)) >= _MIN_SUMMARY_WORDS
    )
    return sentence if is_prose else None


def argument_names(signature: str) -> tuple[str, ...] | None:
    """Parameter names of `(a, /, *, b=1)` in order, without `self`; None when it is not valid Python.

    The text is parsed, never run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in defaults are their authors' business
            function = ast.parse(f"def f{signature}: pass").body[0]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(function, ast.FunctionDef):
        return None
    given = function.args
    ordered = [*given.posonlyargs, *given.args]
    ordered += [given.vararg] if given.vararg else []
    ordered += given.kwonlyargs
    ordered += [given.kwarg] if given.kwarg else []
    return tuple(argument.arg for argument in ordered if argument.arg not in ("self", "cls"))


def _returns(entry: Entry) -> str | None:
    """The documented type of the return value, when it is short and says something."""
    match = _NUMPY_RETURNS.search(entry.documentation)
    text = (match[1] if match else entry.annotation or "").strip().strip("'\"").rstrip(".")
    is_plain = re.fullmatch(r"[\w.,\[\] -]+", text) is not None and len(text) <= _MAX_RETURNS_CHARACTERS
    if (
        entry.is_class
        or not is_plain
        or text in ("None", "Any", "NoReturn", "Self")
        or not normalized_words(text)
    ):
        return None
    return text
