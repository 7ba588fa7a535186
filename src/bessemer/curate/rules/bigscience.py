"""BigScience's rules for ROOTS where they add to the others, with the thresholds for English.

Laurençon et al. 2022, "The BigScience ROOTS Corpus"; `parameters_filtering.py` of its data preparation.
"""

from bessemer.curate.rules.rule import Rule

RULES = (
    Rule(
        "bigscience.character_repetition",
        "share of the most frequent character 10-grams",
        max=0.106,
        enabled=False,
        is_on_demand=True,
    ),
    Rule(
        "bigscience.word_repetition",
        "share of word 5-grams that occur more than once",
        max=0.19,
        enabled=False,
        is_on_demand=True,
    ),
    Rule(
        "bigscience.special_characters",
        "share of punctuation, digits, whitespace and symbols",
        max=0.4,
        enabled=False,
        is_on_demand=True,
    ),
)
