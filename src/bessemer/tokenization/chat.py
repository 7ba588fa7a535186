"""The one renderer: a conversation becomes token ids and a loss mask, together.

Training, preference scoring, evaluation and chat all call `render`, so that a mask can never be
out of step with its tokens and a prompt can never differ between training and use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from bessemer.errors import BessemerError
from bessemer.tokenization.template import ROLES
from bessemer.tokenization.tokenizer import Tokenizer


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Rendered:
    """Token ids of a conversation, and which of them the assistant is to learn."""

    token_ids: list[int]
    loss_mask: list[bool]
    """True for the tokens of assistant turns and the end-of-turn token that closes each."""


def render(
    tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool = False
) -> Rendered:
    """Render messages in ChatML: `<|im_start|>role\\ncontent<|im_end|>\\n` a turn.

    With `add_generation_prompt` the sequence ends where the assistant's answer begins.
    Raises BessemerError for an unknown role or an empty conversation.
    """
    if not messages:
        raise BessemerError("a conversation needs at least one message")
    token_ids: list[int] = []
    loss_mask: list[bool] = []

    def append(ids: list[int], *, learnt: bool = False) -> None:
        token_ids.extend(ids)
        loss_mask.extend([learnt] * len(ids))

    newline = tokenizer.encode("\n")
    for message in messages:
        role = message["role"]
        if role not in ROLES:
            raise BessemerError(f"unknown role {role!r}; roles are {', '.join(ROLES)}")
        learnt = role == "assistant"
        append([tokenizer.start_of_turn_id, *tokenizer.encode(f"{role}\n")])
        append([*tokenizer.encode(message["content"].strip()), tokenizer.end_of_turn_id], learnt=learnt)
        append(newline)
    if add_generation_prompt:
        append([tokenizer.start_of_turn_id, *tokenizer.encode("assistant\n")])
    return Rendered(token_ids, loss_mask)


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids up to where the assistant is to continue."""
    return render(tokenizer, messages, add_generation_prompt=True).token_ids
