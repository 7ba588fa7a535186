"""Gopher's rules: Rae et al. 2021, "Scaling Language Models" (see the paper), and three readings of them.

Plain names follow the paper's words, on words parted by whitespace. `@datatrove`, `@dolma` and `@redpajama`
compute what these tools compute (datatrove 0.10.1, dolma 1.2.1, RedPajama-Data v2).
"""

from dataclasses import replace

from bessemer.curate.rules.rule import Rule

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
_DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Table A1 of the paper: greatest fraction of characters, by n."""

QUALITY = (
    Rule("gopher.word_count", "words", min=50, max=100_000),
    Rule("gopher.mean_word_length", "characters per word", min=3, max=10),
    Rule("gopher.hash_ratio", "hash signs per word", max=0.1),
    Rule("gopher.ellipsis_ratio", "ellipses per word", max=0.1),
    Rule("gopher.bullet_lines", "fraction of lines that start with a bullet", max=0.9),
    Rule("gopher.ellipsis_lines", "fraction of lines that end with an ellipsis", max=0.3),
    Rule("gopher.alphabetic_words", "fraction of words with a letter", min=0.8),
    Rule("gopher.stop_words", "distinct words of: " + " ".join(STOP_WORDS), min=2),
)
REPEATED_LINES = (
    Rule("gopher.duplicate_lines", "fraction of lines that repeat an earlier one", max=0.30),
    Rule("gopher.duplicate_paragraphs", "fraction of paragraphs that repeat an earlier one", max=0.30),
    Rule("gopher.duplicate_line_characters", "fraction of characters in such lines", max=0.20),
    Rule("gopher.duplicate_paragraph_characters", "fraction of characters in such paragraphs", max=0.20),
)
REPEATED_WORDS = (
    *(
        Rule(f"gopher.top_{n}_gram", f"fraction of characters in the most frequent {n}-gram", max=threshold)
        for n, threshold in _TOP.items()
    ),
    *(
        Rule(f"gopher.duplicate_{n}_grams", f"fraction of characters in repeated {n}-grams", max=threshold)
        for n, threshold in _DUPLICATE.items()
    ),
)
RULES = (*QUALITY, *REPEATED_LINES, *REPEATED_WORDS)


def variant(rule: Rule, of: str, **changes: object) -> Rule:
    """The rule as another publication or tool defines it, off and measured on demand."""
    description = f"{rule.description}, as {of} counts"
    return replace(
        rule,
        **{
            "name": f"{rule.name}@{of}",
            "description": description,
            "enabled": False,
            "is_on_demand": True,
            **changes,
        },
    )


DATATROVE = tuple(variant(rule, "datatrove") for rule in RULES)
_BY_NAME = {rule.name: rule for rule in RULES}
DOLMA = (
    variant(_BY_NAME["gopher.word_count"], "dolma"),
    Rule(
        "gopher.median_word_length@dolma",
        "median of the words' characters",
        min=3,
        max=10,
        enabled=False,
        is_on_demand=True,
    ),
    Rule(
        "gopher.symbol_ratio@dolma",
        "fraction of words with a hash sign or an ellipsis sign",
        max=0.1,
        enabled=False,
        is_on_demand=True,
    ),
    *(
        variant(_BY_NAME[name], "dolma")
        for name in (
            "gopher.bullet_lines",
            "gopher.ellipsis_lines",
            "gopher.alphabetic_words",
        )
    ),
    variant(_BY_NAME["gopher.stop_words"], "dolma", description="words of: " + " ".join(STOP_WORDS)),
    variant(_BY_NAME["gopher.duplicate_lines"], "dolma"),
    variant(_BY_NAME["gopher.duplicate_line_characters"], "dolma"),
    *(variant(rule, "dolma") for rule in REPEATED_WORDS),
)
REDPAJAMA = tuple(variant(rule, "redpajama") for rule in REPEATED_WORDS)
VARIANTS = (*DATATROVE, *DOLMA, *REDPAJAMA)
