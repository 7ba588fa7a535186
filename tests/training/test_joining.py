"""Joining packed conversations: nothing added, nothing lost, and the same as rendering them together."""

import numpy as np
import pytest

from bessemer.tokenization.chat import render
from bessemer.tokenization.tokenizer import train_bpe
from bessemer.training.joining import join


def turns(number):
    return [
        {"role": "user", "content": f"What is {number}?"},
        {"role": "assistant", "content": f"It is {number}."},
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(iter(["What is it? It is 1."]), 262)


def test_a_joined_conversation_is_what_rendering_all_its_turns_gives(tokenizer):
    both = {
        (tuple(r.token_ids), tuple(r.loss_mask))
        for r in (render(tokenizer, [*turns(1), *turns(2)]), render(tokenizer, [*turns(2), *turns(1)]))
    }
    parts = [render(tokenizer, turns(1)), render(tokenizer, turns(2))]
    results = [join(parts, 0.999, np.random.default_rng(seed)) for seed in range(20)]
    assert {(tuple(r.token_ids), tuple(r.loss_mask)) for [r] in results} == both


def test_joining_keeps_every_token_and_joins_the_share_asked_for(tokenizer):
    parts = [render(tokenizer, turns(number)) for number in range(8)]
    num_joined = 0
    for seed in range(400):
        joined = join(parts, 0.25, np.random.default_rng(seed))
        assert sorted(t for r in joined for t in r.token_ids) == sorted(t for r in parts for t in r.token_ids)
        assert sum(map(sum, (r.loss_mask for r in joined))) == sum(map(sum, (r.loss_mask for r in parts)))
        num_joined += len(parts) - len(joined)
    # Binomial with 400 * 7 draws: 0.25 within four standard deviations.
    assert num_joined / (400 * 7) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 2800) ** 0.5)


def test_without_a_share_the_order_alone_changes(tokenizer):
    parts = [render(tokenizer, turns(number)) for number in range(8)]
    joined = join(parts, 0.0, np.random.default_rng(3))
    assert sorted(tuple(r.token_ids) for r in joined) == sorted(tuple(r.token_ids) for r in parts)
