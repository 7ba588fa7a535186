"""Facts: what the documentation says about one object, in a form that questions can be asked about."""

from dataclasses import asdict, dataclass
from typing import Any

from bessemer.synthesize.phrasings import QuestionKind


@dataclass(frozen=True)
class Fact:
    """One documented object."""

    name: str
    """Qualified, such as `math.gcd`."""
    kind: str
    """`function` or `class`."""
    summary: str
    """First sentence of its documentation."""
    arguments: tuple[str, ...] | None
    """Parameter names in order, or None when the documentation shows no signature."""
    returns: str | None
    """Type or description of the return value, or None when not documented."""
    document_id: str
    """The document that says so."""

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def short(self) -> str:
        return self.name.rpartition(".")[2]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Fact":
        arguments = row["arguments"]
        return cls(**{**row, "arguments": None if arguments is None else tuple(arguments)})


def answer_to(fact: Fact, kind: QuestionKind) -> str | None:
    """The reference answer, or None when the fact does not hold one."""
    if kind == "purpose":
        return fact.summary
    if kind == "module":
        return f"{fact.short} is in {fact.module}."
    if kind == "returns":
        return None if fact.returns is None else f"It returns {fact.returns}."
    if fact.arguments is None:
        return None
    return f"It takes {_listed(fact.arguments)}." if fact.arguments else "It takes no arguments."


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
