import math

import numpy as np
import pytest
import torch

from bessemer.evaluation.bits import bits_per_byte
from bessemer.evaluation.scores import evaluate_alone
from bessemer.formats.tokens import dtype_for, read_split, write_header, write_shard
from model_helpers import tiny_model

LENGTHS = (23, 2, 40, 7, 1, 31, 16, 17, 5, 3, 12, 9, 28, 4, 33, 6, 8, 11, 2, 19)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    draw = np.random.Generator(np.random.Philox(2))
    documents = [(str(d), draw.integers(0, 61, n).tolist(), 3 * n + d) for d, n in enumerate(LENGTHS)]
    write_shard(folder, "validation", 0, documents[:9], dtype_for(61))
    write_shard(folder, "validation", 1, documents[9:], dtype_for(61))
    write_header(folder, vocab_size=61, tokenizer_digest="", counts={})
    return read_split(folder, "validation")


def bits_by_hand(model, split, numbers, sequence_length):
    """One window at a time: a window's first token is context, every other one is predicted."""
    bits = []
    for number in numbers:
        tokens = torch.from_numpy(split.document(number).astype(np.int64))
        total = 0.0
        for start in range(0, len(tokens) - 1, sequence_length):
            window = tokens[start : start + sequence_length + 1]
            log_probabilities = model.logits(model(window[None, :-1]))[0].double().log_softmax(-1)
            total -= float(log_probabilities.gather(1, window[1:, None]).sum()) / math.log(2)
        bits.append(total)
    return bits


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary_a_token(split):
    model = tiny_model()
    with torch.no_grad():
        model.embedding.zero_()
    expected = math.log2(61) * sum(n - 1 for n in LENGTHS) / int(split.num_bytes.sum())
    for sequence_length in (1, 7, 64):
        estimate = bits_per_byte(evaluate_alone(model), split, sequence_length, 10**6)
        assert estimate.value == pytest.approx(expected, rel=1e-6)
        assert estimate.low < expected < estimate.high
        assert estimate.n == len(LENGTHS)


@pytest.mark.parametrize("sequence_length", [1, 5, 16, 64])
def test_windows_in_a_batch_count_as_each_does_alone(split, sequence_length):
    model = tiny_model()
    with torch.no_grad():
        bits = bits_by_hand(model, split, range(len(LENGTHS)), sequence_length)
    estimate = bits_per_byte(evaluate_alone(model), split, sequence_length, 10**6)
    assert estimate.value == pytest.approx(sum(bits) / int(split.num_bytes.sum()), rel=1e-5)


def test_longer_windows_than_documents_change_nothing(split):
    model = tiny_model()
    values = [
        bits_per_byte(evaluate_alone(model), split, length, 10**6).value for length in (39, 40, 64, 127)
    ]
    assert values == pytest.approx([values[0]] * 4, rel=1e-6)


def test_whole_documents_are_taken_in_order_up_to_the_limit(split):
    model = tiny_model()
    with torch.no_grad():
        bits = bits_by_hand(model, split, range(3), 64)
    estimate = bits_per_byte(evaluate_alone(model), split, 64, 23 + 2 + 40 + 6)
    assert estimate.n == 3
    assert estimate.value == pytest.approx(sum(bits) / int(split.num_bytes[:3].sum()), rel=1e-5)


def test_the_first_document_counts_even_when_it_is_over_the_limit(split):
    assert bits_per_byte(evaluate_alone(tiny_model()), split, 64, 1).n == 1


def test_measuring_leaves_the_model_in_its_mode_and_without_gradients(split):
    model = tiny_model().train()
    bits_per_byte(evaluate_alone(model), split, 16, 100)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
