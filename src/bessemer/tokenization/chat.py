"""The one renderer: a conversation becomes token ids and a loss mask, together.

Training, preference scoring, evaluation and chat all call `render`, so that a mask can never be
out of step with its tokens and a prompt can never differ between training and use.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from bessemer.errors import BessemerError
from bessemer.tokenization.template import ROLES
from bessemer.tokenization.tokenizer import Tokenizer

_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
"""JSON can write it (`"\\ud83d"`), UTF-8 cannot."""


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
    Raises BessemerError for an unknown role, an empty conversation, or anything but messages.
    """
    _check(messages)
    token_ids: list[int] = []
    loss_mask: list[bool] = []

    def append(ids: list[int], *, learnt: bool = False) -> None:
        token_ids.extend(ids)
        loss_mask.extend([learnt] * len(ids))

    newline = tokenizer.encode("\n")
    for message in messages:
        role = message["role"]
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


def _check(messages: Sequence[Message]) -> None:
    """Conversations come from files that people write: say what is wrong with one."""
    if isinstance(messages, str) or not messages:
        raise BessemerError("a conversation needs at least one message, in a list")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise BessemerError(f'expected {{"role": …, "content": "text"}} as a message, got {message!r}')
        if _HALF_A_CHARACTER.search(message["content"]):
            raise BessemerError(f"a message holds half of a surrogate pair, no character: {message!r}")
        if message.get("role") not in ROLES:
            raise BessemerError(f"unknown role {message.get('role')!r}; roles are {', '.join(ROLES)}")
