"""The kinds of question."""

from typing import Literal

QuestionKind = Literal["purpose", "module", "returns", "arguments"]
