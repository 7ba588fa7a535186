"""FineWeb's rules: Penedo et al. 2024, "The FineWeb Datasets", thresholds of the body text.

Off by default: they are fitted to the text that trafilatura extracts, and reject far more of what other
extractors give. The paper's appendix E.4 and its code (datatrove) take 0.01 for repeated lines where the body
has 0.1: `@appendix` and `@datatrove`.
"""

from bessemer.curate.rules.gopher import variant
from bessemer.curate.rules.rule import Rule

RULES = (
    Rule("fineweb.terminal_lines", "fraction of lines that end a sentence", min=0.12, enabled=False),
    Rule("fineweb.duplicate_line_characters", "as gopher's, tighter bound", max=0.10, enabled=False),
    Rule("fineweb.short_lines", "fraction of lines below 30 characters", max=0.67, enabled=False),
    Rule("fineweb.newlines_per_word", "newlines per word", max=0.3, enabled=False),
)
_TERMINAL, _DUPLICATE, _SHORT, _NEWLINES = RULES
VARIANTS = (
    variant(
        _DUPLICATE, "appendix", description="as gopher's, bound of appendix E.4", max=0.01, is_on_demand=False
    ),
    Rule("fineweb.lines@datatrove", "lines that are not blank", min=1, enabled=False, is_on_demand=True),
    variant(_TERMINAL, "datatrove"),
    variant(_DUPLICATE, "datatrove", description="fraction of characters in repeated lines", max=0.01),
    variant(_SHORT, "datatrove", description="fraction of lines up to 30 characters"),
    variant(_NEWLINES, "datatrove"),
)
