"""RefinedWeb's rules: Penedo et al. 2023, "The RefinedWeb Dataset" (see the paper), as DCLM's baseline runs
them (`baselines_configs/dclm_baseline_refinedweb.yaml`).

Its document rules are Gopher's. Its line rules are edits; a page that they take more than 5 % of the words
of is dropped. Off by default: they cost headings and tables.
"""

from bessemer.curate.rules.rule import Rule


def _edit(name: str, description: str) -> Rule:
    return Rule(name, "characters in " + description, enabled=False, action="edit")


EDITS = (
    _edit("refinedweb.uppercase_lines", "lines more than half upper-case"),
    _edit("refinedweb.digit_lines", "lines of digits alone"),
    _edit("refinedweb.counter_lines", 'lines that count something ("3 likes")'),
    _edit("refinedweb.one_word_lines", "lines of one word"),
    _edit("refinedweb.boilerplate", '"items in cart", "Read more..." and "Sign-in" in lines up to 10 words'),
)
RULES = (
    Rule(
        "refinedweb.removed_words",
        "fraction of words that its line rules remove, enabled or not",
        max=0.05,
        enabled=False,
    ),
)
