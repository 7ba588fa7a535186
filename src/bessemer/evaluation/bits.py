"""Bits per byte: how many bits the model needs for a byte of unseen text, whatever its tokenizer."""

import math

import numpy as np

from bessemer.evaluation.scores import Evaluate, document_log_probabilities
from bessemer.evaluation.statistics import Estimate, ratio_of_sums
from bessemer.formats.tokens import TokenSplit
from bessemer.training.batches import Batch, Row, row_of_pieces, stack_rows

_ROWS_PER_BATCH = 16


def bits_per_byte(evaluate: Evaluate, split: TokenSplit, sequence_length: int, max_tokens: int) -> Estimate:
    """Bits per UTF-8 byte over whole documents of a split, with a 95 % interval over documents.

    Documents are taken in order until `max_tokens`; each is cut into windows of `sequence_length`
    tokens that overlap by one, so that every token but a document's first is predicted once, from
    what its window holds before it. The end-of-text token counts in the bits, not in the bytes.
    """
    numbers = _documents_within(split, max_tokens)
    windows: list[tuple[int, Row]] = []
    for slot, number in enumerate(numbers):
        tokens = np.asarray(split.document(number), dtype=np.int64)
        for start in range(0, len(tokens) - 1, sequence_length):
            windows.append((slot, row_of_pieces([tokens[start : start + sequence_length + 1]])))
    windows.sort(key=lambda window: len(window[1].token_ids))  # like lengths share a batch
    parts = [windows[start : start + _ROWS_PER_BATCH] for start in range(0, len(windows), _ROWS_PER_BATCH)]
    batches = [_batch([row for _, row in part]) for part in parts]
    nats = np.zeros(len(numbers))
    for part, scores in zip(parts, evaluate(document_log_probabilities(2), batches), strict=True):
        for (slot, _), value in zip(part, scores[:, 0].tolist(), strict=True):
            nats[slot] -= value
    num_bytes = np.array([split.num_bytes[number] for number in numbers], dtype=np.float64)
    return ratio_of_sums((nats / math.log(2)).tolist(), num_bytes.tolist())


def _batch(rows: list[Row]) -> Batch:
    length = max(len(row.token_ids) for row in rows)
    return stack_rows([_padded(row, length) for row in rows])


def _documents_within(split: TokenSplit, max_tokens: int) -> list[int]:
    numbers, total = [], 0
    for number, length in enumerate(split.lengths):
        if numbers and total + length > max_tokens:
            break
        numbers.append(number)
        total += int(length)
    return numbers


def _padded(row: Row, length: int) -> Row:
    """Pad to `length`; padding is a second document without targets."""
    missing = length - len(row.token_ids)

    def pad(array: np.ndarray, value: int) -> np.ndarray:
        return np.concatenate([array, np.full(missing, value, dtype=array.dtype)])

    return Row(pad(row.token_ids, 0), pad(row.targets, -100), pad(row.documents, 1), pad(row.positions, 0))
