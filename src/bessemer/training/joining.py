"""Conversations of a row made into longer ones: practice at answering after other questions."""

from collections.abc import Sequence

import numpy as np

from bessemer.tokenization.chat import Rendered


def join(conversations: Sequence[Rendered], share: float, generator: np.random.Generator) -> list[Rendered]:
    """The conversations of a row in random order, each with probability `share` continuing the one before.

    A continued conversation is what rendering all its messages together gives, for the template renders
    turn by turn: nothing is added or left out, and every assistant turn stays supervised.
    """
    joined: list[Rendered] = []
    for place in generator.permutation(len(conversations)):
        following = conversations[place]
        if joined and generator.random() < share:
            before = joined.pop()
            following = Rendered(
                [*before.token_ids, *following.token_ids], [*before.loss_mask, *following.loss_mask]
            )
        joined.append(following)
    return joined
