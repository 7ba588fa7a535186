"""XML from strangers: no document type with entities, no external files, bounded depth.

expat resolves nothing external by itself; entities that expand are refused outright, because their only
use in the files read here is to fill the memory.
"""

from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

_MAX_DEPTH = 200


class BadXml(ValueError):
    """Not well-formed, or not safe to read."""


@dataclass
class Element:
    """An element: names without namespaces, text of itself without that of its children."""

    name: str
    attributes: dict[str, str]
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def all(self, name: str) -> list["Element"]:
        """Every element of a name below this one, in document order."""
        found: list[Element] = []
        waiting = list(reversed(self.children))
        while waiting:
            element = waiting.pop()
            if element.name == name:
                found.append(element)
            waiting.extend(reversed(element.children))
        return found


def parse_xml(content: bytes) -> Element:
    """The root element. Raises BadXml."""
    parser = expat.ParserCreate()
    root = Element("", {})
    path = [root]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(path) > _MAX_DEPTH:
            raise BadXml(f"elements nest more than {_MAX_DEPTH} deep")
        element = Element(_local(name), {_local(key): value for key, value in attributes.items()})
        path[-1].children.append(element)
        path.append(element)

    def text(data: str) -> None:
        path[-1].text += data

    def refuse_entity(*declaration: Any) -> None:
        raise BadXml("it declares entities")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: path.pop()
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = refuse_entity
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise BadXml(" ".join(str(error).split())) from error
    return root.children[0]


def _local(name: str) -> str:
    return name.rpartition(":")[2]
