"""C4's rules: Raffel et al. 2020, "Exploring the Limits of Transfer Learning" (see the paper).

Plain names are the final version (the paper in JMLR and TFDS `text/c4_utils.py`): lines of at least 5 words,
pages of at least 3 sentences. `@v1` is the first version (arXiv v1): 3 words, 5 sentences. `@datatrove` is
datatrove 0.10.1's C4QualityFilter, which takes the first version's numbers; its values are those of the text
before any edit.

Edits are rules too: their value is the number of characters that they remove, and they drop no document.
`c4.citation_marks` is off by default, for it takes `[0]` and `[]` out of code as well; the line rules are off
because they leave nothing but prose (FineWeb measured that end marks alone cost 30 % of the tokens).
"""

from bessemer.curate.rules.rule import Rule


def _edit(name: str, description: str, enabled: bool = False) -> Rule:
    return Rule(name, "characters in " + description, enabled=enabled, action="edit")


EDITS = (
    _edit("c4.javascript_lines", "lines that mention javascript", enabled=True),
    _edit("c4.policy_lines", "lines about cookies, terms and privacy policies", enabled=True),
    _edit("c4.long_word_lines", "lines with a word above 1,000 characters", enabled=True),
    _edit("c4.citation_marks", "marks such as [12] and [edit]"),
    _edit("c4.terminal_lines", 'lines that do not end with one of . ? ! "'),
    _edit("c4.short_lines", "lines of fewer than 5 words"),
    _edit("c4.short_lines@v1", "lines of fewer than 3 words"),
    _edit("c4.terminal_lines@datatrove", "lines that do not end with one of . ? ! \" '"),
    _edit("c4.short_lines@datatrove", "lines of fewer than 3 words, citation marks counted"),
)
RULES = (
    Rule("c4.sentences", "sentences, counted line by line", min=3),
    Rule("c4.curly_bracket", "opening curly brackets", max=0),
    Rule("c4.lorem_ipsum", "mentions of lorem ipsum", max=0),
)
VARIANTS = (
    Rule("c4.sentences@v1", "sentences, counted line by line", min=5, enabled=False),
    Rule(
        "c4.bad_words",
        "occurrences of words of the user's list",
        max=0,
        enabled=False,
        is_on_demand=True,
        needs="bad_words",
    ),
    Rule("c4.long_lines", "lines of at least 200 characters (mC4)", min=3, enabled=False),
    Rule(
        "c4.sentences@datatrove",
        "sentences in the lines that datatrove's C4 filter keeps",
        min=5,
        enabled=False,
        is_on_demand=True,
    ),
    Rule(
        "c4.curly_bracket@datatrove",
        "lines with a curly bracket that reach datatrove's test",
        max=0,
        enabled=False,
        is_on_demand=True,
    ),
    Rule(
        "c4.lorem_ipsum@datatrove",
        "lines with lorem ipsum that reach datatrove's test",
        max=0,
        enabled=False,
        is_on_demand=True,
    ),
)
