"""Facts about a made-up library, and reference pages that state them."""

from bessemer.synthesize.facts import Fact

MODULES = ("alpha", "beta", "beta.gamma", "delta")
VERBS = ("read", "write", "split", "join", "count", "merge", "parse", "open")
NOUNS = ("row", "line", "field", "page", "token", "record", "table")


def some_facts() -> list[Fact]:
    """56 functions, a few of whose short names stand in two modules, and some poor in facts."""
    facts = []
    for number, (verb, noun) in enumerate((v, n) for v in VERBS for n in NOUNS):
        name = f"{MODULES[number % 4]}.{verb}_{noun}"
        arguments = (("path", "size", "mode")[: number % 4],) if number % 5 else (None,)
        returns = ("int", "list of str", None)[number % 3]
        facts.append(
            Fact(
                name,
                "function",
                f"The {verb} of every {noun} number {number}.",
                *arguments,
                returns,
                f"d{number}",
            )
        )
        if number % 9 == 0:
            twin = f"{MODULES[(number + 1) % 4]}.{verb}_{noun}"
            facts.append(Fact(twin, "function", f"Another {verb} of {noun} {number}.", None, None, "t"))
    return facts


def page_of(module: str, facts: list[Fact]) -> str:
    """A module's reference page as the documentation writes it."""
    blocks = [module, "Some words about the module, which is a good one.", "Functions"]
    for fact in facts:
        signature = f"{fact.short}({', '.join(fact.arguments or ())})"
        blocks.append(f"{signature}{f' -> {fact.returns}' if fact.returns else ''}\n{fact.summary}")
    return "\n\n".join(blocks)
