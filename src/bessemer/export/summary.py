"""summary.txt: the evaluation table and a few real answers, shown when a run ends. Holds no times."""

import textwrap

from bessemer.evaluation.table import format_table
from bessemer.export.samples import examples, verdict_text
from bessemer.export.view import RunView

_WIDTH = 100


def summary_text(view: RunView, model: str) -> str:
    """The summary of a run whose final model is the stage `model`. A function of the artifacts alone."""
    blocks = [format_table(view.results)] if view.results else []
    if view.key_definition:
        blocks.append(textwrap.fill(view.key_definition, _WIDTH))
    chosen = examples(view.answers.get(model, ()))
    if chosen:
        answers = [
            f"{_wrapped('Q', row['text'])}\n{_wrapped('A', row['answer'])}\n     [{verdict_text(row)}]"
            for row in chosen
        ]
        blocks.append("\n".join([f"Answers of {model}, chosen by rule:", *answers]))
    return "\n\n".join(blocks) + "\n"


def _wrapped(mark: str, text: str) -> str:
    """Text after `  Q  `, wrapped below itself; an empty one is said to be so."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split()) or "(nothing)"
    shown = plain if len(plain) <= 3 * _WIDTH else plain[: 3 * _WIDTH] + " …"
    return textwrap.fill(shown, _WIDTH, initial_indent=f"  {mark}  ", subsequent_indent="     ")
